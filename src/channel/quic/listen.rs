//! Accepting QUIC channels.
//!
//! Admission comes first, as for TCP. While many handshakes are pending, peers have to prove their address before
//! anything is kept for them (RFC 9000 §8.1.2). Handshakes are the business of the caller.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::select_all;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, ServerConfig};
use ring::hmac;
use rustls::quic::Suite;
use socket2::Socket;
use tokio::net::lookup_host;

use super::connection::QuicConnection;
use super::discreet::{Discreet, Words};
use super::early::QuicEarly;
use super::endpoint::{EndpointError, endpoint, endpoint_on_inherited};
use super::error::QuicError;
use super::observed::PathObserver;
use super::options::{QuicOptions, RetryPolicy};
use crate::base::TokenBucket;
use crate::channel::admission::Refusal;
use crate::channel::inherited::udp_at;
use crate::channel::path::PathMeter;
use crate::channel::{Address, Gate, GateCounters, ListenError, ListenOptions, Permit};

/// Accepts QUIC channels at one address.
#[derive(Debug)]
pub struct QuicListener {
    endpoints: Vec<Endpoint>,
    options: QuicOptions,
    gate: Gate,
    local: Address,
    log: TokenBucket,
}

/// A channel that was admitted, before its handshake.
#[derive(Debug)]
pub struct QuicAccepted {
    incoming: Incoming,
    options: QuicOptions,
    local: SocketAddr,
    /// Who is at the other end, as far as it says so itself.
    pub peer: SocketAddr,
    /// To be dropped when the handshake has finished.
    pub permit: Permit,
}

impl QuicListener {
    /// Listens at a `quic://` address, with a gate of its own. `reset_key` signs stateless resets.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub async fn bind(
        address: &Address,
        options: &ListenOptions,
        tls: Arc<rustls::ServerConfig>,
        initial: Suite,
        reset_key: hmac::Key,
    ) -> Result<Self, ListenError> {
        let Address::Quic { host, port } = address else {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the address is no quic:// one");
            return Err(ListenError::Bind { address: address.to_string(), source });
        };
        let bind_error = |source| ListenError::Bind { address: address.to_string(), source };
        let resolve_error = |source| ListenError::Resolve { address: address.to_string(), source };
        let candidates: Vec<_> = lookup_host((host.as_str(), *port)).await.map_err(resolve_error)?.collect();
        let (mut local, inherited) = place(&candidates).map_err(bind_error)?.ok_or_else(|| {
            resolve_error(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
        })?;
        let quic = options.quic.clone();
        // A socket at every address of the host gets datagrams over loopback too.
        let from = if local.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { local.ip() };
        let payload_bytes_max = quic.mtu_max(from);
        let (server, _) = server_config(tls, initial, &quic, local, None)
            .map_err(|error| bind_error(std::io::Error::other(error)))?;
        let failed = |error| match error {
            EndpointError::Io(source) => bind_error(source),
            EndpointError::Options(source) => ListenError::Options { address: address.to_string(), source },
        };
        let mut endpoints = Vec::new();
        // As many as the service manager bound, or as many as are wanted.
        let count = if inherited.is_empty() { quic.endpoint_count.max(1) } else { 0 };
        for socket in inherited {
            let made = endpoint_on_inherited(socket, payload_bytes_max, &quic, server.clone(), reset_key.clone());
            endpoints.push(made.map_err(failed)?);
        }
        for _ in 0..count {
            let made =
                endpoint(local, count > 1, payload_bytes_max, &quic, Some(server.clone()), Some(reset_key.clone()));
            let endpoint = made.map_err(failed)?;
            // Further sockets share the port that the first one got.
            local = endpoint.local_addr().map_err(bind_error)?;
            endpoints.push(endpoint);
        }
        Ok(Self {
            endpoints,
            options: quic,
            gate: Gate::new(options.admission.clone()),
            local: address.at(local),
            log: TokenBucket::new(LOG_PER_SECOND, LOG_BURST),
        })
    }

    /// The next channel that is admitted; `None` when the sockets have failed. Cancel safe.
    pub async fn accept(&mut self) -> Option<QuicAccepted> {
        loop {
            let accepting = self.endpoints.iter().map(|endpoint| Box::pin(endpoint.accept()));
            let (incoming, index, _) = select_all(accepting).await;
            let incoming = incoming?;
            if let Some(accepted) = self.admit(incoming, index) {
                return Some(accepted);
            }
        }
    }

    /// Where it listens; with the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.local
    }

    /// What was admitted and refused.
    #[must_use]
    pub fn counters(&self) -> &GateCounters {
        self.gate.counters()
    }

    /// The gate, to share it or to read its counters.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    fn admit(&mut self, incoming: Incoming, index: usize) -> Option<QuicAccepted> {
        let peer = incoming.remote_address();
        // First of all: who is asked to prove its address learns that somebody listens.
        if !self.gate.allows(Some(peer.ip())) {
            if self.log.take(Instant::now()) {
                tracing::warn!(address = %self.local, %peer, reason = %Refusal::Address, "connection refused");
            }
            incoming.ignore();
            return None;
        }
        let is_loaded = match self.options.retry {
            RetryPolicy::Always => true,
            RetryPolicy::Never => false,
            RetryPolicy::Auto => self.gate.pending() >= RETRY_PENDING_MIN,
        };
        if is_loaded && !incoming.remote_address_validated() && incoming.may_retry() {
            // Fails only where it was not allowed.
            let _ = incoming.retry();
            return None;
        }
        match self.gate.admit(Some(peer.ip()), Instant::now()) {
            Ok(permit) => {
                let local = self.endpoints[index].local_addr().ok()?;
                Some(QuicAccepted { incoming, options: self.options.clone(), local, peer, permit })
            }
            Err(reason) => {
                if self.log.take(Instant::now()) {
                    tracing::warn!(address = %self.local, %peer, %reason, "connection refused");
                }
                // An answer to an address that nobody has proved would go to whoever is named there.
                if incoming.remote_address_validated() {
                    incoming.refuse();
                } else {
                    incoming.ignore();
                }
                None
            }
        }
    }
}

