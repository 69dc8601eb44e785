//! What the kernel knows of a TCP connection (`struct tcp_info` of linux/tcp.h), asked for by `NETLINK_SOCK_DIAG`
//! (sock_diag(7)), which takes bytes and gives bytes: `getsockopt` would fill a structure, which is not for safe code.
//!
//! Where there is no netlink, be it for the system or for a sandbox, nothing is told.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::path::PathStats;

/// Asks about connections, one after the other.
#[derive(Debug)]
pub(crate) struct TcpInfo {
    socket: OwnedFd,
    sequence: u32,
}

impl TcpInfo {
    /// Opens the way to the kernel. `None` where there is none.
    pub(crate) fn open() -> Option<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG));
        let socket = socket.ok()?;
        rustix::net::connect(&socket, &netlink::SocketAddrNetlink::new(0, 0)).ok()?;
        Some(Self { socket, sequence: 0 })
    }

    /// What is known of the connection between two addresses.
    pub(crate) fn ask(&mut self, local: SocketAddr, peer: SocketAddr) -> Option<PathStats> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(local, peer, self.sequence)?;
        rustix::net::send(&self.socket, &request, SendFlags::empty()).ok()?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        // The kernel answers within the call. An answer to an earlier question that nobody waited for is skipped.
        for _ in 0..ANSWERS_MAX {
            let (count, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty()).ok()?;
            let answer = answer.get(..count)?;
            if u32_at(answer, 8) == Some(self.sequence) {
                return parse(answer);
            }
        }
        None
    }
}

/// `nlmsghdr` and `inet_diag_req_v2` (linux/inet_diag.h): this one socket, with `tcp_info`.
fn request(local: SocketAddr, peer: SocketAddr, sequence: u32) -> Option<Vec<u8>> {
    if local.is_ipv6() != peer.is_ipv6() {
        return None;
    }
    let mut bytes = Vec::with_capacity(REQUEST_BYTES);
    bytes.extend((REQUEST_BYTES as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    let family = if local.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let wanted = 1_u8 << (INET_DIAG_INFO - 1);
    bytes.extend([u8::try_from(family.as_raw()).ok()?, IPPROTO_TCP, wanted, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    for address in [local.ip(), peer.ip()] {
        let mut room = [0; 16];
        match address {
            IpAddr::V4(address) => room[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => room = address.octets(),
        }
        bytes.extend(room);
    }
    let scope = match peer {
        SocketAddr::V6(peer) => peer.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    bytes.extend(scope.to_ne_bytes());
    // No cookie: whichever socket has these addresses.
    bytes.extend([u8::MAX; 8]);
    Some(bytes)
}

/// The attribute with `tcp_info` behind `nlmsghdr` and `inet_diag_msg`.
fn parse(answer: &[u8]) -> Option<PathStats> {
    let length = usize::try_from(u32_at(answer, 0)?).ok()?;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut rest = answer.get(MESSAGE_HEAD_BYTES + DIAG_BYTES..length)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(rest[..2].try_into().ok()?));
        let kind = u16::from_ne_bytes(rest[2..4].try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == u16::from(INET_DIAG_INFO) {
            return stats(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The fields that are wanted of `tcp_info`, by their places, which are part of the kernel's interface and only ever
/// followed by more.
fn stats(info: &[u8]) -> Option<PathStats> {
    let micros = |at| Some(Duration::from_micros(u64::from(u32_at(info, at)?)));
    let segment_bytes = u64::from(u32_at(info, 16)?);
    let retransmitted = u64::from(u32_at(info, 100)?);
    Some(PathStats {
        round_trip: micros(68)?,
        round_trip_min: micros(148).filter(|time| *time < Duration::from_micros(u32::MAX.into())),
        congestion_window_bytes: u64::from(u32_at(info, 80)?) * segment_bytes,
        packets_lost: retransmitted,
        packets_sent: u32_at(info, 156).map(u64::from)?,
        delivery_rate: u64_at(info, 160).filter(|rate| *rate > 0),
        unsent_bytes: u32_at(info, 144).map(u64::from),
        // Older kernels (before 4.19) do not count bytes.
        bytes_sent: u64_at(info, 200).unwrap_or_default(),
        bytes_lost: u64_at(info, 208).unwrap_or(retransmitted * segment_bytes),
        round_trips: Vec::new(),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// linux/netlink.h.
const NLM_F_REQUEST: u16 = 1;

/// linux/inet_diag.h.
const INET_DIAG_INFO: u8 = 2;

/// linux/in.h.
const IPPROTO_TCP: u8 = 6;

/// Size of `nlmsghdr`.
const MESSAGE_HEAD_BYTES: usize = 16;

/// Size of `inet_diag_msg`.
const DIAG_BYTES: usize = 72;

/// Size of `nlmsghdr` and `inet_diag_req_v2`.
const REQUEST_BYTES: usize = 16 + 56;

/// An answer has 400 bytes with the kernels of today, and what else they tell unasked.
const ANSWER_BYTES_MAX: usize = 4096;

/// Answers that are read until the right one: those that came too late for earlier questions.
const ANSWERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_tells_of_a_connection() {
        let Some(mut info) = TcpInfo::open() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 100_000]).unwrap();
        server.read_exact(&mut [0; 100_000]).unwrap();
        // A sandbox may have netlink and no such question.
        let Some(stats) = info.ask(client.local_addr().unwrap(), client.peer_addr().unwrap()) else { return };
        assert!(stats.packets_sent > 0 && stats.round_trip > Duration::ZERO, "{stats:?}");
        assert!(stats.bytes_sent >= 100_000 && stats.bytes_sent < 1_000_000, "{stats:?}");
        assert!(stats.congestion_window_bytes > 0, "{stats:?}");
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert_eq!(info.ask(nobody, nobody), None, "an error is no answer, and takes nothing from the next");
        assert!(info.ask(client.local_addr().unwrap(), client.peer_addr().unwrap()).is_some());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for length in 0..120 {
            assert_eq!(parse(&vec![0; length]), None);
        }
        let mut answer = vec![0_u8; 200];
        answer[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        assert_eq!(parse(&answer), None, "longer than it is");
        answer[..4].copy_from_slice(&200_u32.to_ne_bytes());
        assert_eq!(parse(&answer), None, "an attribute of no length");
    }

    #[test]
    fn fields_are_where_the_kernel_puts_them() {
        let mut info = vec![0_u8; 232];
        let mut put = |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        put(16, 1448);
        put(68, 20_000);
        put(80, 10);
        put(100, 3);
        put(144, 77);
        put(148, 15_000);
        put(156, 1000);
        put(160, 5_000_000);
        put(200, 1_448_000);
        put(208, 4344);
        let stats = stats(&info).unwrap();
        assert_eq!(stats.round_trip, Duration::from_millis(20));
        assert_eq!(stats.round_trip_min, Some(Duration::from_millis(15)));
        assert_eq!((stats.packets_sent, stats.packets_lost), (1000, 3));
        assert_eq!((stats.bytes_sent, stats.bytes_lost), (1_448_000, 4344));
        assert_eq!((stats.congestion_window_bytes, stats.delivery_rate), (14_480, Some(5_000_000)));
        assert_eq!(stats.unsent_bytes, Some(77));
    }
}
