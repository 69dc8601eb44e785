//! Listens where `[admin]` says, and serves HTTP/1.1 within bounds: connections, headers, bodies and time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Control;
use super::guard::{self, Entrance};
use super::monitor::Monitor;
use super::routes;
use crate::channel::{Accepted, Address, AdmissionLimits, Io, ListenError, ListenOptions, Listener};

/// Makes something when it is asked for.
pub type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// What others know of the node, and the pages show.
#[derive(Clone, Default)]
pub struct AdminSettings {
    /// The metrics in Prometheus's text format; without any, `/metrics` answers 404.
    pub metrics: Option<Source<Option<String>>>,
    /// Windows and histograms, as `measurements` of `/status`.
    pub measurements: Option<Source<serde_json::Value>>,
    /// Tokens and certificates of the authority, as `authority` of `/status`, where the node is a hub.
    pub authority: Option<Source<serde_json::Value>>,
}

/// Answers the operator until it is dropped.
#[derive(Debug)]
pub struct AdminServer {
    addresses: Vec<Address>,
    _tasks: JoinSet<()>,
}

impl AdminServer {
    /// Listens where the configuration says; `None` if it says nothing.
    ///
    /// # Errors
    /// [`ListenError`] when an address cannot be listened on.
    pub async fn start<C: Control>(control: Arc<C>, settings: AdminSettings) -> Result<Option<Self>, ListenError> {
        let Some(config) = control.config().admin.clone() else { return Ok(None) };
        let monitor = Arc::new(Monitor::new());
        let mut tasks = JoinSet::new();
        let router = routes::router(Arc::clone(&control), Arc::clone(&monitor), settings);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut addresses = Vec::new();
        for address in &config.listen {
            let options =
                ListenOptions { unix: config.unix.into(), admission: admission(), ..ListenOptions::default() };
            let listener = Listener::bind(address, &options).await?;
            tracing::info!(address = %listener.local_address(), "admin listening");
            addresses.push(listener.local_address().clone());
            let shared =
                Shared { router: router.clone(), control: Arc::clone(&control), permits: Arc::clone(&permits) };
            tasks.spawn(listen(listener, shared));
        }
        tasks.spawn(monitor.run(control));
        Ok(Some(Self { addresses, _tasks: tasks }))
    }

    /// Where it listens, with the ports that the system chose.
    #[must_use]
    pub fn local_addresses(&self) -> &[Address] {
        &self.addresses
    }
}

/// What all connections share.
struct Shared<C> {
    router: Router,
    control: Arc<C>,
    permits: Arc<Semaphore>,
}

async fn listen<C: Control>(mut listener: Listener, shared: Shared<C>) {
    // Dropped with this task: connections end with the server.
    let mut connections = JoinSet::new();
    loop {
        let Accepted { connection, permit, .. } = listener.accept().await;
        drop(permit);
        while connections.try_join_next().is_some() {}
        // Who comes too much is closed at once.
        let Ok(permit) = Arc::clone(&shared.permits).try_acquire_owned() else { continue };
        let (router, control) = (shared.router.clone(), Arc::clone(&shared.control));
        let task = async move {
            // Nobody else holds a connection that was just accepted.
            match connection.io {
                Io::Tcp(stream) => {
                    if let Some(stream) = Arc::into_inner(stream) {
                        serve(stream.into_stream(), Entrance::Loopback, router, control).await;
                    }
                }
                Io::Unix(stream) => {
                    if let Some(stream) = Arc::into_inner(stream) {
                        serve(stream, Entrance::Socket, router, control).await;
                    }
                }
                _ => {}
            }
            drop(permit);
        };
        connections.spawn(task);
    }
}

async fn serve<C: Control>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    entrance: Entrance,
    router: Router,
    control: Arc<C>,
) {
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let (inner, control) = (inner.clone(), Arc::clone(&control));
        async move { Ok::<_, Infallible>(answer(request, entrance, inner, &*control).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.max_buf_size(HEADER_BYTES_MAX).max_headers(HEADERS_MAX);
    if let Err(error) = builder.serve_connection(TokioIo::new(io), service).await {
        tracing::debug!(%error, "admin connection broke off");
    }
}

async fn answer<C: Control>(
    request: Request<Incoming>,
    entrance: Entrance,
    router: TowerToHyperService<Router>,
    control: &C,
) -> Response {
    let allowed = {
        let config = control.config();
        let token = config.admin.as_ref().and_then(|admin| admin.token.as_ref());
        guard::check(request.method(), request.headers(), entrance, token)
    };
    let mut response = match allowed {
        Err(refusal) => refusal,
        Ok(()) => {
            let answering = hyper::service::Service::call(&router, request);
            match tokio::time::timeout(ANSWER_TIMEOUT, answering).await {
                Ok(Ok(response)) => response,
                Err(_) => routes::text(StatusCode::GATEWAY_TIMEOUT, "this took too long\n"),
            }
        }
    };
    guard::add_headers(response.headers_mut());
    response.map(Body::new)
}

/// Local programs are bounded by how many are connected at once.
fn admission() -> AdmissionLimits {
    AdmissionLimits {
        pending_max: None,
        pending_per_source_max: None,
        rate_per_source: None,
        ..AdmissionLimits::default()
    }
}

/// Connections at once, those that wait for events included: a few pages, probes and commands.
const CONNECTIONS_MAX: usize = 64;

/// Time for the head of a request, and how long a connection may do nothing between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the head of a request: a token and what browsers send.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Lines of the head of a request.
const HEADERS_MAX: usize = 64;

/// Time until the head of an answer. Only a reload takes longer than a moment, by the names that it looks up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
