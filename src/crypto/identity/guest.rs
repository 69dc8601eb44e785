//! TLS for guests: the dialling side has a token in place of a certificate, and knows the peer by the token's pin; the
//! accepting side lets it do without one, and shows its authority.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::enroll::{PinnedAuthority, WithAuthority};
use super::tls::restrict_client;
use super::{Identity, IdentityError, KeyResolver, NodeId, PeerVerifier, TicketStore, TlsSettings, Trust};
use crate::base::Secret;
use crate::crypto::token::{GuestProof, JoinToken};
use crate::wire::GuestCredential;

/// What a guest has in place of a certificate. `Debug` shows no secret.
#[derive(Debug)]
pub struct GuestToken {
    token: JoinToken,
    name: String,
}

impl GuestToken {
    /// What it shows in the session with this exporter.
    #[must_use]
    pub fn credential(&self, exporter: &Secret<32>) -> GuestCredential {
        let proof = GuestProof { exporter, token_id: self.token.id(), name: &self.name };
        GuestCredential::new(self.token.id().as_bytes(), &self.token.prove_guest(&proof), &self.name)
    }
}

impl TlsSettings {
    /// Of a guest: it shows no certificate but proves `token`, and trusts the nodes of `trust_domain` under the token's
    /// authority. `name` is the one that it asks for, if the token is for several. It cannot be dialled.
    ///
    /// # Errors
    /// If the trust domain or the name is not valid.
    pub fn guest(
        token: JoinToken,
        trust_domain: &str,
        name: Option<&str>,
        provider: Arc<CryptoProvider>,
        time: Arc<dyn TimeProvider>,
    ) -> Result<Self, IdentityError> {
        let node_id = NodeId::guest(trust_domain, name.unwrap_or(super::GUEST))?;
        let name = name.unwrap_or_default().to_owned();
        let trust = Arc::new(Trust::nobody(Arc::clone(&provider)));
        let tickets = Arc::new(TicketStore::new(Arc::clone(&trust), Arc::clone(&time)));
        Ok(Self {
            resolver: Arc::new(KeyResolver::new(Identity::without_certificate(node_id))),
            trust,
            guest: Some(Arc::new(GuestToken { token, name })),
            provider,
            time,
            tickets,
            key_log: Arc::new(rustls::NoKeyLog {}),
        })
    }

    /// What is shown in place of a certificate, if it is a guest's.
    #[must_use]
    pub fn guest_token(&self) -> Option<&GuestToken> {
        self.guest.as_deref()
    }

    /// For an accepting side that takes guests: a trusted node, or somebody without any certificate. It shows `authority`,
    /// by which guests know it. No resumption: a ticket would let a guest in without a token.
    ///
    /// # Errors
    /// As [`TlsSettings::client_config`].
    pub fn guest_server_config(
        &self,
        alpn: &[u8],
        authority: CertificateDer<'static>,
    ) -> Result<Arc<ServerConfig>, IdentityError> {
        let verifier = PeerVerifier::new(Arc::clone(&self.trust), None).or_no_certificate();
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.time))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| IdentityError::Tls { reason: error.to_string() })?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(WithAuthority::new(Arc::clone(&self.resolver), authority)));
        config.key_log = Arc::clone(&self.key_log);
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    /// For a guest that dials `expected`.
    pub(super) fn guest_client_config(
        &self,
        guest: &GuestToken,
        expected: Option<&NodeId>,
        alpn: &[u8],
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let pin = *guest.token.authority_pin();
        let verifier = PinnedAuthority::new(pin, Arc::clone(&self.provider)).expecting(expected.cloned());
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.time))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| IdentityError::Tls { reason: error.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        restrict_client(&mut config, alpn);
        config.key_log = Arc::clone(&self.key_log);
        Ok(Arc::new(config))
    }
}
