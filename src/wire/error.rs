//! What can be wrong with bytes from outside.

use crate::base::{CloseCode, limits};

/// Bytes that are no valid message. Nothing of the message has had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A message is longer than allowed here.
    #[error("message of {size} bytes, at most {size_max} are allowed")]
    TooLong {
        /// What the delimiter says, or the least that it can come to when it is too long itself.
        size: u64,
        /// What is allowed.
        size_max: usize,
    },
    /// A message or field ends before its time.
    #[error("message ends in the middle of a field")]
    Truncated,
    /// A varint is longer than needed, or than 64 bits.
    #[error("varint is not minimal")]
    Varint,
    /// A field has a wire type that is not its own, or that is not used.
    #[error("field {0} has a wrong wire type")]
    WireType(u64),
    /// A field came twice.
    #[error("field {0} came twice")]
    Duplicate(u64),
    /// A field that is not known, where all have to be.
    #[error("field {0} is not known")]
    UnknownField(u64),
    /// More unknown fields than later versions could add.
    #[error("message has more than {} unknown fields", limits::UNKNOWN_FIELDS_MAX)]
    TooManyUnknown,
    /// A field that has to be the last one is not.
    #[error("field {0} is not the last one")]
    NotLast(u64),
    /// A value outside of its range.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// A field that has to be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// More items than allowed.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// Text that is not UTF-8.
    #[error("{0} is not UTF-8")]
    Text(&'static str),
}

impl WireError {
    /// The code to close a lane or session with.
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        CloseCode::ENCODING_ERROR
    }
}
