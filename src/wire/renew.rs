//! What a node with a certificate asks for, and what it gets: one message each way.

use bytes::Bytes;
use prost::Message as _;

use super::enroll::delimited;
use super::error::WireError;
use super::fields::{FieldReader, Fields, Schema, Value, bit};
use super::proto;
use crate::base::limits;

/// Asks for the next certificate; see `proto/renew.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewRequest {
    /// PKCS#10 request, DER. Nothing of it has been looked at.
    pub certificate_request: Vec<u8>,
    /// Version of the denylist that the node has; 0 for none.
    pub denylist_version: u64,
}

impl RenewRequest {
    /// The encoding with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        proto::RenewRequest {
            certificate_request: Bytes::copy_from_slice(&self.certificate_request),
            denylist_version: self.denylist_version,
        }
        .encode_length_delimited_to_vec()
    }

    /// Reads a request off the front: it and its size, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] when no request begins so.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((message, size)) = delimited(bytes, limits::CONTROL_MESSAGE_BYTES_MAX)? else { return Ok(None) };
        let fields = Fields::read(message, REQUEST)?;
        if !(1..=limits::CERTIFICATE_REQUEST_BYTES_MAX).contains(&fields.range(1).len()) {
            return Err(WireError::Range("certificate request"));
        }
        let request =
            Self { certificate_request: message[fields.range(1)].to_vec(), denylist_version: fields.varint(2) };
        Ok(Some((request, size)))
    }
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewAnswer {
    /// The certificate.
    Issued {
        /// The node's next certificate, DER.
        certificate: Vec<u8>,
        /// All trust anchors of the domain, DER.
        anchors: Vec<Vec<u8>>,
        /// A signed denylist, encoded, if there is a newer one; otherwise empty.
        denylist: Vec<u8>,
    },
    /// No, and not why.
    Refused,
    /// The server cannot issue now.
    Unavailable,
}

impl RenewAnswer {
    /// The encoding with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let answer = match self {
            Self::Issued { certificate, anchors, denylist } => proto::RenewAnswer {
                code: ISSUED,
                certificate: Bytes::copy_from_slice(certificate),
                denylist: Bytes::copy_from_slice(denylist),
                anchor: anchors.iter().map(|anchor| Bytes::copy_from_slice(anchor)).collect(),
            },
            Self::Refused => proto::RenewAnswer { code: REFUSED, ..Default::default() },
            Self::Unavailable => proto::RenewAnswer { code: UNAVAILABLE, ..Default::default() },
        };
        answer.encode_length_delimited_to_vec()
    }

    /// Reads an answer off the front: it and its size, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] when no answer begins so.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((message, size)) = delimited(bytes, limits::RENEW_ANSWER_BYTES_MAX)? else { return Ok(None) };
        let fields = Fields::read(message, ANSWER)?;
        let answer = match fields.varint_u32(1, "code")? {
            ISSUED if fields.range(2).is_empty() => return Err(WireError::Missing("certificate")),
            ISSUED => Self::Issued {
                certificate: message[fields.range(2)].to_vec(),
                anchors: anchors(message)?,
                denylist: message[fields.range(3)].to_vec(),
            },
            REFUSED => Self::Refused,
            UNAVAILABLE => Self::Unavailable,
            _ => return Err(WireError::Range("code")),
        };
        Ok(Some((answer, size)))
    }
}

fn anchors(message: &[u8]) -> Result<Vec<Vec<u8>>, WireError> {
    let mut anchors = Vec::new();
    let mut reader = FieldReader::new(message);
    while let Some((number, value)) = reader.next()? {
        match value {
            _ if number != 4 => {}
            Value::Bytes(range) if !(1..=limits::TRUST_ANCHOR_BYTES_MAX).contains(&range.len()) => {
                return Err(WireError::Range("trust anchor"));
            }
            Value::Bytes(_) if anchors.len() == limits::TRUST_ANCHORS_MAX => {
                return Err(WireError::TooMany("trust anchors"));
            }
            Value::Bytes(range) => anchors.push(message[range].to_vec()),
            Value::Varint(_) | Value::Fixed => return Err(WireError::WireType(number)),
        }
    }
    if anchors.is_empty() { Err(WireError::Missing("trust anchor")) } else { Ok(anchors) }
}

const ISSUED: u32 = 0;
const REFUSED: u32 = 1;
const UNAVAILABLE: u32 = 2;

/// Later versions may add fields.
const REQUEST: Schema = Schema { bytes: bit(1), ..Schema::varints(bit(2)) };

/// Later versions may add fields.
const ANSWER: Schema = Schema { bytes: bit(2) | bit(3), repeated: bit(4), ..Schema::varints(bit(1)) };
