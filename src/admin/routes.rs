//! Which path leads to which answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::stream;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::monitor::Monitor;
use super::server::AdminSettings;
use super::{Control, effective, page, status};

/// What the answers are made of.
struct Sources<C> {
    control: Arc<C>,
    monitor: Arc<Monitor>,
    settings: AdminSettings,
    started: Instant,
}

/// The routes of a node.
pub(super) fn router<C: Control>(control: Arc<C>, monitor: Arc<Monitor>, settings: AdminSettings) -> Router {
    let sources = Arc::new(Sources { control, monitor, settings, started: Instant::now() });
    Router::new()
        .route("/", get(async || page::html()))
        .route("/page.js", get(async || page::script()))
        .route("/page.css", get(async || page::style()))
        .route("/icon.svg", get(async || page::icon()))
        .route("/health", get(async || text(StatusCode::OK, "ok\n")))
        .route("/ready", get(ready::<C>))
        .route("/status", get(status_of::<C>))
        .route("/history", get(history::<C>))
        .route("/config", get(config::<C>))
        .route("/events", get(events::<C>))
        .route("/metrics", get(metrics::<C>))
        .route("/reload", post(reload::<C>))
        .fallback(async || {
            text(StatusCode::NOT_FOUND, "there is nothing here; / is the page, /status has everything\n")
        })
        .with_state(sources)
}

/// A line for people and probes.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response {
    answer(status, "text/plain; charset=utf-8", text.into())
}

/// An answer of a type.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn json_of(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => answer(status, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn ready<C: Control>(State(sources): State<Arc<Sources<C>>>) -> Response {
    let reasons = status::not_ready(&*sources.control);
    if reasons.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|reason| format!("{reason}\n")).collect::<String>())
}

async fn status_of<C: Control>(State(sources): State<Arc<Sources<C>>>) -> Response {
    let measurements = sources.settings.measurements.as_ref().map(|measure| measure());
    let authority = sources.settings.authority.as_ref().map(|authority| authority());
    let status = status::status(&*sources.control, &sources.monitor, sources.started);
    json_of(StatusCode::OK, &status::Measured { status, authority, measurements })
}

async fn history<C: Control>(State(sources): State<Arc<Sources<C>>>) -> Response {
    json_of(StatusCode::OK, &sources.monitor.history())
}

async fn config<C: Control>(State(sources): State<Arc<Sources<C>>>) -> Response {
    json_of(StatusCode::OK, &effective::config(&sources.control.config()))
}

async fn metrics<C: Control>(State(sources): State<Arc<Sources<C>>>) -> Response {
    match sources.settings.metrics.as_ref().and_then(|render| render()) {
        Some(body) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
        None => text(StatusCode::NOT_FOUND, "this node has no metrics here\n"),
    }
}

async fn reload<C: Control>(State(sources): State<Arc<Sources<C>>>) -> Response {
    let control = Arc::clone(&sources.control);
    // Of its own: a client that goes away must not leave half of a reload behind.
    let outcome = match tokio::spawn(async move { control.reload().await }).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(changes) => json_of(StatusCode::OK, &json!({ "version": status::VERSION, "changes": changes })),
        Err(error) => json_of(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "version": status::VERSION, "error": error })),
    }
}

/// Server-sent events: those after the one that the client saw last, and then each as it happens.
async fn events<C: Control>(State(sources): State<Arc<Sources<C>>>, headers: HeaderMap) -> Response {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let (known, receiver) = sources.monitor.subscribe(last);
    let waiting: VecDeque<_> = known.into();
    let events = stream::unfold((waiting, receiver), async |(mut waiting, mut receiver)| {
        if let Some(event) = waiting.pop_front() {
            return Some((Ok::<_, Infallible>(Bytes::from(event.to_message())), (waiting, receiver)));
        }
        let message = match tokio::time::timeout(page::SIGN_OF_LIFE, receiver.recv()).await {
            Ok(Ok(event)) => event.to_message(),
            // It reads slower than things happen: /status has how everything is.
            Ok(Err(RecvError::Lagged(count))) => format!(": {count} events were left out\n\n"),
            Ok(Err(RecvError::Closed)) => return None,
            Err(_) => ":\n\n".to_owned(),
        };
        Some((Ok(Bytes::from(message)), (waiting, receiver)))
    });
    answer(StatusCode::OK, "text/event-stream", Body::from_stream(events))
}
