//! Why a connection was not carried: the stream codes of services, and what can go wrong before there is a stream.

use std::fmt;

use crate::base::StreamCode;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:expr, $text:literal;)*) => {
        /// Why a connection was not carried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            /// All reasons, in the order of their indices.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// The word for it in logs and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The code that tells the peer.
            #[must_use]
            pub fn code(self) -> StreamCode {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

refusals! {
    /// The peer offers no service of that name.
    UnknownService = StreamCode::UNKNOWN_SERVICE, "unknown-service";
    /// The service exists, but not for this peer.
    NotAllowed = StreamCode::NOT_ALLOWED, "not-allowed";
    /// The service's target refused the connection.
    TargetRefused = StreamCode::TARGET_REFUSED, "target-refused";
    /// The service's target could not be reached or did not answer in time.
    TargetUnreachable = StreamCode::TARGET_UNREACHABLE, "target-unreachable";
    /// As many connections are open as may be.
    TooManyConnections = StreamCode::TOO_MANY_CONNECTIONS, "too-many-connections";
    /// As many connections of one peer are open as may be.
    TooManyOfPeer = StreamCode::TOO_MANY_OF_PEER, "too-many-connections-of-peer";
    /// The stream did not begin with a valid request, or the connection not with the header that was expected.
    BadRequest = StreamCode::BAD_REQUEST, "bad-request";
    /// The node takes no new connections any more.
    ShuttingDown = StreamCode::SHUTTING_DOWN, "shutting-down";
    /// The forward has connections and the service's target takes datagrams, or the other way.
    WrongKind = StreamCode::WRONG_KIND, "wrong-kind";
    /// There was no session with the peer, or it allowed no further stream, for as long as a client is kept waiting.
    NoSession = StreamCode::CANCELLED, "no-session";
}

impl Refusal {
    /// The refusal that a peer's code stands for; `None` for codes that end connections which were carried.
    #[must_use]
    pub fn from_code(code: StreamCode) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code && *refusal != Self::NoSession)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_as_they_went() {
        for refusal in Refusal::ALL.into_iter().filter(|refusal| *refusal != Refusal::NoSession) {
            assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
        }
        assert_eq!(Refusal::from_code(StreamCode::CONNECTION_RESET), None);
        assert_eq!(Refusal::from_code(StreamCode::CANCELLED), None);
    }
}
