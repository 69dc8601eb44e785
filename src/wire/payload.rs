//! The bytes of a stream in a frame.
//!
//! What was written in pieces is gathered into one frame: they are copied once, when the packet is encoded, and the
//! receiver finds them in one piece.

use bytes::{Bytes, BytesMut};

/// Bytes in one or more pieces. Those that were received are in one. Equal when the bytes are.
#[derive(Clone, Default)]
pub struct Payload {
    first: Bytes,
    more: Vec<Bytes>,
    len: usize,
}

impl Payload {
    /// Appends a piece without copying it.
    pub fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.more.push(piece);
        }
    }

    /// Size of all pieces, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order. There is always a first one.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// The bytes in one piece: the one that there is, or a copy of several.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        if self.more.is_empty() {
            return self.first.clone();
        }
        let mut bytes = BytesMut::with_capacity(self.len);
        self.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.freeze()
    }
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        let first = bytes.into();
        Self { len: first.len(), first, more: Vec::new() }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.pieces()).finish()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Payload {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_no_difference() {
        let mut payload = Payload::default();
        assert!(payload.is_empty() && payload == Payload::from(Bytes::new()));
        for piece in [&b""[..], b"ab", b"", b"cde"] {
            payload.push(Bytes::from_static(piece));
        }
        assert_eq!(payload, Payload::from(&b"abcde"[..]));
        assert_eq!((payload.len(), &payload.to_bytes()[..]), (5, &b"abcde"[..]));
        assert_ne!(payload, Payload::from(&b"abcdf"[..]));
        assert_eq!(payload.pieces().count(), 2);
    }
}
