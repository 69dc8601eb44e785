//! Why a session or a stream ended, as numbers on the wire.

use std::fmt;

/// Why a side closed a session or a lane. Values below 0x100 belong to the protocol, those above to applications.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u64);

macro_rules! codes {
    ($type:ident: $($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl $type {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The name of a code that the protocol defines.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "code {:#x}", self.0),
                }
            }
        }
    };
}

codes! { CloseCode:
    /// An orderly end: the application closed the session.
    NO_ERROR = 0x0, "no error";
    /// The implementation met a state that it cannot go on from.
    INTERNAL_ERROR = 0x1, "internal error";
    /// The TLS handshake failed; the one answer that strangers get.
    HANDSHAKE_FAILED = 0x2, "handshake failed";
    /// A flow-control or stream limit was exceeded.
    FLOW_CONTROL_ERROR = 0x3, "flow control error";
    /// A stream was used in a way that its state forbids.
    STREAM_STATE_ERROR = 0x4, "stream state error";
    /// A stream's final size changed or was exceeded.
    FINAL_SIZE_ERROR = 0x5, "final size error";
    /// Bytes that are no valid message.
    ENCODING_ERROR = 0x6, "encoding error";
    /// A valid message where the protocol forbids it.
    PROTOCOL_VIOLATION = 0x7, "protocol violation";
    /// A packet could not be opened, or its key epoch is not in use.
    SEAL_ERROR = 0x8, "seal error";
    /// The peer sends more work than data.
    EXCESSIVE_LOAD = 0x9, "excessive load";
    /// A join was refused.
    JOIN_REFUSED = 0xa, "join refused";
    /// The peer stopped acknowledging.
    ACK_TIMEOUT = 0xb, "acknowledgement timeout";
    /// No channel came back within `survive`.
    ALL_CHANNELS_LOST = 0xc, "all channels lost";
    /// The session reached its age or its certificates' end.
    SESSION_EXPIRED = 0xd, "session expired";
    /// The node shuts down.
    SHUTTING_DOWN = 0xe, "shutting down";
    /// The peer does not know the session, and proved that it once did.
    SESSION_RESET = 0xf, "session reset";
    /// No version of the protocol is spoken by both.
    UNSUPPORTED_VERSION = 0x10, "unsupported version";
    /// A lane is no longer needed: the link has more than it wants.
    LANE_SURPLUS = 0x11, "surplus lane";
    /// A memory limit of the node was reached.
    OUT_OF_MEMORY = 0x12, "memory limit reached";
    /// The transport under the channel failed.
    TRANSPORT_ERROR = 0x13, "transport error";
    /// The proof of a guest was not accepted: the one answer to every reason.
    GUEST_REFUSED = 0x14, "guest refused";
    /// The peer was revoked: it is on the denylist of its trust domain.
    REVOKED = 0x15, "revoked";
}

/// Why a stream was reset or stopped. Values below 0x100 are used by Longhaul's own services.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamCode(pub u64);

codes! { StreamCode:
    /// Ended without an error to tell.
    NO_ERROR = 0x0, "no error";
    /// The side that owned the stream dropped it.
    CANCELLED = 0x1, "cancelled";
    /// The connection that the stream carries was reset.
    CONNECTION_RESET = 0x2, "connection reset";
    /// The peer offers no service of that name.
    UNKNOWN_SERVICE = 0x10, "unknown service";
    /// The service exists, but not for this peer.
    NOT_ALLOWED = 0x11, "not allowed";
    /// The service's target refused the connection.
    TARGET_REFUSED = 0x12, "target refused";
    /// The service's target could not be reached or did not answer in time.
    TARGET_UNREACHABLE = 0x13, "target unreachable";
    /// The service has as many connections as it may have.
    TOO_MANY_CONNECTIONS = 0x14, "too many connections";
    /// The stream did not begin with a valid request.
    BAD_REQUEST = 0x15, "bad request";
    /// The node takes no new streams any more.
    SHUTTING_DOWN = 0x16, "shutting down";
    /// The service takes datagrams and was asked for a connection, or the other way.
    WRONG_KIND = 0x17, "wrong kind of service";
    /// The peer has as many connections as one peer may have, and others may have more.
    TOO_MANY_OF_PEER = 0x18, "too many connections of one peer";
}
