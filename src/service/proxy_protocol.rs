//! The PROXY protocol, versions 1 and 2 (haproxy, `doc/proxy-protocol.txt`): who a connection came from, told before
//! its first byte.
//!
//! Encodes and decodes headers; whose headers are believed is decided by the service. Type-length-value fields of
//! version 2 are skipped, its checksum among them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// Which form of the header is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// A block of bytes.
    V2,
}

/// What a header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Nothing: the addresses are not known, or the proxy speaks for itself, or the client came by a Unix socket.
    Unknown,
    /// The ends of the client's TCP connection, both of one family.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

impl ProxyHeader {
    /// The header for a client's connection. An end that is no TCP one, as of a Unix socket, makes it
    /// [`Unknown`](Self::Unknown). An IPv4 address beside an IPv6 one is mapped; flow labels and scopes, which no
    /// header carries, are dropped.
    #[must_use]
    pub fn between(source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Self {
        let (Some(source), Some(destination)) = (source, destination) else { return Self::Unknown };
        if source.is_ipv4() && destination.is_ipv4() {
            return Self::Tcp { source, destination };
        }
        Self::Tcp { source: mapped(source), destination: mapped(destination) }
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self, version: ProxyVersion) -> Vec<u8> {
        let header = match *self {
            Self::Unknown => Self::Unknown,
            Self::Tcp { source, destination } => Self::between(Some(source), Some(destination)),
        };
        match version {
            ProxyVersion::V1 => header.encode_v1(),
            ProxyVersion::V2 => header.encode_v2(),
        }
    }

    fn encode_v1(&self) -> Vec<u8> {
        match self {
            Self::Unknown => b"PROXY UNKNOWN\r\n".to_vec(),
            Self::Tcp { source, destination } => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (source.ip(), destination.ip());
                format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
            }
        }
    }

    fn encode_v2(&self) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        match self {
            Self::Unknown => bytes.extend_from_slice(&[V2_LOCAL, V2_UNSPECIFIED, 0, 0]),
            Self::Tcp { source: SocketAddr::V4(source), destination: SocketAddr::V4(destination) } => {
                bytes.extend_from_slice(&[V2_PROXY, V2_TCP4, 0, 12]);
                bytes.extend_from_slice(&source.ip().octets());
                bytes.extend_from_slice(&destination.ip().octets());
                extend_with_ports(&mut bytes, source.port(), destination.port());
            }
            Self::Tcp { source, destination } => {
                bytes.extend_from_slice(&[V2_PROXY, V2_TCP6, 0, 36]);
                bytes.extend_from_slice(&octets_v6(*source));
                bytes.extend_from_slice(&octets_v6(*destination));
                extend_with_ports(&mut bytes, source.port(), destination.port());
            }
        }
        bytes
    }
}

/// Reads a header from the first bytes of a connection. `None`: more bytes are needed; at most [`HEADER_BYTES_MAX`]
/// are. Otherwise the header and how many bytes it took: the client's own begin after them.
///
/// # Errors
///
/// See [`ProxyError`]. An error may come before the header is complete, as soon as it cannot become one.
pub fn decode(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    if starts_alike(bytes, V2_SIGNATURE) {
        return if bytes.len() < V2_SIGNATURE.len() { Ok(None) } else { decode_v2(bytes) };
    }
    if starts_alike(bytes, V1_PREFIX) {
        return decode_v1(bytes);
    }
    Err(ProxyError::NoHeader)
}

/// Bytes of a header of either version. Version 1 has 107 at most; version 2 may announce more than this, and is
/// refused then.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProxyError {
    /// The connection does not begin with a header.
    #[error("expected a PROXY protocol header, the connection begins with something else")]
    NoHeader,
    /// The line of version 1 is too long or is not as specified.
    #[error("the PROXY protocol version 1 line is malformed")]
    Line,
    /// The version in the binary header is not 2.
    #[error("expected version 2 of the PROXY protocol, the header says {0}")]
    Version(u8),
    /// The command is neither LOCAL nor PROXY.
    #[error("the PROXY protocol command {0} is not defined")]
    Command(u8),
    /// The family or transport is not defined, or not that of a stream.
    #[error("the PROXY protocol family and transport 0x{0:02x} are not supported")]
    Family(u8),
    /// The announced length is too short for the addresses, or longer than [`HEADER_BYTES_MAX`].
    #[error("the PROXY protocol header announces {0} bytes, which does not fit its addresses or our bound")]
    Length(usize),
}

fn decode_v1(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let head = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if head.len() == V1_BYTES_MAX { Err(ProxyError::Line) } else { Ok(None) };
    };
    let rest = head.get(V1_PREFIX.len()..end).ok_or(ProxyError::Line)?;
    let text = std::str::from_utf8(rest).map_err(|_| ProxyError::Line)?;
    Ok(Some((parse_line(text)?, end + 2)))
}

