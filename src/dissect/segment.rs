//! Finds the TCP segment in a captured packet: Ethernet, loopback and cooked captures, VLAN tags, IPv4 and IPv6.
//!
//! Checksums are not looked at: what this machine sends is captured before they are right. Fragments of IP are left out;
//! TCP avoids them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::capture::Packet;

/// A TCP segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) sequence: u32,
    pub(super) is_syn: bool,
    pub(super) is_ack: bool,
    pub(super) payload: &'a [u8],
    /// Some of the payload was not captured.
    pub(super) is_cut: bool,
}

/// Where TCP's bytes go, and which they are.
struct Datagram<'a> {
    source: IpAddr,
    destination: IpAddr,
    content: &'a [u8],
    is_cut: bool,
}

impl<'a> Segment<'a> {
    /// `None` when the packet has none.
    pub(super) fn of(packet: &Packet<'a>) -> Option<Self> {
        let is_cut = (packet.len as usize) > packet.data.len();
        let network = network(packet.link_type, packet.data)?;
        let datagram = match network.first()? >> 4 {
            4 => Datagram::v4(network, is_cut)?,
            6 => Datagram::v6(network, is_cut)?,
            _ => return None,
        };
        Self::in_datagram(&datagram)
    }

    fn in_datagram(datagram: &Datagram<'a>) -> Option<Self> {
        let content = datagram.content;
        let port = |at| Some(u16::from_be_bytes(array(content, at)?));
        let header_len = usize::from(content.get(12)? >> 4) * 4;
        let flags = *content.get(13)?;
        Some(Self {
            source: SocketAddr::new(datagram.source, port(0)?),
            destination: SocketAddr::new(datagram.destination, port(2)?),
            sequence: u32::from_be_bytes(array(content, 4)?),
            is_syn: flags & 0x02 != 0,
            is_ack: flags & 0x10 != 0,
            payload: content.get(header_len.max(20)..)?,
            is_cut: datagram.is_cut,
        })
    }
}

impl<'a> Datagram<'a> {
    fn v4(bytes: &'a [u8], is_cut: bool) -> Option<Self> {
        let header_len = usize::from(bytes.first()? & 15) * 4;
        let fragment = u16::from_be_bytes(array(bytes, 6)?) & 0x3fff;
        if header_len < 20 || fragment != 0 || *bytes.get(9)? != TCP {
            return None;
        }
        let source = Ipv4Addr::from(array::<4>(bytes, 12)?);
        let destination = Ipv4Addr::from(array::<4>(bytes, 16)?);
        let total = usize::from(u16::from_be_bytes(array(bytes, 2)?));
        let (content, is_cut) = inside(bytes, header_len, total, is_cut)?;
        Some(Self { source: source.into(), destination: destination.into(), content, is_cut })
    }

    fn v6(bytes: &'a [u8], is_cut: bool) -> Option<Self> {
        let source = Ipv6Addr::from(array::<16>(bytes, 8)?);
        let destination = Ipv6Addr::from(array::<16>(bytes, 24)?);
        let (mut next, mut at) = (*bytes.get(6)?, 40);
        for _ in 0..EXTENSIONS_MAX {
            match next {
                TCP => {
                    let payload = usize::from(u16::from_be_bytes(array(bytes, 4)?));
                    let total = if payload == 0 { 0 } else { 40 + payload };
                    let (content, is_cut) = inside(bytes, at, total, is_cut)?;
                    return Some(Self { source: source.into(), destination: destination.into(), content, is_cut });
                }
                // Hop-by-hop options, routing, destination options.
                0 | 43 | 60 => {
                    next = *bytes.get(at)?;
                    at += usize::from(*bytes.get(at + 1)?) * 8 + 8;
                }
                _ => return None,
            }
        }
        None
    }
}

/// What is behind a header, as far as the datagram goes: a frame may be padded. The kernel writes 0 for what is longer
/// than the field can say.
fn inside(bytes: &[u8], header_len: usize, total: usize, is_cut: bool) -> Option<(&[u8], bool)> {
    let end = if total == 0 { bytes.len() } else { total.min(bytes.len()) };
    Some((bytes.get(header_len..end)?, if total == 0 { is_cut } else { total > bytes.len() }))
}

