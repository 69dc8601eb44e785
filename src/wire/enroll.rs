//! What a machine with a token asks for, and what it gets: one message each way.

use bytes::Bytes;
use prost::Message as _;

use super::decode::message_size;
use super::error::WireError;
use super::fields::{FieldReader, Fields, Schema, Value, bit};
use super::frame::array;
use super::proto;
use super::varint::read_varint;
use crate::base::limits;

const NAME_BYTES_MAX: usize = 64;

/// Asks for a certificate; see `proto/enroll.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollRequest {
    /// Public id of the token.
    pub token_id: [u8; 10],
    /// Name that is asked for, empty for the token's own.
    pub name: String,
    /// PKCS#10 request, DER. Nothing of it has been looked at.
    pub certificate_request: Vec<u8>,
    /// The token's proof.
    pub proof: [u8; 64],
}

impl EnrollRequest {
    /// The encoding with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        proto::EnrollRequest {
            token_id: Bytes::copy_from_slice(&self.token_id),
            name: self.name.clone(),
            certificate_request: Bytes::copy_from_slice(&self.certificate_request),
            proof: Bytes::copy_from_slice(&self.proof),
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
        if fields.range(2).len() > NAME_BYTES_MAX {
            return Err(WireError::Range("name"));
        }
        if !(1..=limits::CERTIFICATE_REQUEST_BYTES_MAX).contains(&fields.range(3).len()) {
            return Err(WireError::Range("certificate request"));
        }
        let request = Self {
            token_id: array(message, &fields, 1, "token id")?,
            name: fields.text(message, 2, "name")?,
            certificate_request: message[fields.range(3)].to_vec(),
            proof: array(message, &fields, 4, "proof")?,
        };
        Ok(Some((request, size)))
    }
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrollAnswer {
    /// The certificate.
    Issued {
        /// The node's certificate, DER.
        certificate: Vec<u8>,
        /// The authority's, DER.
        authority: Vec<u8>,
        /// Channel addresses of the server, as URLs.
        addresses: Vec<String>,
    },
    /// No, and not why.
    Refused,
    /// The server cannot issue now.
    Unavailable,
}

impl EnrollAnswer {
    /// The encoding with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let answer = match self {
            Self::Issued { certificate, authority, addresses } => proto::EnrollAnswer {
                code: ISSUED,
                certificate: Bytes::copy_from_slice(certificate),
                authority: Bytes::copy_from_slice(authority),
                address: addresses.clone(),
            },
            Self::Refused => proto::EnrollAnswer { code: REFUSED, ..Default::default() },
            Self::Unavailable => proto::EnrollAnswer { code: UNAVAILABLE, ..Default::default() },
        };
        answer.encode_length_delimited_to_vec()
    }

    /// Reads an answer off the front: it and its size, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] when no answer begins so.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((message, size)) = delimited(bytes, limits::ENROLL_ANSWER_BYTES_MAX)? else { return Ok(None) };
        let fields = Fields::read(message, ANSWER)?;
        let answer = match fields.varint_u32(1, "code")? {
            ISSUED => {
                let bytes = |number, name| match fields.range(number) {
                    range if range.is_empty() => Err(WireError::Missing(name)),
                    range => Ok(message[range].to_vec()),
                };
                Self::Issued {
                    certificate: bytes(2, "certificate")?,
                    authority: bytes(3, "authority")?,
                    addresses: addresses(message)?,
                }
            }
            REFUSED => Self::Refused,
            UNAVAILABLE => Self::Unavailable,
            _ => return Err(WireError::Range("code")),
        };
        Ok(Some((answer, size)))
    }
}

/// The message at the front and the size that it has with its delimiter, when it is complete.
pub(super) fn delimited(bytes: &[u8], size_max: usize) -> Result<Option<(&[u8], usize)>, WireError> {
    let Some(size) = message_size(bytes, size_max)? else { return Ok(None) };
    if bytes.len() < size {
        return Ok(None);
    }
    let (_, delimiter_len) = read_varint(bytes)?.ok_or(WireError::Truncated)?;
    Ok(Some((&bytes[delimiter_len..size], size)))
}

fn addresses(message: &[u8]) -> Result<Vec<String>, WireError> {
    let mut addresses = Vec::new();
    let mut reader = FieldReader::new(message);
    while let Some((number, value)) = reader.next()? {
        match value {
            _ if number != 4 => {}
            Value::Bytes(range) if range.len() > limits::HUB_ADDRESS_BYTES_MAX => {
                return Err(WireError::Range("address"));
            }
            Value::Bytes(_) if addresses.len() == limits::HUB_ADDRESSES_MAX => {
                return Err(WireError::TooMany("addresses"));
            }
            Value::Bytes(range) => {
                let text = std::str::from_utf8(&message[range]).map_err(|_| WireError::Text("address"))?;
                addresses.push(text.to_owned());
            }
            Value::Varint(_) | Value::Fixed => return Err(WireError::WireType(number)),
        }
    }
    Ok(addresses)
}

const ISSUED: u32 = 0;
const REFUSED: u32 = 1;
const UNAVAILABLE: u32 = 2;

/// Later versions may add fields.
const REQUEST: Schema = Schema { bytes: bit(1) | bit(2) | bit(3) | bit(4), ..Schema::varints(0) };

/// Later versions may add fields.
const ANSWER: Schema = Schema { bytes: bit(2) | bit(3), repeated: bit(4), ..Schema::varints(bit(1)) };
