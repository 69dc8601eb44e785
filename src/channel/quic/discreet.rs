//! Keeps the words of a refused handshake here.
//!
//! quinn sends the text of TLS's error to the peer, which would tell a stranger whom we trust and expect. The TLS alert
//! says enough; the text is for our own log.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn::{ConnectError, ConnectionId, Side};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;

/// What TLS said, for whoever started the handshake.
#[derive(Clone, Default)]
pub(super) struct Words(Arc<Mutex<Option<String>>>);

impl Words {
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, words: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }
}

/// A configuration, the client's or the server's, for one handshake.
pub(super) struct Discreet<C> {
    inner: Arc<C>,
    words: Words,
}

impl<C> Discreet<C> {
    pub(super) fn new(inner: C) -> (Arc<Self>, Words) {
        let words = Words::default();
        (Arc::new(Self { inner: Arc::new(inner), words: words.clone() }), words)
    }

    fn session(&self, inner: Box<dyn Session>) -> Box<dyn Session> {
        Box::new(DiscreetSession { inner, words: self.words.clone() })
    }
}

impl ClientConfig for Discreet<QuicClientConfig> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = ClientConfig::start_session(Arc::clone(&self.inner), version, server_name, params)?;
        Ok(self.session(inner))
    }
}

impl ServerConfig for Discreet<QuicServerConfig> {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.inner.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.inner.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let inner = ServerConfig::start_session(Arc::clone(&self.inner), version, params);
        self.session(inner)
    }
}

struct DiscreetSession {
    inner: Box<dyn Session>,
    words: Words,
}

impl Session for DiscreetSession {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf).map_err(|error| {
            self.words.keep(error.reason);
            TransportError { reason: String::new(), ..error }
        })
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}
