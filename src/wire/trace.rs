//! Which trace a request belongs to: the binary form of W3C's `traceparent` (Trace Context §3.2).

use std::fmt;

use super::error::WireError;

/// Size on the wire, in bytes.
pub(super) const TRACE_CONTEXT_BYTES: usize = 16 + 8 + 1;

/// The trace that a request belongs to, and the span that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Names the trace; never all zeroes.
    pub trace_id: [u8; 16],
    /// Names the span that asks; never all zeroes.
    pub span_id: [u8; 8],
    /// The lowest bit: the asking side records the trace.
    pub flags: u8,
}

impl TraceContext {
    /// Whether the asking side records the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.trace_id[..], &self.span_id, &[self.flags]].concat()
    }

    /// `None` without bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        const WRONG: WireError = WireError::Range("trace context");
        if bytes.is_empty() {
            return Ok(None);
        }
        let bytes: &[u8; TRACE_CONTEXT_BYTES] = bytes.try_into().map_err(|_| WRONG)?;
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&bytes[..16]);
        span_id.copy_from_slice(&bytes[16..24]);
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(WRONG);
        }
        Ok(Some(Self { trace_id, span_id, flags: bytes[24] }))
    }
}

/// As in the header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"));
        f.write_str("00-")?;
        hex(f, &self.trace_id)?;
        f.write_str("-")?;
        hex(f, &self.span_id)?;
        write!(f, "-{:02x}", self.flags)
    }
}
