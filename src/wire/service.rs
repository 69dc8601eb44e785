//! What a forward asks of a service: the first message of its stream.

use prost::Message;

use super::decode::message_size;
use super::error::WireError;
use super::proto;
use crate::base::limits;

const NAME_BYTES_MAX: usize = 64;

/// Asks for a service; see `proto/service.proto`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRequest {
    /// Name of the service.
    pub service: String,
    /// The client's address, empty when unknown.
    pub source: String,
    /// The address that the client connected to, empty when unknown.
    pub destination: String,
}

impl ServiceRequest {
    /// The encoding with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        proto::ServiceRequest {
            service: self.service.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
        }
        .encode_length_delimited_to_vec()
    }

    /// Reads a request off the front: it and its size, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] when no request begins so.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some(size) = message_size(bytes, limits::CONTROL_MESSAGE_BYTES_MAX)? else { return Ok(None) };
        if bytes.len() < size {
            return Ok(None);
        }
        let message = proto::ServiceRequest::decode_length_delimited(&bytes[..size])
            .map_err(|_| WireError::Range("service request"))?;
        let fields = [&message.service, &message.source, &message.destination];
        if message.service.is_empty() || fields.iter().any(|field| field.len() > NAME_BYTES_MAX) {
            return Err(WireError::Range("service request"));
        }
        let proto::ServiceRequest { service, source, destination } = message;
        Ok(Some((Self { service, source, destination }, size)))
    }
}
