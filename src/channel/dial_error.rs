//! Why a dial failed: one class for the whole, and what each address answered.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use super::options::OptionsError;
use super::quic::QuicError;
use super::tls::TlsError;

/// Why a dial failed.
#[derive(Debug, Error)]
pub enum DialError {
    /// An address answered that nobody listens.
    #[error("{address} refuses connections: {failures}")]
    Refused {
        /// What was dialled.
        address: String,
        /// What each address answered.
        failures: DialFailures,
    },
    /// No address can be reached.
    #[error("{address} is unreachable: {failures}")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// What each address answered.
        failures: DialFailures,
    },
    /// No answer in time.
    #[error("{address} did not answer within {after:?}: {failures}")]
    TimedOut {
        /// What was dialled.
        address: String,
        /// The time that was given.
        after: Duration,
        /// What each address answered.
        failures: DialFailures,
    },
    /// The name has no address, or the resolver failed.
    #[error("{host} cannot be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// The connection stands, and TLS over it does not.
    #[error("{address}: {source}")]
    Tls {
        /// What was dialled.
        address: String,
        /// What went wrong.
        source: TlsError,
    },
    /// The QUIC handshake, or the settings for it.
    #[error("{address}: {source}")]
    Quic {
        /// What was dialled.
        address: String,
        /// What went wrong.
        source: QuicError,
    },
    /// The system refuses the socket's options, or they do not fit the address.
    #[error("{address}: {source}")]
    Options {
        /// What was dialled.
        address: String,
        /// The option that was refused.
        source: OptionsError,
    },
    /// Anything else.
    #[error("{address} cannot be dialled: {failures}")]
    Other {
        /// What was dialled.
        address: String,
        /// What each address answered.
        failures: DialFailures,
    },
}

impl DialError {
    /// The error for a dial of which every attempt failed: the class of the attempt that got furthest.
    pub(crate) fn from_failures(address: String, failures: DialFailures, after: Duration) -> Self {
        match failures.0.iter().map(|failure| class(&failure.error)).max() {
            Some(Class::Refused) => Self::Refused { address, failures },
            Some(Class::TimedOut) => Self::TimedOut { address, after, failures },
            Some(Class::Unreachable) => Self::Unreachable { address, failures },
            Some(Class::Other) | None => Self::Other { address, failures },
        }
    }
}

/// One attempt of a dial.
#[derive(Debug)]
pub struct DialFailure {
    /// The address that was tried.
    pub address: String,
    /// What came of it.
    pub error: io::Error,
}

/// Every attempt of a dial, in the order in which they failed.
#[derive(Debug, Default)]
pub struct DialFailures(pub Vec<DialFailure>);

impl fmt::Display for DialFailures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("no address was tried");
        }
        for (index, failure) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{}: {}", failure.address, failure.error)?;
        }
        Ok(())
    }
}

/// In the order of how far an attempt got: a refusal comes from the host itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Other,
    Unreachable,
    TimedOut,
    Refused,
}

fn class(error: &io::Error) -> Class {
    match error.kind() {
        // A full backlog of a Unix socket answers WouldBlock.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::WouldBlock => Class::Refused,
        io::ErrorKind::TimedOut => Class::TimedOut,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NotFound => Class::Unreachable,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attempt_that_got_furthest_names_the_class() {
        let failed = |kinds: &[io::ErrorKind]| {
            let failures = kinds.iter().map(|kind| DialFailure { address: "a".to_owned(), error: (*kind).into() });
            DialError::from_failures("tcp://a:1".to_owned(), DialFailures(failures.collect()), Duration::from_secs(1))
        };
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, PermissionDenied, TimedOut};
        assert!(matches!(failed(&[HostUnreachable, ConnectionRefused]), DialError::Refused { .. }));
        assert!(matches!(failed(&[TimedOut, HostUnreachable]), DialError::TimedOut { .. }));
        assert!(matches!(failed(&[HostUnreachable, PermissionDenied]), DialError::Unreachable { .. }));
        assert!(matches!(failed(&[PermissionDenied]), DialError::Other { .. }));
    }
}
