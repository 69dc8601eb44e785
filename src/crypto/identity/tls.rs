//! rustls configurations of a node: TLS 1.3 only, both sides authenticated; with and without tickets.
//!
//! The same configurations serve `rustls::quic` (sessions on raw channels), quinn and tokio-rustls; the ALPN keeps
//! their handshakes apart, since one key signs in all of them.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, KeyLog, NoKeyLog, ServerConfig};

use super::enroll::WithAuthority;
use super::{
    ClientTickets, ExchangeError, GuestToken, Identity, IdentityError, KeyResolver, NodeId, PeerVerifier, TicketStore,
    Trust, TrustAnchors, VerifyFailure,
};
use crate::base::limits;

/// ALPN of a session's handshake on raw channels.
pub const ALPN_SESSION: &[u8] = b"longhaul/1";

/// ALPN of the outer handshake of `tls://` channels.
pub const ALPN_TLS: &[u8] = b"longhaul-tls/1";

/// ALPN of the outer handshake of `quic://` channels.
pub const ALPN_QUIC: &[u8] = b"longhaul-quic/1";

/// ALPN of enrolment.
pub const ALPN_ENROLL: &[u8] = b"longhaul-enroll/1";

/// The server name that rustls asks every client for. It is neither sent nor verified.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::DnsName(DnsName::try_from("longhaul.invalid").expect("a constant that is a DNS name"))
}

/// What the TLS configurations of a node are made of. Cheap to clone; clones share identity and trust, so that a
/// renewal through one reaches all configurations made from any.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub(super) resolver: Arc<KeyResolver>,
    pub(super) trust: Arc<Trust>,
    /// What a guest has in place of a certificate.
    pub(super) guest: Option<Arc<GuestToken>>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) time: Arc<dyn TimeProvider>,
    pub(super) tickets: Arc<TicketStore>,
    pub(super) key_log: Arc<dyn KeyLog>,
}

/// What a client resumes with: a configuration, and the tickets that it uses.
#[derive(Clone, Debug)]
pub struct ResumingClient {
    /// Tickets are bound to this one.
    pub config: Arc<ClientConfig>,
    /// What servers have given.
    pub tickets: Arc<ClientTickets>,
}

impl TlsSettings {
    /// Presents `identity`, and trusts nodes of its trust domain that `anchors` name.
    ///
    /// # Errors
    /// If rustls refuses the anchors.
    pub fn new(
        identity: Identity,
        anchors: TrustAnchors,
        provider: Arc<CryptoProvider>,
        time: Arc<dyn TimeProvider>,
    ) -> Result<Self, IdentityError> {
        let trust = Trust::new(identity.node_id().trust_domain(), anchors, Arc::clone(&provider))?;
        let trust = Arc::new(trust);
        let tickets = Arc::new(TicketStore::new(Arc::clone(&trust), Arc::clone(&time)));
        let (resolver, key_log) = (Arc::new(KeyResolver::new(identity)), Arc::new(NoKeyLog {}));
        Ok(Self { resolver, trust, guest: None, provider, time, tickets, key_log })
    }

    /// The same, with everything that opens recorded packets told to a key log ([`crypto::key_log`](crate::crypto::key_log)):
    /// whoever reads that reads what the sessions carry. Enrolment is not told.
    #[must_use]
    pub fn with_key_log(self, key_log: Arc<dyn KeyLog>) -> Self {
        Self { key_log, ..self }
    }

    /// What is told of keys; nothing unless [`with_key_log`](Self::with_key_log) was used.
    #[must_use]
    pub fn key_log(&self) -> &dyn KeyLog {
        &*self.key_log
    }

