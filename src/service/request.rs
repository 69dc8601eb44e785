//! What comes before an application's bytes: the request at the beginning of a stream, and the PROXY protocol header at
//! the beginning of a client's connection.

use bytes::{Bytes, BytesMut};

use super::proxy_protocol::{self, ProxyHeader};
use super::refusal::Refusal;
use super::socket::Socket;
use crate::base::limits::CONTROL_MESSAGE_BYTES_MAX;
use crate::node::RecvStream;
use crate::wire::ServiceRequest;

/// Reads the request, and what came behind it in the same chunk.
///
/// # Errors
/// [`Refusal::BadRequest`] for anything else than a request, an early end included.
pub(super) async fn read_request(recv: &mut RecvStream) -> Result<(ServiceRequest, Bytes), Refusal> {
    let mut chunk = next(recv).await?;
    // Commonly the request is in one piece.
    if let Some((request, size)) = decode(&chunk)? {
        return Ok((request, chunk.split_off(size)));
    }
    let mut gathered = BytesMut::from(&chunk[..]);
    loop {
        gathered.extend_from_slice(&next(recv).await?);
        if let Some((request, size)) = decode(&gathered)? {
            return Ok((request, gathered.split_off(size).freeze()));
        }
    }
}

/// Reads the header that a client's connection begins with; what came behind it is left in `data`.
///
/// # Errors
/// [`Refusal::BadRequest`] when the connection begins with anything else, or ends.
pub(super) async fn read_proxy_header(socket: &mut Socket, data: &mut BytesMut) -> Result<ProxyHeader, Refusal> {
    loop {
        data.reserve(proxy_protocol::HEADER_BYTES_MAX);
        let count = socket.read(data).await.map_err(|_| Refusal::BadRequest)?;
        let decoded = proxy_protocol::decode(data).map_err(|error| {
            tracing::debug!(%error, "connection does not begin with a proxy header");
            Refusal::BadRequest
        })?;
        match decoded {
            Some((header, size)) => {
                drop(data.split_to(size));
                return Ok(header);
            }
            None if count == 0 => return Err(Refusal::BadRequest),
            None => {}
        }
    }
}

async fn next(recv: &mut RecvStream) -> Result<Bytes, Refusal> {
    match recv.read_chunk(CONTROL_MESSAGE_BYTES_MAX).await {
        Ok(Some(chunk)) => Ok(chunk),
        Ok(None) | Err(_) => Err(Refusal::BadRequest),
    }
}

/// A longer message than the bound is an error, so that no more than the bound is gathered.
fn decode(bytes: &[u8]) -> Result<Option<(ServiceRequest, usize)>, Refusal> {
    ServiceRequest::decode(bytes).map_err(|_| Refusal::BadRequest)
}
