//! Addresses of channels as they are written in configuration: `tcp://host:port`, `tls://host:port`,
//! `quic://host:port`, `unix:///path`.
//!
//! Parsing only; names are resolved where a channel is dialled or bound.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// What carries a channel. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum ChannelKind {
    /// A TCP connection.
    Tcp = 0,
    /// A Unix socket.
    Unix = 1,
    /// TLS over TCP.
    Tls = 2,
    /// A QUIC connection.
    Quic = 3,
}

impl ChannelKind {
    /// The number on the wire.
    #[must_use]
    pub fn as_u32(self) -> u32 {
        self as u32
    }

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_u32(number: u32) -> Option<Self> {
        [Self::Tcp, Self::Unix, Self::Tls, Self::Quic].into_iter().find(|kind| kind.as_u32() == number)
    }

    /// The scheme of addresses of this kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }
}

impl fmt::Display for ChannelKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Where a channel is dialled to, or where channels are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `tcp://host:port`; an IPv6 address stands in brackets.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port; 0 lets the system choose when listening.
        port: u16,
    },
    /// `tls://host:port`: TLS over TCP.
    Tls {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port; 0 lets the system choose when listening.
        port: u16,
    },
    /// `quic://host:port`: QUIC over UDP.
    Quic {
        /// A name or an IP address, without brackets.
        host: String,
        /// The UDP port; 0 lets the system choose when listening.
        port: u16,
    },
    /// `unix:///path`.
    Unix {
        /// An absolute path.
        path: PathBuf,
    },
}

impl Address {
    /// What carries channels to this address.
    #[must_use]
    pub fn kind(&self) -> ChannelKind {
        match self {
            Self::Tcp { .. } => ChannelKind::Tcp,
            Self::Tls { .. } => ChannelKind::Tls,
            Self::Quic { .. } => ChannelKind::Quic,
            Self::Unix { .. } => ChannelKind::Unix,
        }
    }

    /// The same kind of address at a socket address, as a bound listener reports it. A Unix address stays as it is.
    #[must_use]
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        let (host, port) = (address.ip().to_string(), address.port());
        match self {
            Self::Tcp { .. } => Self::Tcp { host, port },
            Self::Tls { .. } => Self::Tls { host, port },
            Self::Quic { .. } => Self::Quic { host, port },
            Self::Unix { .. } => self.clone(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } | Self::Tls { host, port } | Self::Quic { host, port } if host.contains(':') => {
                write!(formatter, "{}://[{host}]:{port}", self.kind())
            }
            Self::Tcp { host, port } | Self::Tls { host, port } | Self::Quic { host, port } => {
                write!(formatter, "{}://{host}:{port}", self.kind())
            }
            Self::Unix { path } => write!(formatter, "unix://{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| AddressError::NoScheme { address: text.to_owned() })?;
        match scheme {
            "tcp" => host_and_port(text, rest).map(|(host, port)| Self::Tcp { host, port }),
            "tls" => host_and_port(text, rest).map(|(host, port)| Self::Tls { host, port }),
            "unix" => unix_path(text, rest).map(|path| Self::Unix { path }),
            "quic" => host_and_port(text, rest).map(|(host, port)| Self::Quic { host, port }),
            _ => Err(AddressError::UnknownScheme { address: text.to_owned(), scheme: scheme.to_owned() }),
        }
    }
}

/// Why a text is no address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// There is no `scheme://`.
    #[error("`{address}` has no scheme: expected tcp://host:port, tls://host:port, quic://host:port or unix:///path")]
    NoScheme {
        /// What was given.
        address: String,
    },
    /// The scheme is none of ours.
    #[error("`{address}` has the scheme `{scheme}`: expected tcp, tls, quic or unix")]
    UnknownScheme {
        /// What was given.
        address: String,
        /// Its scheme.
        scheme: String,
    },
    /// The host is missing or has characters that no host has.
    #[error("`{address}` has no valid host: expected a name, an IPv4 address or an IPv6 address in brackets")]
    Host {
        /// What was given.
        address: String,
    },
    /// The port is missing or out of range.
    #[error("`{address}` has no valid port: expected `:` and a number from 0 to 65535 at the end")]
    Port {
        /// What was given.
        address: String,
    },
    /// The path of a Unix socket is missing, relative or has a NUL.
    #[error("`{address}` has no valid path: expected an absolute one, such as unix:///run/longhaul/node.sock")]
    Path {
        /// What was given.
        address: String,
    },
}

fn host_and_port(address: &str, rest: &str) -> Result<(String, u16), AddressError> {
    let host_error = || AddressError::Host { address: address.to_owned() };
    let port_error = || AddressError::Port { address: address.to_owned() };
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(host_error)?;
            host.parse::<Ipv6Addr>().map_err(|_| host_error())?;
            (host, after.strip_prefix(':').ok_or_else(port_error)?)
        }
        None => {
            let (host, port) = rest.rsplit_once(':').ok_or_else(port_error)?;
            if !is_host(host) {
                return Err(host_error());
            }
            (host, port)
        }
    };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(port_error());
    }
    Ok((host.to_owned(), port.parse().map_err(|_| port_error())?))
}

/// Names and IPv4 addresses; underscores occur in names of containers. RFC 1035 §2.3.4 bounds the length.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn unix_path(address: &str, rest: &str) -> Result<PathBuf, AddressError> {
    if rest.len() < 2 || !rest.starts_with('/') || rest.ends_with('/') || rest.contains('\0') {
        return Err(AddressError::Path { address: address.to_owned() });
    }
    Ok(PathBuf::from(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_is_printed_the_same() {
        for text in ["tcp://example.net:80", "tcp://127.0.0.1:0", "tls://[::1]:443", "unix:///run/a b.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn kinds_have_their_numbers() {
        assert_eq!("tls://[::1]:443".parse::<Address>().unwrap().kind().as_u32(), 2);
        assert_eq!((0..5).filter_map(ChannelKind::from_u32).map(ChannelKind::as_u32).max(), Some(3));
        assert_eq!("tls://[::1]:443".parse::<Address>().unwrap(), Address::Tls { host: "::1".to_owned(), port: 443 });
    }

    #[test]
    fn each_fault_has_its_error() {
        let parse = |text: &str| text.parse::<Address>().unwrap_err();
        assert!(matches!(parse("localhost:1"), AddressError::NoScheme { .. }));
        assert!(matches!(parse("http://localhost:1"), AddressError::UnknownScheme { .. }));
        for text in ["tcp://:1", "tcp://::1:1", "tcp://[localhost]:1", "tcp://[::1:1", "tcp://a/b:1"] {
            assert!(matches!(parse(text), AddressError::Host { .. }), "{text}");
        }
        for text in ["tcp://a", "tcp://a:", "tcp://a:+1", "tcp://a:65536", "tcp://[::1]", "tcp://a:1/"] {
            assert!(matches!(parse(text), AddressError::Port { .. }), "{text}");
        }
        for text in ["unix://", "unix:///", "unix://run/x", "unix:///run/", "unix:///a\0b"] {
            assert!(matches!(parse(text), AddressError::Path { .. }), "{text}");
        }
    }
}
