//! Dialling QUIC by name: the addresses of the name in turn, each attempt a little after the one before, as for TCP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connecting};
use rustls::quic::Suite;

use super::connection::QuicConnection;
use super::discreet::{Discreet, Words};
use super::early::{QuicDialled, QuicEarly};
use super::endpoint::source_ip;
use super::endpoint::{EndpointError, endpoint};
use super::error::QuicError;
use super::options::QuicOptions;
use crate::channel::dial::DialOptions;
use crate::channel::dial_tcp::{AttemptError, race, resolve};
use crate::channel::path::PathMeter;
use crate::channel::{Address, DialError, DialFailure, DialFailures};

/// Dials a `quic://` address and runs the client's side of the handshake. `initial` is the suite of the first packets
/// (RFC 9001 §5.2).
///
/// # Errors
///
/// See [`DialError`].
pub async fn dial_quic(
    address: &Address,
    options: &DialOptions,
    tls: Arc<rustls::ClientConfig>,
    initial: Suite,
) -> Result<QuicConnection, DialError> {
    let deadline = tokio::time::Instant::now() + options.timeout;
    let name = address.to_string();
    let Address::Quic { host, port } = address else {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the address is no quic:// one");
        let failures = DialFailures(vec![DialFailure { address: name.clone(), error }]);
        return Err(DialError::Other { address: name, failures });
    };
    let addresses = resolve(host, *port, deadline).await?;
    let attempt = |peer: SocketAddr| attempt(peer, &options.quic, Arc::clone(&tls), initial);
    race(&name, addresses, attempt, options.timeout, deadline).await
}

/// As [`dial_quic`], and does not wait for the handshake when early data may be sent. Of a name with several addresses the
/// first that answers is wanted, which takes its answer: no early data then.
///
/// # Errors
///
/// See [`DialError`].
pub async fn dial_quic_early(
    address: &Address,
    options: &DialOptions,
    tls: Arc<rustls::ClientConfig>,
    initial: Suite,
) -> Result<QuicDialled, DialError> {
    let deadline = tokio::time::Instant::now() + options.timeout;
    let Address::Quic { host, port } = address else {
        return dial_quic(address, options, tls, initial).await.map(QuicDialled::Ready);
    };
    let addresses = resolve(host, *port, deadline).await?;
    if addresses.len() > 1 {
        return dial_quic(address, options, tls, initial).await.map(QuicDialled::Ready);
    }
    let begin = |peer: SocketAddr| {
        let begun = begin(peer, &options.quic, Arc::clone(&tls), initial);
        let suites = &tls.crypto_provider().cipher_suites;
        async move {
            let Begun { connecting, local, meter, words } = begun?;
            match connecting.into_0rtt() {
                Ok((connection, accepted)) => {
                    let connection = QuicConnection::new(connection, local, meter, suites)?;
                    Ok(QuicDialled::Early(QuicEarly::new(connection, accepted, words)))
                }
                Err(connecting) => {
                    let connection = connecting.await.map_err(|error| QuicError::new(error, words.take()))?;
                    Ok(QuicDialled::Ready(QuicConnection::new(connection, local, meter, suites)?))
                }
            }
        }
    };
    race(&address.to_string(), addresses, begin, options.timeout, deadline).await
}

/// A connection whose handshake has begun.
struct Begun {
    connecting: Connecting,
    local: SocketAddr,
    meter: Arc<PathMeter>,
    words: Words,
}

async fn attempt(
    peer: SocketAddr,
    options: &QuicOptions,
    tls: Arc<rustls::ClientConfig>,
    initial: Suite,
) -> Result<QuicConnection, AttemptError> {
    let Begun { connecting, local, meter, words } = begin(peer, options, Arc::clone(&tls), initial)?;
    let connection = connecting.await.map_err(|error| QuicError::new(error, words.take()))?;
    QuicConnection::new(connection, local, meter, &tls.crypto_provider().cipher_suites).map_err(AttemptError::from)
}

fn begin(
    peer: SocketAddr,
    options: &QuicOptions,
    tls: Arc<rustls::ClientConfig>,
    initial: Suite,
) -> Result<Begun, AttemptError> {
    let any = match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let local = options.bind.unwrap_or(any);
    if local.is_ipv6() != peer.is_ipv6() {
        let text = format!("the local address {local} is of the other family");
        return Err(std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, text).into());
    }
    let crypto = QuicClientConfig::with_initial(tls, initial)
        .map_err(|error| QuicError::Settings { reason: error.to_string() })?;
    let (crypto, words) = Discreet::new(crypto);
    let mut config = ClientConfig::new(crypto);
    let meter = Arc::new(PathMeter::default());
    config.transport_config(Arc::new(options.transport(peer.ip(), Some(Arc::clone(&meter) as _))));
    let payload_bytes_max = options.mtu_max(peer.ip());
    let endpoint = endpoint(local, false, payload_bytes_max, options, None, None).map_err(|error| match error {
        EndpointError::Options(source) => AttemptError::Options(source),
        EndpointError::Io(error) => AttemptError::Connect(error),
    })?;
    let mut local = endpoint.local_addr()?;
    if local.ip().is_unspecified()
        && let Some(ip) = source_ip(peer, options)
    {
        local.set_ip(ip);
    }
    let connecting = endpoint.connect_with(config, peer, SERVER_NAME).map_err(std::io::Error::other)?;
    Ok(Begun { connecting, local, meter, words })
}

/// Stands where TLS wants a server's name; neither sent nor verified. `.invalid` is never resolved (RFC 6761 §6.4).
const SERVER_NAME: &str = "longhaul.invalid";
