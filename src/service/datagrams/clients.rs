//! The one socket of a forward, for all of its clients. Answers leave from the address that the client sent to, also on a
//! machine with several, where the system would choose another one.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn::udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::DatagramLoss;
use super::socket::{self, loss};
use crate::service::endpoint::UdpAddress;

/// Who sent a datagram, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    /// The local address, where the system tells it.
    local: Option<IpAddr>,
}

/// A socket that gets datagrams of many clients.
#[derive(Debug)]
pub(super) struct ClientSocket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl ClientSocket {
    /// Binds an address.
    pub(super) async fn bind(address: &UdpAddress) -> io::Result<Self> {
        let io = socket::bind(address).await?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        allow_fragments(&io)?;
        Ok(Self { io, state })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Waits until there may be datagrams.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// Takes what there is, at most so much that other tasks are not kept waiting.
    ///
    /// # Errors
    /// An error of the socket, after which it can be used on.
    pub(super) fn receive(&self, mut take: impl FnMut(Client, &[u8])) -> Result<(), DatagramLoss> {
        with_buffer(|buffer| {
            for _ in 0..BATCHES_MAX {
                let mut slices = buffer.chunks_mut(BUFFER_BYTES).map(IoSliceMut::new).collect::<Vec<_>>();
                let mut metas = [RecvMeta::default(); BATCH_MAX];
                let receive = || self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut metas);
                let count = match self.io.try_io(Interest::READABLE, receive) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(loss(&error)),
                };
                for (meta, slice) in metas.iter().zip(&slices).take(count) {
                    let client = Client { address: meta.addr, local: meta.dst_ip };
                    let data = &slice[..meta.len];
                    if data.is_empty() {
                        take(client, data);
                    }
                    // The system may give several of one size as one.
                    data.chunks(meta.stride.max(1)).for_each(|datagram| take(client, datagram));
                }
            }
            Ok(())
        })
    }

    /// Sends a datagram to a client.
    ///
    /// # Errors
    /// Why it was not sent.
    pub(super) async fn send(&self, data: &[u8], to: Client) -> Result<(), DatagramLoss> {
        let transmit =
            Transmit { destination: to.address, ecn: None, contents: data, segment_size: None, src_ip: to.local };
        loop {
            let send = || self.state.try_send(UdpSockRef::from(&self.io), &transmit);
            match self.io.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.io.writable().await.map_err(|error| loss(&error))?;
                }
                outcome => return outcome.map_err(|error| loss(&error)),
            }
        }
    }
}

/// What QUIC forbids: applications' datagrams may be larger than what the path takes in one piece.
#[cfg(target_os = "linux")]
fn allow_fragments(io: &UdpSocket) -> io::Result<()> {
    use rustix::net::sockopt;
    if io.local_addr()?.is_ipv4() {
        sockopt::set_ip_mtu_discover(io, sockopt::Ipv4PathMtuDiscovery::WANT)?;
    } else {
        sockopt::set_ipv6_mtu_discover(io, sockopt::Ipv6PathMtuDiscovery::WANT)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn allow_fragments(_: &UdpSocket) -> io::Result<()> {
    Ok(())
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer.
fn with_buffer<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = BUFFER.take();
    buffer.resize(BATCH_MAX * BUFFER_BYTES, 0);
    let result = work(&mut buffer);
    BUFFER.set(buffer);
    result
}

/// The largest datagram of UDP, or several of one size, which the system gives as one.
const BUFFER_BYTES: usize = 1 << 16;

/// Buffers that one call to the system fills.
const BATCH_MAX: usize = 8;

/// Calls in one go.
const BATCHES_MAX: usize = 4;
