//! The joining side: asks a hub for a certificate, with a token and a key of its own.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::hub_address;
use super::visit::read;
use crate::base::{Secret, limits};
use crate::channel::Address;
use crate::crypto::identity::{
    IdentityError, NodeId, PeerIdentity, VerifyFailure, enroll_client_config, issued_node, server_name,
};
use crate::crypto::token::{ENROLL_EXPORTER_LABEL, EnrollProof, JoinToken};
use crate::issue::{CertificateRequest, IssueError};
use crate::wire::{EnrollAnswer, EnrollRequest};

/// What is asked for, and of whom.
#[derive(Clone, Debug)]
pub struct Join<'a> {
    /// Host name or IP address of the enrolment point.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The token.
    pub token: &'a JoinToken,
    /// Name of the node; empty for the one that the token names.
    pub name: &'a str,
    /// The certificate request, DER. Asking again with the same one gives the same certificate.
    pub certificate_request: &'a [u8],
    /// The cryptography to use.
    pub provider: Arc<CryptoProvider>,
    /// What tells whether certificates hold now.
    pub time: Arc<dyn TimeProvider>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Who the node is now.
    pub node_id: NodeId,
    /// Who let it in.
    pub hub: NodeId,
    /// The node's certificate.
    pub certificate: CertificateDer<'static>,
    /// The trust anchor.
    pub authority: CertificateDer<'static>,
    /// Where the hub can be dialled.
    pub addresses: Vec<Address>,
}

/// Why a machine did not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nobody answers there.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        reason: io::Error,
    },
    /// Somebody answers, who is not the hub of this token, or does not let machines join.
    #[error("{address} is not the enrolment point of this token's hub: {reason}")]
    NotTheHub {
        /// Where.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The hub refused. It does not say why.
    #[error(
        "the hub refused the token: it may be expired, used up, revoked or locked, or be for another name or address; \
         the audit log of the hub says which"
    )]
    Refused,
    /// The hub cannot issue certificates at the moment.
    #[error("the hub cannot issue certificates now; its log says why; try again later with the same command")]
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

impl Join<'_> {
    /// Asks, and checks what comes: the certificate is for the key of the request, from the authority of the token, for
    /// the name that was asked for.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn run(&self) -> Result<Joined, JoinError> {
        let request = CertificateRequest::from_der(self.certificate_request)?;
        let mut stream = timeout(limits::ENROLL_TIMEOUT, self.reach()).await.unwrap_or_else(|elapsed| {
            Err(JoinError::Unreachable { address: self.address(), reason: elapsed.into() })
        })?;
        // Who answers may have to wait for its disk.
        let answer = timeout(2 * limits::ENROLL_TIMEOUT, self.ask(&mut stream, &request)).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(self.broken(elapsed.into())))?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let hub = PeerIdentity::from_chain(chain)?.node_id;
        let EnrollAnswer::Issued { certificate, authority, addresses } = answer else {
            return Err(if answer == EnrollAnswer::Unavailable { JoinError::Unavailable } else { JoinError::Refused });
        };
        let (certificate, authority) = (CertificateDer::from(certificate), CertificateDer::from(authority));
        let pin = self.token.authority_pin();
        let now = self.time.current_time().unwrap_or_else(UnixTime::now);
        let issued = issued_node(&certificate, &authority, pin, request.spki_sha256(), &self.provider, now);
        let node_id = issued.map_err(|failure| JoinError::BadAnswer { reason: failure.to_string() })?;
        let is_named = self.name.is_empty() || node_id.name() == self.name;
        if !is_named || node_id.trust_domain() != hub.trust_domain() {
            return Err(JoinError::BadAnswer { reason: format!("the certificate names {node_id}") });
        }
        let addresses = addresses.iter().filter_map(|text| self.seen_from_here(text)).collect();
        Ok(Joined { node_id, hub, certificate, authority, addresses })
    }

    /// Connects; once more when the connection ends in the handshake, as one to a busy or restarted hub does: nothing was
    /// asked yet.
    async fn reach(&self) -> Result<TlsStream<TcpStream>, JoinError> {
        match self.connect().await {
            Err(JoinError::Unreachable { reason, .. }) if is_end(&reason) => self.connect().await,
            other => other,
        }
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, JoinError> {
        let config =
            enroll_client_config(*self.token.authority_pin(), Arc::clone(&self.provider), Arc::clone(&self.time))?;
        let socket = hub_address::dial(self.host, self.port).await.map_err(|error| self.broken(error))?;
        let handshake = TlsConnector::from(config).connect(server_name(), socket).await;
        handshake.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                JoinError::NotTheHub { address: self.address(), reason: NOT_HERE.to_owned() }
            }
            Some(reason) => JoinError::NotTheHub { address: self.address(), reason: VerifyFailure::explain(reason) },
            None => self.broken(ended(error)),
        })
    }

    async fn ask(
        &self,
        stream: &mut TlsStream<TcpStream>,
        request: &CertificateRequest,
    ) -> Result<EnrollAnswer, JoinError> {
        let id = self.token.id();
        let context = id.to_string();
        let state = stream.get_ref().1;
        let exporter = state
            .export_keying_material([0; 32], ENROLL_EXPORTER_LABEL, Some(context.as_bytes()))
            .map(Secret::new)
            .map_err(|error| self.broken(io::Error::other(error)))?;
        let asked =
            EnrollProof { exporter: &exporter, token_id: id, request_sha256: request.sha256(), name: self.name };
        let message = EnrollRequest {
            token_id: *id.as_bytes(),
            name: self.name.to_owned(),
            certificate_request: self.certificate_request.to_vec(),
            proof: self.token.prove(&asked),
        };
        stream.write_all(&message.encode()).await.map_err(|error| self.broken(error))?;
        let answer = read(stream, limits::ENROLL_ANSWER_BYTES_MAX, EnrollAnswer::decode).await;
        answer.map_err(|error| self.broken(error))
    }

    /// The connection ended before the answer: the hub may have given one, so the same is to be asked again.
    fn broken(&self, reason: io::Error) -> JoinError {
        JoinError::Unreachable { address: self.address(), reason }
    }

    /// An address of the hub, with the host that it was reached by where it names none.
    fn seen_from_here(&self, text: &str) -> Option<Address> {
        let mut address: Address = text.parse().ok()?;
        match &mut address {
            Address::Tcp { host, .. } | Address::Tls { host, .. } | Address::Quic { host, .. } => {
                if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
                    self.host.clone_into(host);
                }
            }
            Address::Unix { .. } => return None,
        }
        Some(address)
    }

    fn address(&self) -> String {
        hub_address::text(self.host, self.port)
    }
}

/// What a listener of channels answers that takes no machines.
const NOT_HERE: &str = "machines do not join at this port; `[enroll]` of the hub says at which";

/// The end of a connection in the middle of its handshake says little by itself.
fn ended(error: io::Error) -> io::Error {
    if !is_end(&error) {
        return error;
    }
    let text = format!("it ended the handshake ({error}); machines may not be let in at this port, or not now");
    io::Error::new(error.kind(), text)
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