/// The line between `PROXY ` and its end. What follows `UNKNOWN` is to be ignored.
fn parse_line(text: &str) -> Result<ProxyHeader, ProxyError> {
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(ProxyHeader::Unknown);
    }
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(ProxyError::Line);
    let family = word()?;
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(ProxyError::Line);
    }
    let (source, destination) = match family {
        "TCP4" => (
            SocketAddr::from((ip::<Ipv4Addr>(source)?, source_port)),
            SocketAddr::from((ip::<Ipv4Addr>(destination)?, destination_port)),
        ),
        "TCP6" => (
            SocketAddr::from((ip::<Ipv6Addr>(source)?, source_port)),
            SocketAddr::from((ip::<Ipv6Addr>(destination)?, destination_port)),
        ),
        _ => return Err(ProxyError::Line),
    };
    Ok(ProxyHeader::Tcp { source, destination })
}

fn ip<T: FromStr>(text: &str) -> Result<T, ProxyError> {
    text.parse().map_err(|_| ProxyError::Line)
}

/// Decimal, without sign and without leading zeros.
fn port(text: &str) -> Result<u16, ProxyError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !plain {
        return Err(ProxyError::Line);
    }
    text.parse().map_err(|_| ProxyError::Line)
}

fn decode_v2(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let Some(&command) = bytes.get(12) else { return Ok(None) };
    if command >> 4 != 2 {
        return Err(ProxyError::Version(command >> 4));
    }
    if command != V2_LOCAL && command != V2_PROXY {
        return Err(ProxyError::Command(command & 0x0f));
    }
    let Some(&[family, high, low]) = bytes.get(13..16) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let addresses_length = match (command, family) {
        (V2_LOCAL, _) | (_, V2_UNSPECIFIED) => 0,
        (_, V2_TCP4) => 12,
        (_, V2_TCP6) => 36,
        (_, V2_UNIX_STREAM) => 216,
        (_, other) => return Err(ProxyError::Family(other)),
    };
    if length < addresses_length || V2_HEAD_BYTES + length > HEADER_BYTES_MAX {
        return Err(ProxyError::Length(length));
    }
    let end = V2_HEAD_BYTES + length;
    let Some(body) = bytes.get(V2_HEAD_BYTES..end) else { return Ok(None) };
    let header = match (command, family) {
        (V2_PROXY, V2_TCP4) => addresses_v4(body).ok_or(ProxyError::Length(length))?,
        (V2_PROXY, V2_TCP6) => addresses_v6(body).ok_or(ProxyError::Length(length))?,
        _ => ProxyHeader::Unknown,
    };
    Ok(Some((header, end)))
}

fn addresses_v4(body: &[u8]) -> Option<ProxyHeader> {
    let (source, rest) = body.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<4>()?;
    let (ports, _) = rest.split_first_chunk::<4>()?;
    let (source_port, destination_port) = split_ports(*ports);
    Some(ProxyHeader::Tcp {
        source: (Ipv4Addr::from(*source), source_port).into(),
        destination: (Ipv4Addr::from(*destination), destination_port).into(),
    })
}

fn addresses_v6(body: &[u8]) -> Option<ProxyHeader> {
    let (source, rest) = body.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let (ports, _) = rest.split_first_chunk::<4>()?;
    let (source_port, destination_port) = split_ports(*ports);
    Some(ProxyHeader::Tcp {
        source: (Ipv6Addr::from(*source), source_port).into(),
        destination: (Ipv6Addr::from(*destination), destination_port).into(),
    })
}

fn split_ports([a, b, c, d]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

fn extend_with_ports(bytes: &mut Vec<u8>, source: u16, destination: u16) {
    bytes.extend_from_slice(&source.to_be_bytes());
    bytes.extend_from_slice(&destination.to_be_bytes());
}

fn octets_v6(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(address) => address.ip().octets(),
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    (Ipv6Addr::from(octets_v6(address)), address.port()).into()
}

/// Whether `bytes` begin with `prefix`, as far as they go.
fn starts_alike(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected)
}

const V1_PREFIX: &[u8] = b"PROXY ";

/// With the end of the line (§2.1).
const V1_BYTES_MAX: usize = 107;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length (§2.2).
const V2_HEAD_BYTES: usize = 16;

const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const V2_UNSPECIFIED: u8 = 0x00;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;
const V2_UNIX_STREAM: u8 = 0x31;