impl Drop for QuicListener {
    /// Connections go on; new ones are refused.
    fn drop(&mut self) {
        self.endpoints.iter().for_each(|endpoint| endpoint.set_server_config(None));
    }
}

impl QuicAccepted {
    /// Runs the server's side of the handshake. The time for it is the caller's.
    ///
    /// # Errors
    ///
    /// See [`QuicError`].
    pub async fn handshake(
        self,
        tls: Arc<rustls::ServerConfig>,
        initial: Suite,
    ) -> Result<(QuicConnection, Permit), QuicError> {
        let meter = Arc::new(PathMeter::default());
        let observer = Some(Arc::clone(&meter) as _);
        let (config, words) = server_config(Arc::clone(&tls), initial, &self.options, self.peer, observer)?;
        let connecting =
            self.incoming.accept_with(Arc::new(config)).map_err(|error| QuicError::new(error, words.take()))?;
        let connection = connecting.await.map_err(|error| QuicError::new(error, words.take()))?;
        let connection = QuicConnection::new(connection, self.local, meter, &tls.crypto_provider().cipher_suites)?;
        Ok((connection, self.permit))
    }
}

impl QuicAccepted {
    /// Begins the server's side of the handshake: clients that resume may send data by then.
    ///
    /// # Errors
    ///
    /// See [`QuicError`].
    pub fn begin(self, tls: &Arc<rustls::ServerConfig>, initial: Suite) -> Result<(QuicEarly, Permit), QuicError> {
        let meter = Arc::new(PathMeter::default());
        let observer = Some(Arc::clone(&meter) as _);
        let (config, words) = server_config(Arc::clone(tls), initial, &self.options, self.peer, observer)?;
        let connecting =
            self.incoming.accept_with(Arc::new(config)).map_err(|error| QuicError::new(error, words.take()))?;
        // At this side it always can.
        let (connection, complete) = connecting
            .into_0rtt()
            .map_err(|_| QuicError::Settings { reason: "the handshake cannot be used early".to_owned() })?;
        let connection = QuicConnection::new(connection, self.local, meter, &tls.crypto_provider().cipher_suites)?;
        Ok((QuicEarly::new(connection, complete, words), self.permit))
    }
}

/// Where to listen, and what the service manager has bound there; `None` without any address.
fn place(candidates: &[SocketAddr]) -> std::io::Result<Option<(SocketAddr, Vec<Socket>)>> {
    for candidate in candidates {
        let sockets = udp_at(*candidate)?;
        if !sockets.is_empty() {
            return Ok(Some((*candidate, sockets)));
        }
    }
    Ok(candidates.first().map(|first| (*first, Vec::new())))
}

fn server_config(
    tls: Arc<rustls::ServerConfig>,
    initial: Suite,
    options: &QuicOptions,
    towards: SocketAddr,
    observer: Option<Arc<dyn PathObserver>>,
) -> Result<(ServerConfig, Words), QuicError> {
    let crypto = QuicServerConfig::with_initial(tls, initial)
        .map_err(|error| QuicError::Settings { reason: error.to_string() })?;
    let (crypto, words) = Discreet::new(crypto);
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(options.transport(towards.ip(), observer)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
    Ok((config, words))
}

/// Pending handshakes above which peers have to prove their address.
const RETRY_PENDING_MIN: u32 = 64;

/// First datagrams that wait for the accept loop (quinn: 65,536).
const INCOMING_MAX: usize = 1024;

/// Bytes that are kept of a peer that waits for the accept loop (quinn: 10 MiB). A first flight is a few datagrams.
const INCOMING_BUFFER_BYTES: u64 = 64 << 10;

/// The same, of all of them (quinn: 100 MiB).
const INCOMING_BUFFERS_BYTES: u64 = 8 << 20;

/// Log lines of one listener about what it did not accept.
const LOG_PER_SECOND: u32 = 1;

/// Burst of the rate above.
const LOG_BURST: u32 = 10;
