//! Connections to the collector, over TCP or TLS, for both protocols: an HTTP client of one request a connection, and a
//! channel for gRPC. TLS is rustls with the provider that the node has.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::OtlpError;
use super::plan::Plan;
use crate::crypto::identity::default_provider;

/// Makes connections to one collector.
#[derive(Clone)]
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
}

/// Bytes to and from a collector.
trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

type Connected = TokioIo<Box<dyn Pipe>>;

impl Connector {
    /// `protocols` are those that TLS offers (ALPN).
    pub(super) fn new(plan: &Plan, protocol: &[u8]) -> Result<Self, OtlpError> {
        let endpoint = &plan.endpoint;
        let host = endpoint.host().ok_or_else(|| OtlpError::Endpoint(endpoint.to_string()))?;
        let port = endpoint.port_u16().unwrap_or(if plan.is_tls() { 443 } else { 80 });
        let tls = plan.is_tls().then(|| tls(plan, protocol)).transpose()?;
        // An IPv6 address has brackets in a URL, and none anywhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, tls })
    }

    async fn connect(self) -> io::Result<Connected> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let pipe: Box<dyn Pipe> = match self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
                Box::new(tls.connect(name, stream).await?)
            }
        };
        Ok(TokioIo::new(pipe))
    }
}

/// A channel for gRPC, which connects when it is used, and anew after it was lost.
pub(super) fn channel(plan: &Plan) -> Result<Channel, OtlpError> {
    let connector = Connector::new(plan, b"h2")?;
    // The channel sees no TLS: the connector has it.
    let mut parts = plan.endpoint.clone().into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let address = Uri::from_parts(parts).map_err(|_| OtlpError::Endpoint(plan.endpoint.to_string()))?;
    let endpoint = Endpoint::from(address).timeout(plan.timeout).connect_timeout(plan.timeout);
    let connect = tower::service_fn(move |_: Uri| connector.clone().connect());
    Ok(endpoint.connect_with_connector_lazy(connect))
}

/// A client for HTTP.
#[derive(Clone)]
pub(super) struct Http(pub(super) Connector);

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Http({}:{})", self.0.host, self.0.port)
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let io = self.0.clone().connect().await?;
        let (mut sender, connection) = http1::handshake(io).await?;
        let connection = tokio::spawn(connection);
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
        parts.headers.insert(header::HOST, HeaderValue::from_str(&authority)?);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        parts.uri = parts.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        let answer = sender.send_request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok(Response::from_parts(parts, body))
    }
}

fn tls(plan: &Plan, protocol: &[u8]) -> Result<TlsConnector, OtlpError> {
    let wrong = |reason: String| OtlpError::Tls(reason);
    let mut roots = RootCertStore::empty();
    match &plan.certificate_authorities {
        Some(pem) => {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(wrong("there are no authorities to trust".to_owned()));
    }
    let builder = ClientConfig::builder_with_provider(default_provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match &plan.client_identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(error.to_string()))?;
            builder.with_client_auth_cert(certificates(chain)?, key).map_err(|error| wrong(error.to_string()))?
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, OtlpError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.map_err(|error| OtlpError::Tls(error.to_string()))
}

/// Answers are a few bytes; what is longer is none.
const ANSWER_BYTES_MAX: usize = 1 << 20;
