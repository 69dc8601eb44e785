//! Hands the denylist on: to every peer when its session begins, and to all when a newer one comes from any of them.
//!
//! A list is signed by the authority, so that it counts from whomever it comes, and a node hands on what it would itself
//! take. That makes no storm: only what is newer is handed on.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::base::limits;
use crate::crypto::identity::{Denylist, DenylistError, NodeId};
use crate::node::{Node, RecvStream, Revoker, Session};
use crate::wire::{DENYLIST_SERVICE, ServiceRequest, SignedDenylist};

/// Who reads a peer's list has it.
type Turn = tokio::sync::Mutex<()>;

/// The denylists of a node. Clones are the same.
#[derive(Clone, Debug)]
pub struct Denylists {
    revoker: Revoker,
    own: NodeId,
    /// The version in effect.
    version: Arc<watch::Sender<u64>>,
    /// Peers whose list is on its way: of each one at a time, since it is held until it is complete.
    receiving: Arc<Mutex<HashMap<NodeId, Arc<Turn>>>>,
}

impl Denylists {
    /// Those of `node`.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        let (version, receiving) = (Arc::default(), Arc::default());
        let denylists = Self { revoker: node.revoker(), own: node.id(), version, receiving };
        denylists.version.send_replace(denylists.current().map_or(0, |list| list.version()));
        denylists
    }

    /// Puts a list into effect and hands it on, if it is newer than the one before: whether it was.
    ///
    /// # Errors
    /// If no trust anchor signed it.
    pub fn take(&self, signed: SignedDenylist) -> Result<bool, DenylistError> {
        let is_newer = self.revoker.deny(signed)?;
        if is_newer && let Some(list) = self.current() {
            tracing::info!(version = list.version(), denied = list.count(), "denylist in effect");
            self.version.send_replace(list.version());
        }
        Ok(is_newer)
    }

    /// The list in effect.
    #[must_use]
    pub fn current(&self) -> Option<Denylist> {
        self.revoker.trust().denylist(self.own.trust_domain())
    }

    /// Tells of every list that comes into effect, by its version.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Tells the peer of a session of the list and of all that come after it. Does not end.
    pub(super) async fn tell(&self, session: &Session) {
        let (mut changes, mut told) = (self.changes(), 0);
        if session.connected().await.is_ok() {
            loop {
                changes.borrow_and_update();
                if let Some(list) = self.current().filter(|list| list.version() > told) {
                    told = list.version();
                    if let Err(error) = push(session, &list).await {
                        tracing::debug!(peer = %session.peer().node_id, %error, "peer cannot be told of the denylist");
                    }
                }
                // The sender lives in `self`.
                if changes.changed().await.is_err() {
                    break;
                }
            }
        }
        pending::<()>().await;
    }

    fn turn_of(&self, peer: &NodeId) -> Arc<Turn> {
        let mut receiving = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        receiving.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(receiving.entry(peer.clone()).or_default())
    }

    /// Reads the list that a peer sends, of which `first` has come already.
    pub(super) async fn receive(&self, peer: &NodeId, recv: &mut RecvStream, first: Bytes) {
        let turn = self.turn_of(peer);
        let _turn = turn.lock().await;
        let outcome = match tokio::time::timeout(RECEIVE_TIMEOUT, read(recv, first)).await {
            Ok(Some(signed)) => self.take(signed).map(|_| ()).map_err(|error| error.to_string()),
            Ok(None) => Err("it is not complete, or none".to_owned()),
            Err(_) => Err("it did not come in time".to_owned()),
        };
        if let Err(reason) = outcome {
            tracing::warn!(%peer, reason, "denylist of a peer does not count");
        }
    }
}

async fn push(session: &Session, list: &Denylist) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut send, _recv) = session.open_bi().await?;
    let request = ServiceRequest { service: DENYLIST_SERVICE.to_owned(), ..ServiceRequest::default() };
    send.write_chunk(request.encode().into()).await?;
    send.write_chunk(list.signed().encode().into()).await?;
    send.finish()?;
    Ok(send.finished().await?)
}

async fn read(recv: &mut RecvStream, first: Bytes) -> Option<SignedDenylist> {
    let mut bytes = BytesMut::from(&first[..]);
    loop {
        if let Some((signed, _)) = SignedDenylist::decode(&bytes).ok()? {
            return Some(signed);
        }
        bytes.extend_from_slice(&recv.read_chunk(limits::CONTROL_MESSAGE_BYTES_MAX).await.ok()??);
    }
}

/// For a list of the largest size over a slow line.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(60);