    /// The identity in use.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.resolver.identity()
    }

    /// The trusted domains, to add one or to replace anchors.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The tickets that this node has given to its clients; shared by clones.
    #[must_use]
    pub fn tickets(&self) -> &Arc<TicketStore> {
        &self.tickets
    }

    /// The time in use, in seconds since 1970; `None` without a clock.
    #[must_use]
    pub fn now_unix(&self) -> Option<u64> {
        self.time.current_time().map(|now| now.as_secs())
    }

    /// How long the own certificate, and one that ends at `not_after_unix`, still hold; nothing without a clock.
    #[must_use]
    pub fn life_of(&self, not_after_unix: u64) -> Duration {
        let end = not_after_unix.min(self.identity().not_after_unix());
        Duration::from_secs(self.now_unix().map_or(0, |now| end.saturating_sub(now)))
    }

    /// The cryptography in use.
    #[must_use]
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Presents a renewed identity in all later handshakes, of existing configurations too.
    ///
    /// # Errors
    /// If it names another node.
    pub fn replace_identity(&self, identity: Identity) -> Result<(), IdentityError> {
        self.resolver.replace(identity)
    }

    /// Goes on with another identity and other anchors, in all later handshakes. What is established stays.
    ///
    /// # Errors
    /// If the identity names another node, rustls refuses the anchors, or peers with these anchors would refuse the
    /// identity now: then nothing changes.
    pub fn exchange(&self, identity: Identity, anchors: TrustAnchors) -> Result<(), ExchangeError> {
        let domain = identity.node_id().trust_domain().to_owned();
        let now = self.time.current_time().ok_or(VerifyFailure::Other { reason: "the time is unknown".to_owned() })?;
        let trust = Trust::new(&domain, anchors.clone(), Arc::clone(&self.provider))?;
        PeerVerifier::new(Arc::new(trust), None).verify_chain(identity.chain(), now)?;
        self.resolver.replace(identity)?;
        Ok(self.trust.set(&domain, anchors)?)
    }

    /// Whether peers with the same anchors would accept the own certificate now.
    ///
    /// # Errors
    /// The reason for which they would refuse it; [`VerifyFailure::Other`] without a clock.
    pub fn check_own_chain(&self) -> Result<(), VerifyFailure> {
        let now = self.time.current_time().ok_or(VerifyFailure::Other { reason: "the time is unknown".to_owned() })?;
        PeerVerifier::new(Arc::clone(&self.trust), None).verify_chain(self.identity().chain(), now).map(|_| ())
    }

    /// For the dialling side, without tickets.
    ///
    /// `expected` is the node that has to answer; without it any trusted node may.
    ///
    /// # Errors
    /// If rustls refuses the provider, which then lacks our suites or key exchanges.
    pub fn client_config(&self, expected: Option<&NodeId>, alpn: &[u8]) -> Result<Arc<ClientConfig>, IdentityError> {
        if let Some(guest) = &self.guest {
            return self.guest_client_config(guest, expected, alpn);
        }
        self.client_config_with(PeerVerifier::new(Arc::clone(&self.trust), expected.cloned()), alpn).map(Arc::new)
    }

    /// For the dialling side, with tickets for the node that has to answer. Keep it as long as the peer is dialled: tickets
    /// are bound to it. With `early_data` the client may send some when it resumes. A guest gets none and shows its token each
    /// time.
    ///
    /// # Errors
    /// As [`TlsSettings::client_config`].
    pub fn resuming_client(
        &self,
        expected: &NodeId,
        alpn: &[u8],
        early_data: bool,
    ) -> Result<ResumingClient, IdentityError> {
        let (trust, resolver) = (Arc::clone(&self.trust), Arc::clone(&self.resolver));
        let tickets = Arc::new(ClientTickets::new(trust, resolver, Arc::clone(&self.time)));
        if let Some(guest) = &self.guest {
            return Ok(ResumingClient { config: self.guest_client_config(guest, Some(expected), alpn)?, tickets });
        }
        let verifier = PeerVerifier::new(Arc::clone(&self.trust), Some(expected.clone()));
        let mut config = self.client_config_with(verifier.with_witness(tickets.clone()), alpn)?;
        config.resumption = Resumption::store(tickets.clone());
        config.enable_early_data = early_data;
        Ok(ResumingClient { config: Arc::new(config), tickets })
    }

    fn client_config_with(&self, verifier: PeerVerifier, alpn: &[u8]) -> Result<ClientConfig, IdentityError> {
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.time))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| IdentityError::Tls { reason: error.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.resolver.clone());
        restrict_client(&mut config, alpn);
        config.key_log = Arc::clone(&self.key_log);
        Ok(config)
    }

    /// For the accepting side, without tickets: any trusted node may dial.
    ///
    /// # Errors
    /// As [`TlsSettings::client_config`].
    pub fn server_config(&self, alpn: &[u8]) -> Result<Arc<ServerConfig>, IdentityError> {
        self.server_config_with(PeerVerifier::new(Arc::clone(&self.trust), None), alpn).map(Arc::new)
    }

    /// For one connection of the accepting side: the client may resume with a ticket of
    /// [`tickets`](Self::tickets), and gets some. With `early_data` it may send some.
    ///
    /// # Errors
    /// As [`TlsSettings::client_config`].
    pub fn resuming_server_config(&self, alpn: &[u8], early_data: bool) -> Result<Arc<ServerConfig>, IdentityError> {
        let tickets = self.tickets.for_connection();
        let verifier = PeerVerifier::new(Arc::clone(&self.trust), None);
        let mut config = self.server_config_with(verifier.with_witness(tickets.clone()), alpn)?;
        config.session_storage = tickets;
        config.send_tls13_tickets = limits::TICKETS_PER_HANDSHAKE as usize;
        // The one value that QUIC allows; what may come is bounded above TLS.
        config.max_early_data_size = if early_data { u32::MAX } else { 0 };
        Ok(Arc::new(config))
    }

    fn server_config_with(&self, verifier: PeerVerifier, alpn: &[u8]) -> Result<ServerConfig, IdentityError> {
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.time))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| IdentityError::Tls { reason: error.to_string() })?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(self.resolver.clone());
        config.key_log = Arc::clone(&self.key_log);
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// For an enrolment point: whoever joins has no certificate yet, and finds the authority in the chain; whoever renews
    /// shows the one that it has, which is verified as for a session.
    ///
    /// # Errors
    /// As [`TlsSettings::client_config`].
    pub fn enroll_server_config(&self, authority: CertificateDer<'static>) -> Result<Arc<ServerConfig>, IdentityError> {
        let verifier = PeerVerifier::new(Arc::clone(&self.trust), None).or_no_certificate();
        let resolver = WithAuthority::new(Arc::clone(&self.resolver), authority);
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.time))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| IdentityError::Tls { reason: error.to_string() })?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN_ENROLL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

/// What all dialling sides have in common.
pub(super) fn restrict_client(config: &mut ClientConfig, alpn: &[u8]) {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
}