/// The packet of IP, if it is one.
fn network(link_type: u32, data: &[u8]) -> Option<&[u8]> {
    match link_type {
        // NULL and LOOP: the address family, in either byte order, which IP's version says again.
        0 | 108 => data.get(4..),
        // Ethernet.
        1 => behind_type(data, 12),
        // Raw IP.
        12 | 14 | 101 | 228 | 229 => Some(data),
        // Linux cooked, version 1 and 2.
        113 => behind_type(data, 14),
        276 => match array(data, 0)? {
            IPV4 | IPV6 => data.get(20..),
            _ => None,
        },
        _ => None,
    }
}

/// What is behind an Ethernet type, and behind VLAN tags.
fn behind_type(data: &[u8], mut at: usize) -> Option<&[u8]> {
    for _ in 0..=VLAN_TAGS_MAX {
        match array(data, at)? {
            IPV4 | IPV6 => return data.get(at + 2..),
            [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00] => at += 4,
            _ => return None,
        }
    }
    None
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

const TCP: u8 = 6;

/// Types of Ethernet.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Two are usual.
const VLAN_TAGS_MAX: usize = 4;

/// One or two are usual.
const EXTENSIONS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tcp() -> Vec<u8> {
        let mut bytes = [&1000u16.to_be_bytes()[..], &2000u16.to_be_bytes(), &7u32.to_be_bytes(), &[0; 4]].concat();
        bytes.extend([6 << 4, 0x12, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
        bytes.extend(b"payload");
        bytes
    }

    fn v4() -> Vec<u8> {
        let content = tcp();
        let total = (20 + content.len()) as u16;
        let mut bytes =
            [&[0x45, 0][..], &total.to_be_bytes(), &[0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]].concat();
        bytes.extend(content);
        bytes
    }

    fn v6() -> Vec<u8> {
        let content = tcp();
        let len = (8 + content.len()) as u16;
        let mut bytes = [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[0, 64]].concat();
        bytes.extend(Ipv6Addr::LOCALHOST.octets().repeat(2));
        bytes.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(content);
        bytes
    }

    fn check(link_type: u32, data: &[u8], address: &str) {
        let packet = Packet { time: Duration::ZERO, link_type, data, len: data.len() as u32 };
        let segment = Segment::of(&packet).unwrap_or_else(|| panic!("link type {link_type}"));
        assert_eq!(segment.source, address.parse().unwrap());
        assert_eq!((segment.sequence, segment.is_syn, segment.is_ack, segment.is_cut), (7, true, true, false));
        assert_eq!(segment.payload, b"payload");
    }

    #[test]
    fn segments_are_found_below_every_link_layer() {
        let (v4, v6) = (v4(), v6());
        let ethernet = |kind: &[u8], content: &[u8]| [&[0; 12], kind, content, &[0; 9]].concat();
        check(1, &ethernet(&IPV4, &v4), "10.0.0.1:1000");
        check(1, &ethernet(&[0x81, 0, 0, 5, 0x86, 0xdd], &v6), "[::1]:1000");
        check(101, &v4, "10.0.0.1:1000");
        check(0, &[&[2, 0, 0, 0], &v4[..]].concat(), "10.0.0.1:1000");
        check(113, &[&[0; 14], &IPV6[..], &v6].concat(), "[::1]:1000");
        check(276, &[&IPV4[..], &[0; 18], &v4].concat(), "10.0.0.1:1000");
    }

    #[test]
    fn what_was_captured_in_part_is_told() {
        let v4 = v4();
        let packet = Packet { time: Duration::ZERO, link_type: 101, data: &v4[..v4.len() - 3], len: v4.len() as u32 };
        let segment = Segment::of(&packet).unwrap();
        assert_eq!((segment.payload, segment.is_cut), (&b"payl"[..], true));
    }

    #[test]
    fn no_piece_of_a_packet_is_too_short_to_be_looked_at() {
        for whole in [v4(), v6()] {
            for len in 0..whole.len() {
                for link_type in [0, 1, 101, 113, 276, 9999] {
                    Segment::of(&Packet { time: Duration::ZERO, link_type, data: &whole[..len], len: len as u32 });
                }
            }
        }
    }
}
