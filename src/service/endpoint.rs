//! Where an application is reached or listened to: a socket of bytes, or one of datagrams.

use std::fmt;
use std::str::FromStr;

use crate::channel::{Address, AddressError};

/// `udp://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdpAddress {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port; 0 lets the system choose when listening.
    pub port: u16,
}

impl fmt::Display for UdpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "{SCHEME}[{host}]:{port}") } else { write!(f, "{SCHEME}{host}:{port}") }
    }
}

/// Where an application is reached or listened to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `tcp://host:port` or `unix:///path`: connections.
    Stream(Address),
    /// `udp://host:port`: datagrams.
    Datagrams(UdpAddress),
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self::Stream(address)
    }
}

impl From<UdpAddress> for Endpoint {
    fn from(address: UdpAddress) -> Self {
        Self::Datagrams(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(address) => address.fmt(f),
            Self::Datagrams(address) => address.fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(rest) = text.strip_prefix(SCHEME) else { return text.parse().map(Self::Stream) };
        // Host and port are written as for TCP.
        let address = || text.to_owned();
        match format!("tcp://{rest}").parse() {
            Ok(Address::Tcp { host, port }) => Ok(Self::Datagrams(UdpAddress { host, port })),
            Err(AddressError::Port { .. }) => Err(AddressError::Port { address: address() }),
            _ => Err(AddressError::Host { address: address() }),
        }
    }
}

const SCHEME: &str = "udp://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_is_printed_the_same() {
        for text in ["udp://127.0.0.1:53", "udp://dns.example:0", "udp://[::1]:5353", "tcp://[::1]:1", "unix:///run/x"]
        {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(matches!(endpoint, Endpoint::Datagrams(_)), text.starts_with("udp"));
        }
        assert!(
            matches!("udp://127.0.0.1".parse::<Endpoint>(), Err(AddressError::Port { address }) if address == "udp://127.0.0.1")
        );
        assert!(
            matches!("udp://a/b:1".parse::<Endpoint>(), Err(AddressError::Host { address }) if address == "udp://a/b:1")
        );
        assert!(matches!("ftp://a:1".parse::<Endpoint>(), Err(AddressError::UnknownScheme { .. })));
    }
}