const _: () = assert!(V1_BYTES_MAX <= HEADER_BYTES_MAX && V2_HEAD_BYTES + 216 <= HEADER_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn tcp(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, body].concat()
    }

    /// The longest lines of the specification, §2.1.
    #[test]
    fn lines_of_the_specification_are_read() {
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let six = format!("PROXY TCP6 {all} {all} 65535 65535\r\n");
        let unknown = format!("PROXY UNKNOWN {all} {all} 65535 65535\r\n");
        assert_eq!(unknown.len(), V1_BYTES_MAX);
        let four = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        assert_eq!(decode(four), Ok(Some((tcp("255.255.255.255:65535", "255.255.255.255:65535"), 56))));
        let both = format!("[{all}]:65535");
        assert_eq!(decode(six.as_bytes()), Ok(Some((tcp(&both, &both), 104))));
        assert_eq!(decode(unknown.as_bytes()), Ok(Some((ProxyHeader::Unknown, 107))));
        assert_eq!(decode(b"PROXY UNKNOWN\r\nGET /"), Ok(Some((ProxyHeader::Unknown, 15))));
        let request = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(decode(request), Ok(Some((tcp("192.168.0.1:56324", "192.168.0.11:443"), 47))));
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
        ] {
            assert_eq!(decode(line.as_bytes()), Err(ProxyError::Line), "{line}");
        }
        assert_eq!(decode(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat()), Err(ProxyError::Line));
        assert_eq!(decode(b"GET / HTTP/1.1\r\n"), Err(ProxyError::NoHeader));
        assert_eq!(decode(b"PROXYTCP4"), Err(ProxyError::NoHeader));
    }

    #[test]
    fn blocks_of_the_specification_are_read() {
        let four = [127, 0, 0, 1, 127, 0, 0, 2, 0x1f, 0x90, 0x01, 0xbb];
        let expected = tcp("127.0.0.1:8080", "127.0.0.2:443");
        assert_eq!(decode(&v2(0x21, 0x11, &four)), Ok(Some((expected, 28))));
        assert_eq!(expected.encode(ProxyVersion::V2), v2(0x21, 0x11, &four));
        // PP2_TYPE_NOOP of one byte behind the addresses.
        let with_field = [&four[..], &[0x04, 0, 1, 0]].concat();
        assert_eq!(decode(&v2(0x21, 0x11, &with_field)), Ok(Some((expected, 32))));
        // LOCAL: the addresses are to be ignored.
        assert_eq!(decode(&v2(0x20, 0x11, &four)), Ok(Some((ProxyHeader::Unknown, 28))));
        assert_eq!(decode(&v2(0x21, 0x00, &[])), Ok(Some((ProxyHeader::Unknown, 16))));
        assert_eq!(decode(&v2(0x21, 0x31, &[0; 216])), Ok(Some((ProxyHeader::Unknown, 232))));
        assert_eq!(ProxyHeader::Unknown.encode(ProxyVersion::V2), v2(0x20, 0x00, &[]));
    }

    #[test]
    fn malformed_blocks_are_refused() {
        assert_eq!(decode(&v2(0x11, 0x11, &[0; 12])), Err(ProxyError::Version(1)));
        assert_eq!(decode(&v2(0x22, 0x11, &[0; 12])), Err(ProxyError::Command(2)));
        assert_eq!(decode(&v2(0x21, 0x12, &[0; 12])), Err(ProxyError::Family(0x12)));
        assert_eq!(decode(&v2(0x21, 0x11, &[0; 11])), Err(ProxyError::Length(11)));
        assert_eq!(decode(&v2(0x21, 0x21, &[0; 35])), Err(ProxyError::Length(35)));
        assert_eq!(decode(&v2(0x21, 0x31, &[0; 215])), Err(ProxyError::Length(215)));
        assert_eq!(decode(&v2(0x20, 0x00, &[0; 4081])[..16]), Err(ProxyError::Length(4081)));
    }

    #[test]
    fn families_are_not_mixed() {
        let header = ProxyHeader::between(Some("1.2.3.4:1".parse().unwrap()), Some("[2001:db8::1]:2".parse().unwrap()));
        assert_eq!(header, tcp("[::ffff:1.2.3.4]:1", "[2001:db8::1]:2"));
        assert_eq!(ProxyHeader::between(None, Some("1.2.3.4:1".parse().unwrap())), ProxyHeader::Unknown);
        let mixed = tcp("1.2.3.4:1", "[2001:db8::1]:2");
        assert_eq!(mixed.encode(ProxyVersion::V1), header.encode(ProxyVersion::V1));
    }

    fn headers() -> impl Strategy<Value = ProxyHeader> {
        let address = || any::<(IpAddr, u16)>().prop_map(SocketAddr::from);
        prop_oneof![
            Just(ProxyHeader::Unknown),
            (address(), address()).prop_map(|(from, to)| ProxyHeader::between(Some(from), Some(to))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            header in headers(),
            version in prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)],
            payload in any::<Vec<u8>>(),
        ) {
            let encoded = header.encode(version);
            for cut in 0..encoded.len() {
                prop_assert_eq!(decode(&encoded[..cut]), Ok(None));
            }
            let all = [encoded.as_slice(), &payload].concat();
            prop_assert_eq!(decode(&all), Ok(Some((header, encoded.len()))));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            prefix in prop_oneof![Just(&b""[..]), Just(V1_PREFIX), Just(V2_SIGNATURE), Just(&b"PROXY TCP4 "[..])],
            bytes in any::<Vec<u8>>(),
            padding in 0..5000_usize,
        ) {
            let mut all = [prefix, &bytes].concat();
            all.resize(all.len() + padding, 0);
            match decode(&all) {
                Ok(Some((_, consumed))) => prop_assert!(consumed <= all.len() && consumed <= HEADER_BYTES_MAX),
                Ok(None) => prop_assert!(all.len() < HEADER_BYTES_MAX),
                Err(_) => {}
            }
        }
    }
}
