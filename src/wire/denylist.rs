//! A denylist as it is signed, and with its signature.

use bytes::Bytes;
use prost::Message as _;

use super::enroll::delimited;
use super::error::WireError;
use super::fields::{FieldReader, Fields, Schema, Value, bit};
use super::proto;
use crate::base::limits;

const NAME_BYTES_MAX: usize = 64;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SIGNATURE_BYTES_MAX: usize = 1024;
const KEY_BYTES: usize = 32;

/// What a stream asks for that brings a denylist. No service can be configured with this name.
pub const DENYLIST_SERVICE: &str = "longhaul:denylist";

/// A denylist that is not verified, with its signature; see `proto/denylist.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDenylist {
    /// A [`DenylistBody`], encoded: what is signed.
    pub denylist: Vec<u8>,
    /// By the authority's key.
    pub signature: Vec<u8>,
}

impl SignedDenylist {
    /// The encoding with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        proto::SignedDenylist {
            denylist: Bytes::copy_from_slice(&self.denylist),
            signature: Bytes::copy_from_slice(&self.signature),
        }
        .encode_length_delimited_to_vec()
    }

    /// Reads a list off the front: it and its size, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] when no list begins so.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((message, size)) = delimited(bytes, limits::SIGNED_DENYLIST_BYTES_MAX)? else { return Ok(None) };
        let fields = Fields::read(message, SIGNED)?;
        if !(1..=limits::DENYLIST_BYTES_MAX).contains(&fields.range(1).len()) {
            return Err(WireError::Range("denylist"));
        }
        if !(1..=SIGNATURE_BYTES_MAX).contains(&fields.range(2).len()) {
            return Err(WireError::Range("signature"));
        }
        let signed = Self { denylist: message[fields.range(1)].to_vec(), signature: message[fields.range(2)].to_vec() };
        Ok(Some((signed, size)))
    }
}

/// What a denylist says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenylistBody {
    /// The domain whose nodes it is about.
    pub trust_domain: String,
    /// Grows with every change.
    pub version: u64,
    /// Names of denied nodes, ascending.
    pub names: Vec<String>,
    /// SHA-256 of the DER SubjectPublicKeyInfo of denied keys, ascending.
    pub keys: Vec<[u8; KEY_BYTES]>,
}

impl DenylistBody {
    /// The encoding, without a length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        proto::Denylist {
            trust_domain: self.trust_domain.clone(),
            version: self.version,
            keys: self.keys.concat().into(),
            name: self.names.clone(),
        }
        .encode_to_vec()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`WireError`] when it is no list.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::read(message, BODY)?;
        if fields.range(1).len() > TRUST_DOMAIN_BYTES_MAX {
            return Err(WireError::Range("trust domain"));
        }
        let (keys, rest) = message[fields.range(3)].as_chunks::<KEY_BYTES>();
        if !rest.is_empty() || !keys.is_sorted() {
            return Err(WireError::Range("keys"));
        }
        let names = names(message)?;
        if keys.len() + names.len() > limits::DENYLIST_ENTRIES_MAX {
            return Err(WireError::TooMany("denied"));
        }
        let trust_domain = fields.text(message, 1, "trust domain")?;
        Ok(Self { trust_domain, version: fields.varint(2), names, keys: keys.to_vec() })
    }
}

fn names(message: &[u8]) -> Result<Vec<String>, WireError> {
    let mut names: Vec<String> = Vec::new();
    let mut reader = FieldReader::new(message);
    while let Some((number, value)) = reader.next()? {
        match value {
            _ if number != 4 => {}
            Value::Bytes(_) if names.len() == limits::DENYLIST_ENTRIES_MAX => return Err(WireError::TooMany("names")),
            Value::Bytes(range) if (1..=NAME_BYTES_MAX).contains(&range.len()) => {
                let name = std::str::from_utf8(&message[range]).map_err(|_| WireError::Text("name"))?;
                if names.last().is_some_and(|last| last.as_str() > name) {
                    return Err(WireError::Range("names"));
                }
                names.push(name.to_owned());
            }
            Value::Bytes(_) => return Err(WireError::Range("name")),
            Value::Varint(_) | Value::Fixed => return Err(WireError::WireType(number)),
        }
    }
    Ok(names)
}

/// Later versions may add fields.
const SIGNED: Schema = Schema { bytes: bit(1) | bit(2), ..Schema::varints(0) };

/// Later versions may add fields.
const BODY: Schema = Schema { bytes: bit(1) | bit(3), repeated: bit(4), ..Schema::varints(bit(2)) };
