//! UDP sockets: how they are made, and those of single flows.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{UdpSocket, lookup_host};

use super::DatagramLoss;
use crate::channel::udp_at;
use crate::service::endpoint::UdpAddress;

/// A socket at an address, for many clients.
pub(super) async fn bind(address: &UdpAddress) -> io::Result<UdpSocket> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let candidates: Vec<_> = lookup_host((address.host.as_str(), address.port)).await?.collect();
    for candidate in &candidates {
        // What the service manager has bound there. One socket has all clients.
        if let Some(socket) = udp_at(*candidate)?.pop() {
            enlarge_buffers(&socket, LISTENER_BUFFER_BYTES);
            return UdpSocket::from_std(socket.into());
        }
    }
    for candidate in candidates {
        match bind_at(candidate, LISTENER_BUFFER_BYTES) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// A socket for one flow, which gets datagrams of the target alone.
pub(in crate::service) async fn connect(target: &UdpAddress) -> io::Result<UdpSocket> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in lookup_host((target.host.as_str(), target.port)).await? {
        let any = if candidate.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let connected = match bind_at(SocketAddr::new(any, 0), FLOW_BUFFER_BYTES) {
            Ok(socket) => socket.connect(candidate).await.map(|()| socket),
            Err(error) => Err(error),
        };
        match connected {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn bind_at(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // As TCP listeners: what is written as IPv6 is IPv6.
        socket.set_only_v6(true)?;
    }
    enlarge_buffers(&socket, buffer_bytes);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Bursts wait in the system's buffers while the task that takes them runs elsewhere. The system may give less.
fn enlarge_buffers(socket: &Socket, bytes: usize) {
    let outcome = socket.set_recv_buffer_size(bytes).and_then(|()| socket.set_send_buffer_size(bytes));
    let given = socket.recv_buffer_size().unwrap_or(0);
    if outcome.is_err() || given < bytes {
        tracing::debug!(
            wanted_bytes = bytes,
            given_bytes = given,
            "system gives smaller socket buffers (net.core.rmem_max, wmem_max): bursts of datagrams may be lost"
        );
    }
}

/// Takes what a flow's socket has, at most so many datagrams that other tasks are not kept waiting. Returns an error of
/// the socket, after which it can be used on.
pub(super) fn receive(socket: &UdpSocket, mut take: impl FnMut(&[u8])) -> Result<(), DatagramLoss> {
    with_buffer(|buffer| {
        for _ in 0..BATCH_MAX {
            match socket.try_recv(buffer) {
                Ok(size) => take(&buffer[..size]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(loss(&error)),
            }
        }
        Ok(())
    })
}

/// Sends a datagram on a flow's socket.
///
/// # Errors
/// Why it was not sent; [`DatagramLoss::TargetRefused`] when an earlier one was refused and this one sent.
pub(super) async fn send(socket: &UdpSocket, data: &[u8]) -> Result<(), DatagramLoss> {
    match socket.send(data).await {
        // That was the answer to an earlier one, which the system tells once: this one was not sent.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            socket.send(data).await.map_err(|error| loss(&error))?;
            Err(DatagramLoss::TargetRefused)
        }
        outcome => outcome.map(drop).map_err(|error| loss(&error)),
    }
}

/// What an error of the system means.
pub(super) fn loss(error: &io::Error) -> DatagramLoss {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::MSGSIZE) => DatagramLoss::TooLarge,
        Some(rustix::io::Errno::CONNREFUSED) => DatagramLoss::TargetRefused,
        _ => DatagramLoss::Socket,
    }
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer, which the largest datagram fits: flows have none of their own.
fn with_buffer<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = BUFFER.take();
    buffer.resize(DATAGRAM_BUFFER_BYTES, 0);
    let result = work(&mut buffer);
    BUFFER.set(buffer);
    result
}

/// The largest datagram of UDP, and more.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 16;

/// Datagrams that are taken in one go.
const BATCH_MAX: usize = 32;

/// What a line of 1 Gbit/s brings in 30 ms.
const LISTENER_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The same, for the one client of a flow.
const FLOW_BUFFER_BYTES: usize = 1024 * 1024;
