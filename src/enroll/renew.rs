//! The node that renews: asks its hub for a certificate of its next key, with its present one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::hub_address;
use super::visit::read;
use crate::base::limits;
use crate::crypto::identity::{
    ALPN_ENROLL, IdentityError, NodeId, PeerIdentity, PeerVerifier, TlsSettings, Trust, TrustAnchors, VerifyFailure,
    server_name,
};
use crate::issue::{CertificateRequest, IssueError};
use crate::wire::{RenewAnswer, RenewRequest, SignedDenylist};

/// What is asked for, and of whom.
#[derive(Clone, Debug)]
pub struct Renewal<'a> {
    /// Host name or IP address of the enrolment point.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The node that has to answer there.
    pub hub: &'a NodeId,
    /// Who this node is now, and whom it trusts.
    pub tls: &'a TlsSettings,
    /// The certificate request, DER, of a new key.
    pub certificate_request: &'a [u8],
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// The node's next certificate.
    pub certificate: CertificateDer<'static>,
    /// All trust anchors of the domain.
    pub anchors: TrustAnchors,
    /// A newer denylist, if there is one; not verified yet.
    pub denylist: Option<SignedDenylist>,
}

/// Why a node's certificate was not renewed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// Nobody answers there, or not to the end.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        reason: io::Error,
    },
    /// Somebody answers who is not the hub, or does not accept this node's certificate.
    #[error("{address} does not do as the hub of this node: {reason}")]
    NotTheHub {
        /// Where.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The hub refused. It does not say why.
    #[error(
        "the hub refused to renew the certificate: the node may be revoked, or its certificate not be from this hub; \
         the audit log of the hub says which"
    )]
    Refused,
    /// The hub cannot issue certificates at the moment.
    #[error("the hub cannot issue certificates now; its log says why")]
    Unavailable,
    /// The hub's answer is of no use.
    #[error("the hub's answer cannot be used: {reason}")]
    BadAnswer {
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate request is none.
    #[error(transparent)]
    Request(#[from] IssueError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] IdentityError),
}

impl Renewal<'_> {
    /// Asks, and checks what comes: the certificate is for the key of the request, for this node, and one that peers
    /// with the anchors that came with it accept now.
    ///
    /// # Errors
    /// See [`RenewError`].
    pub async fn run(&self) -> Result<Renewed, RenewError> {
        let request = CertificateRequest::from_der(self.certificate_request)?;
        let mut stream = timeout(limits::ENROLL_TIMEOUT, self.connect())
            .await
            .unwrap_or_else(|elapsed| Err(self.broken(elapsed.into())))?;
        // Who answers may have to wait for its disk.
        let answer = timeout(2 * limits::ENROLL_TIMEOUT, self.ask(&mut stream)).await;
        match answer.unwrap_or_else(|elapsed| Err(self.broken(elapsed.into())))? {
            RenewAnswer::Issued { certificate, anchors, denylist } => {
                self.check(&request, certificate, anchors, &denylist)
            }
            RenewAnswer::Refused => Err(RenewError::Refused),
            RenewAnswer::Unavailable => Err(RenewError::Unavailable),
        }
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, RenewError> {
        let socket = hub_address::dial(self.host, self.port).await.map_err(|error| self.broken(error))?;
        let config = self.tls.client_config(Some(self.hub), ALPN_ENROLL)?;
        let handshake = TlsConnector::from(config).connect(server_name(), socket).await;
        handshake.map_err(|error| self.explain(error))
    }

    async fn ask(&self, stream: &mut TlsStream<TcpStream>) -> Result<RenewAnswer, RenewError> {
        let domain = self.tls.identity().node_id().trust_domain().to_owned();
        let denylist_version = self.tls.trust().denylist(&domain).map_or(0, |denylist| denylist.version());
        let certificate_request = self.certificate_request.to_vec();
        let message = RenewRequest { certificate_request, denylist_version };
        // The hub verifies this node's certificate when the handshake is complete on this side: a refusal comes here.
        stream.write_all(&message.encode()).await.map_err(|error| self.explain(error))?;
        let answer = read(stream, limits::RENEW_ANSWER_BYTES_MAX, RenewAnswer::decode).await;
        answer.map_err(|error| self.explain(error))
    }

    fn check(
        &self,
        request: &CertificateRequest,
        certificate: Vec<u8>,
        anchors: Vec<Vec<u8>>,
        denylist: &[u8],
    ) -> Result<Renewed, RenewError> {
        let bad = |reason: String| RenewError::BadAnswer { reason };
        let own = self.tls.identity().node_id().clone();
        let certificate = CertificateDer::from(certificate);
        let peer = PeerIdentity::from_chain(std::slice::from_ref(&certificate))?;
        if peer.node_id != own || peer.spki_sha256 != *request.spki_sha256() {
            return Err(bad(format!("the certificate is for {}, or for another key", peer.node_id)));
        }
        let anchors = TrustAnchors::from_certificates(anchors.into_iter().map(CertificateDer::from).collect())?;
        let trust = Trust::new(own.trust_domain(), anchors.clone(), Arc::clone(self.tls.provider()))?;
        let now = self.tls.now_unix().map(|now| UnixTime::since_unix_epoch(Duration::from_secs(now)));
        let verified = PeerVerifier::new(Arc::new(trust), Some(own))
            .verify_chain(std::slice::from_ref(&certificate), now.unwrap_or_else(UnixTime::now));
        verified.map_err(|failure| bad(failure.to_string()))?;
        let denylist = match denylist {
            [] => None,
            bytes => SignedDenylist::decode(bytes).map_err(|error| bad(error.to_string()))?.map(|(list, _)| list),
        };
        Ok(Renewed { certificate, anchors, denylist })
    }

    fn explain(&self, error: io::Error) -> RenewError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => {
                let reason = format!("it does not accept the certificate of this node ({alert:?})");
                RenewError::NotTheHub { address: self.address(), reason }
            }
            Some(reason) => RenewError::NotTheHub { address: self.address(), reason: VerifyFailure::explain(reason) },
            None => self.broken(error),
        }
    }

    fn broken(&self, reason: io::Error) -> RenewError {
        RenewError::Unreachable { address: self.address(), reason }
    }

    fn address(&self) -> String {
        hub_address::text(self.host, self.port)
    }
}
