//! A collector: what OTLP exporters talk to, over gRPC by tonic, and over HTTP.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Request, Response, Status};

/// A request, with the headers that came with it.
type Exported = (Vec<(String, String)>, ExportMetricsServiceRequest);

/// What arrived: metrics, spans, and logs.
#[derive(Clone, Default)]
pub struct Received(Arc<Mutex<Vec<Exported>>>, Arc<Mutex<Vec<Span>>>, Arc<Mutex<Vec<Logged>>>);

/// The module that an event came from, and the event.
pub type Logged = (String, LogRecord);

impl Received {
    fn push(&self, headers: Vec<(String, String)>, request: ExportMetricsServiceRequest) {
        self.0.lock().unwrap().push((headers, request));
    }

    /// All log events.
    pub fn logs(&self) -> Vec<Logged> {
        self.2.lock().unwrap().clone()
    }

    fn push_logs(&self, request: ExportLogsServiceRequest) {
        let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        let logged = scopes.flat_map(|logs| {
            let target = logs.scope.map(|scope| scope.name).unwrap_or_default();
            logs.log_records.into_iter().map(move |record| (target.clone(), record))
        });
        self.2.lock().unwrap().extend(logged);
    }

    /// A span of this name.
    pub fn span(&self, name: &str) -> Option<Span> {
        self.1.lock().unwrap().iter().find(|span| span.name == name).cloned()
    }

    /// All spans of this name.
    pub fn spans(&self, name: &str) -> Vec<Span> {
        self.1.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// A header of the newest request.
    pub fn header(&self, name: &str) -> Option<String> {
        let all = self.0.lock().unwrap();
        let (headers, _) = all.last()?;
        headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    /// An attribute of the resource of the newest request.
    pub fn resource(&self, name: &str) -> Option<String> {
        let all = self.0.lock().unwrap();
        let resource = all.last()?.1.resource_metrics.first()?.resource.clone()?;
        attribute(&resource.attributes, name)
    }

    /// The metrics of the newest request.
    pub fn metrics(&self) -> Vec<Metric> {
        let all = self.0.lock().unwrap();
        let Some((_, request)) = all.last() else { return Vec::new() };
        let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        scopes.flat_map(|scope| scope.metrics.clone()).collect()
    }

    /// The sum of the points of a counter or gauge with these attributes, in the newest request.
    pub fn value(&self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let metric = self.metrics().into_iter().find(|metric| metric.name == name)?;
        let points = match metric.data? {
            Data::Sum(sum) => sum.data_points,
            Data::Gauge(gauge) => gauge.data_points,
            _ => return None,
        };
        let points = points.into_iter().filter(|point| has(&point.attributes, wanted));
        let values: Vec<_> = points
            .filter_map(|point| match point.value? {
                number_data_point::Value::AsDouble(value) => Some(value),
                number_data_point::Value::AsInt(value) => Some(value as f64),
            })
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The points of a histogram with these attributes, in the newest request.
    pub fn histogram(&self, name: &str, wanted: &[(&str, &str)]) -> Vec<HistogramDataPoint> {
        let metric = self.metrics().into_iter().find(|metric| metric.name == name);
        match metric.and_then(|metric| metric.data) {
            Some(Data::Histogram(histogram)) => {
                histogram.data_points.into_iter().filter(|point| has(&point.attributes, wanted)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn has(attributes: &[KeyValue], wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(name, value)| attribute(attributes, name).as_deref() == Some(*value))
}

pub fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(value) => Some(value.clone()),
        Value::BoolValue(value) => Some(value.to_string()),
        Value::IntValue(value) => Some(value.to_string()),
        _ => None,
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let headers =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        self.push(headers, request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.1.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Received {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.push_logs(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// Serves gRPC: where.
pub async fn grpc() -> (String, Received) {
    let received = Received::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = MetricsServiceServer::new(received.clone());
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let traces = TraceServiceServer::new(received.clone());
    let server = tonic::transport::Server::builder().add_service(service).add_service(traces);
    let server = server.add_service(LogsServiceServer::new(received.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));
    (endpoint, received)
}

/// Serves HTTP: where.
pub async fn http() -> (String, Received) {
    let received = Received::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let all = received.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, all.clone()));
        }
    });
    (endpoint, received)
}

/// One request a connection, as strict as the specification: POST, the path, the type.
async fn answer(stream: TcpStream, received: Received) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let is_logs = line.trim_end() == "POST /v1/logs HTTP/1.1";
    assert!(is_logs || line.trim_end() == "POST /v1/metrics HTTP/1.1", "{line}");
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!(value("content-type"), Some("application/x-protobuf"));
    assert!(value("host").is_some());
    let mut body = vec![0; value("content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    if is_logs {
        received.push_logs(ExportLogsServiceRequest::decode(&body[..]).unwrap());
    } else {
        received.push(headers, ExportMetricsServiceRequest::decode(&body[..]).unwrap());
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
}
