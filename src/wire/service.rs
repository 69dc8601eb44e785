//! What a forward asks of a service: the first message of its stream.

use prost::Message as _;

use super::decode::message_size;
use super::error::WireError;
use super::fields::{Fields, Schema, bit};
use super::proto;
use super::trace::TraceContext;
use super::varint::read_varint;
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
    /// The stream is the life of a flow of datagrams.
    pub datagrams: bool,
    /// The trace that it belongs to, if there is one.
    pub trace: Option<TraceContext>,
}

impl ServiceRequest {
    /// The encoding with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        proto::ServiceRequest {
            service: self.service.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            datagrams: self.datagrams,
            trace_context: self.trace.as_ref().map(TraceContext::encode).unwrap_or_default().into(),
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
        let (_, delimiter_len) = read_varint(bytes)?.ok_or(WireError::Truncated)?;
        let message = &bytes[delimiter_len..size];
        let fields = Fields::read(message, SCHEMA)?;
        if fields.range(1).is_empty() || (1..=3).any(|number| fields.range(number).len() > NAME_BYTES_MAX) {
            return Err(WireError::Range("service request"));
        }
        let text = |number| fields.text(message, number, "service request");
        let datagrams = fields.flag(4, "service request")?;
        let trace = TraceContext::decode(&message[fields.range(TRACE_FIELD)])?;
        Ok(Some((Self { service: text(1)?, source: text(2)?, destination: text(3)?, datagrams, trace }, size)))
    }
}

/// Later versions may add fields.
const SCHEMA: Schema = Schema { bytes: bit(1) | bit(2) | bit(3) | bit(TRACE_FIELD), ..Schema::varints(bit(4)) };

/// Number of the trace's field.
const TRACE_FIELD: u32 = 15;
