//! Peers without a certificate: they prove a token in the session's first packet, before the session exists for anybody.
//!
//! Until the proof is accepted nothing runs for them but this: no task, no timer, no entry in the node's list, so that no
//! channel can join and no stream begin. How long it may take is bounded by the handshake's time.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rustls::pki_types::CertificateDer;

use super::error::ConnectError;
use super::messages::MessageReader;
use crate::base::{CloseCode, LaneId, Secret};
use crate::channel::WriteHalf;
use crate::crypto::LaneOpener;
use crate::crypto::identity::PeerIdentity;
use crate::crypto::token::{PROOF_BYTES, TokenId};
use crate::session::{EstablishError, Event, LaneKind, Protection, Session};
use crate::wire::{Body, GuestCredential, WireError, decode_packet};

/// Judges the tokens of guests. Shared by all listeners of a node that take them.
pub trait GuestAdmission: Debug + Send + Sync {
    /// The authority of the tokens, which is shown to guests: they know it by its key.
    fn authority(&self) -> CertificateDer<'static>;

    /// Whether a guest is let in, and as whom: [`PeerIdentity::is_guest`] has to hold. May block.
    ///
    /// # Errors
    /// [`GuestRefusal`]: the guest is told no more than that.
    fn admit(&self, visit: &GuestVisit<'_>) -> Result<PeerIdentity, GuestRefusal>;
}

/// A guest at the door.
#[derive(Clone, Copy, Debug)]
pub struct GuestVisit<'a> {
    /// The token that it names.
    pub token_id: TokenId,
    /// The name that it asks for; empty for the token's own.
    pub name: &'a str,
    /// The token's proof, over the three others.
    pub proof: &'a [u8; PROOF_BYTES],
    /// What the session's handshake gave for the proof.
    pub exporter: &'a Secret<32>,
    /// Where it comes from; `None` for a Unix socket.
    pub address: Option<IpAddr>,
}

/// Why a guest is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestRefusal {
    /// It may not come in.
    #[error("the token is not accepted")]
    Refused,
    /// Nobody can say so now: it may try again.
    #[error("tokens cannot be judged now")]
    Unavailable,
}

/// A session whose client has no certificate, with the channel that it came over.
pub(super) struct Door<'a> {
    pub(super) session: &'a mut Session,
    pub(super) reader: &'a mut MessageReader,
    pub(super) writer: &'a mut WriteHalf,
    pub(super) kind: LaneKind,
    pub(super) address: Option<IpAddr>,
}

impl Door<'_> {
    /// Waits for the proof and has it judged: who the guest is. Its session is connected then.
    pub(super) async fn ask(mut self, admission: &Arc<dyn GuestAdmission>) -> Result<PeerIdentity, ConnectError> {
        let outcome = match self.credential().await {
            Ok(credential) => self.judge(admission, credential).await,
            Err(error) => {
                // What closes a session that breaks the protocol is in it already.
                self.close(CloseCode::PROTOCOL_VIOLATION).await;
                return Err(error);
            }
        };
        match outcome {
            Ok(identity) => {
                self.session.accept_guest();
                Ok(identity)
            }
            Err(refusal) => {
                self.close(match refusal {
                    GuestRefusal::Refused => CloseCode::GUEST_REFUSED,
                    GuestRefusal::Unavailable => CloseCode::INTERNAL_ERROR,
                })
                .await;
                Err(ConnectError::GuestRefused)
            }
        }
    }

    async fn credential(&mut self) -> Result<GuestCredential, ConnectError> {
        let mut opener = LaneOpener::new(LaneId::FIRST, self.session.opening_keys());
        let mut frames = Vec::new();
        loop {
            let (message, size) = self.reader.next().await.map_err(std::io::Error::from)?;
            let head = message.head;
            let (content, is_sealed) = match message.body {
                Body::Sealed(sealed) => (opener.open(&head, sealed).map_err(EstablishError::from)?, true),
                Body::Plain(content) if self.kind.protection() == Protection::Channel => {
                    opener.accept_plain(&head).map_err(EstablishError::from)?;
                    (content, false)
                }
                _ => return Err(EstablishError::Wire(WireError::Missing("guest")).into()),
            };
            decode_packet(&content, &mut frames).map_err(EstablishError::from)?;
            self.session.handle_packet(Instant::now(), &head, is_sealed, &mut frames, size);
            while let Some(event) = self.session.poll_event() {
                match event {
                    Event::GuestProof(credential) => return Ok(credential),
                    Event::Closed(reason) => return Err(ConnectError::Closed(reason)),
                    _ => {}
                }
            }
            if let Some(reason) = self.session.close_reason() {
                return Err(ConnectError::Closed(reason.clone()));
            }
        }
    }

    async fn judge(
        &mut self,
        admission: &Arc<dyn GuestAdmission>,
        credential: GuestCredential,
    ) -> Result<PeerIdentity, GuestRefusal> {
        let exporter = self.session.guest_exporter().ok_or(GuestRefusal::Refused)?.clone();
        let admission = Arc::clone(admission);
        let address = self.address;
        let judging = tokio::task::spawn_blocking(move || {
            let token_id = TokenId::from_bytes(credential.token_id());
            let proof = &credential.proof();
            let visit = GuestVisit { token_id, name: credential.name(), proof, exporter: &exporter, address };
            admission.admit(&visit)
        });
        let identity = judging.await.map_err(|_| GuestRefusal::Unavailable)??;
        if identity.is_guest() { Ok(identity) } else { Err(GuestRefusal::Refused) }
    }

    /// Tells the client that its session is over.
    async fn close(&mut self, code: CloseCode) {
        self.session.refuse_guest(code, Instant::now());
        let mut message = BytesMut::new();
        if let Some(packet) = self.session.poll_transmit(Instant::now(), LaneId::FIRST)
            && packet.encode(&mut message).is_ok()
        {
            // A client that is gone cannot be told, and does not have to be.
            let _ = self.writer.write_all(&message).await;
            let _ = self.writer.shutdown().await;
        }
    }
}
