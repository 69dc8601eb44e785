//! Asks a running node: one request, one answer, within bounds.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::channel::Address;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// How it went.
    pub(crate) status: StatusCode,
    /// What was said.
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("nobody answers at {address}: {reason}")]
    Unreachable { address: String, reason: std::io::Error },
    #[error("no answer from {address} within {} s", PATIENCE.as_secs())]
    TimedOut { address: String },
    #[error("{address} does not answer as a node does: {reason}")]
    Broken { address: String, reason: String },
}

/// Asks the node at an admin address.
pub(crate) async fn ask(
    address: &Address,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> Result<Answer, AskError> {
    let unreachable = |reason| AskError::Unreachable { address: address.to_string(), reason };
    let asking = async {
        match address {
            Address::Unix { path: socket } => {
                let io = UnixStream::connect(socket).await.map_err(unreachable)?;
                exchange(io, "localhost", address, method, path, token).await
            }
            Address::Tcp { host, port } => {
                let io = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                exchange(io, &host, address, method, path, token).await
            }
            _ => Err(unreachable(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not an admin address"))),
        }
    };
    let timed_out = |_| AskError::TimedOut { address: address.to_string() };
    tokio::time::timeout(PATIENCE, asking).await.map_err(timed_out)?
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    address: &Address,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> Result<Answer, AskError> {
    let broken = |reason: String| AskError::Broken { address: address.to_string(), reason };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(io)).await.map_err(|error| broken(error.to_string()))?;
    let driving = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| broken(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    driving.abort();
    Ok(Answer { status, body: body.map_err(|error| broken(error.to_string()))?.to_bytes() })
}

/// A reload may look up names.
const PATIENCE: Duration = Duration::from_secs(70);

/// The status of a node with thousands of sessions.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
