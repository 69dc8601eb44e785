//! UDP sockets for quinn, and endpoints on them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Once};

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime};
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::options::QuicOptions;
use super::segments::Segments;
use crate::channel::OptionsError;

/// Makes an endpoint on a socket of its own, which takes datagrams up to `payload_bytes_max`.
pub(super) fn endpoint(
    local: SocketAddr,
    is_shared: bool,
    payload_bytes_max: u16,
    options: &QuicOptions,
    server: Option<ServerConfig>,
    reset_key: Option<hmac::Key>,
) -> Result<Endpoint, EndpointError> {
    endpoint_on(socket(local, is_shared, options)?, payload_bytes_max, options, server, reset_key)
}

/// The same on a socket that the service manager has bound.
pub(super) fn endpoint_on_inherited(
    socket: Socket,
    payload_bytes_max: u16,
    options: &QuicOptions,
    server: ServerConfig,
    reset_key: hmac::Key,
) -> Result<Endpoint, EndpointError> {
    set_mark(&socket, options)?;
    raise_buffers(&socket, options)?;
    endpoint_on(socket, payload_bytes_max, options, Some(server), Some(reset_key))
}

fn endpoint_on(
    socket: Socket,
    payload_bytes_max: u16,
    options: &QuicOptions,
    server: Option<ServerConfig>,
    reset_key: Option<hmac::Key>,
) -> Result<Endpoint, EndpointError> {
    let mut config = reset_key.map_or_else(EndpointConfig::default, |key| EndpointConfig::new(Arc::new(ResetKey(key))));
    config.max_udp_payload_size(payload_bytes_max).map_err(|error| EndpointError::Io(io::Error::other(error)))?;
    let socket = TokioRuntime.wrap_udp_socket(socket.into())?;
    let socket = Arc::new(Segments::of(socket, options.mtu_offloaded(), payload_bytes_max));
    Ok(Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))?)
}

/// Why there is no endpoint.
pub(super) enum EndpointError {
    Options(OptionsError),
    Io(io::Error),
}

impl From<io::Error> for EndpointError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn socket(local: SocketAddr, is_shared: bool, options: &QuicOptions) -> Result<Socket, EndpointError> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() && local.ip() == IpAddr::from([0; 16]) {
        socket.set_only_v6(false)?;
    }
    #[cfg(target_os = "linux")]
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = is_shared;
    set_mark(&socket, options)?;
    raise_buffers(&socket, options)?;
    socket.bind(&local.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The address of this machine from which packets to a peer leave, as its routes are now. quinn knows it of connections that
/// it accepts only.
pub(super) fn source_ip(peer: SocketAddr, options: &QuicOptions) -> Option<IpAddr> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP)).ok()?;
    set_mark(&socket, options).ok()?;
    // Nothing is sent.
    socket.connect(&peer.into()).ok()?;
    socket.local_addr().ok()?.as_socket().map(|local| local.ip())
}

#[cfg(target_os = "linux")]
fn set_mark(socket: &Socket, options: &QuicOptions) -> Result<(), EndpointError> {
    let Some(mark) = options.mark else { return Ok(()) };
    socket.set_mark(mark).map_err(|source| EndpointError::Options(OptionsError::Mark { mark, source }))
}

#[cfg(not(target_os = "linux"))]
fn set_mark(_: &Socket, _: &QuicOptions) -> Result<(), EndpointError> {
    Ok(())
}

/// Asks for the wanted buffers, above the system's limit where the process may. What is refused is told once.
fn raise_buffers(socket: &Socket, options: &QuicOptions) -> io::Result<()> {
    let (send, receive) = (options.send_buffer_bytes as usize, options.receive_buffer_bytes as usize);
    #[cfg(target_os = "linux")]
    {
        // Needs CAP_NET_ADMIN, and is not needed where the limits are high.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(socket, send);
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, receive);
    }
    for (name, wanted, is_send) in [("net.core.wmem_max", send, true), ("net.core.rmem_max", receive, false)] {
        let size = || if is_send { socket.send_buffer_size() } else { socket.recv_buffer_size() };
        if size()? < wanted {
            if is_send { socket.set_send_buffer_size(wanted) } else { socket.set_recv_buffer_size(wanted) }?;
        }
        let got = size()?;
        if got < wanted {
            BUFFERS_LOGGED.call_once(|| {
                tracing::warn!(
                    wanted_bytes = wanted,
                    got_bytes = got,
                    "UDP socket buffers are small, which costs throughput on long paths: raise {name}"
                );
            });
        }
    }
    Ok(())
}

/// The log says once what the system refuses.
static BUFFERS_LOGGED: Once = Once::new();

/// Signs stateless resets (RFC 9000 §10.3): drawn from the node's key, so that a node that was restarted can tell its
/// peers that their connections are gone.
struct ResetKey(hmac::Key);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(hmac::sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}
