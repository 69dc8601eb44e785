//! What forwards and services counted, live: bytes are added when they move, not when a connection ends.

use std::sync::atomic::{AtomicU64, Ordering};

use super::datagrams::DatagramLoss;
use super::refusal::Refusal;

/// Counters of one forward or service since the start.
#[derive(Debug, Default)]
pub struct Counters {
    connections: AtomicU64,
    to_peer: AtomicU64,
    from_peer: AtomicU64,
    datagrams_to_peer: AtomicU64,
    datagrams_from_peer: AtomicU64,
    lost: [AtomicU64; DatagramLoss::ALL.len()],
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counters {
    /// Connections, or flows of datagrams, that got as far as a stream (of a forward) or a target (of a service), those
    /// that are open included. What a forward's peer refused is among them.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes that were read from local sockets, to be carried to peers.
    #[must_use]
    pub fn bytes_to_peer(&self) -> u64 {
        self.to_peer.load(Ordering::Relaxed)
    }

    /// Bytes from peers that local sockets took.
    #[must_use]
    pub fn bytes_from_peer(&self) -> u64 {
        self.from_peer.load(Ordering::Relaxed)
    }

    /// Datagrams that were read from local sockets and given to sessions.
    #[must_use]
    pub fn datagrams_to_peer(&self) -> u64 {
        self.datagrams_to_peer.load(Ordering::Relaxed)
    }

    /// Datagrams from peers that local sockets took.
    #[must_use]
    pub fn datagrams_from_peer(&self) -> u64 {
        self.datagrams_from_peer.load(Ordering::Relaxed)
    }

    /// Datagrams that were dropped here, by reason. What sessions drop is in their statistics
    /// ([`DatagramStats`](crate::node::DatagramStats)).
    #[must_use]
    pub fn datagrams_lost(&self, loss: DatagramLoss) -> u64 {
        self.lost[loss as usize].load(Ordering::Relaxed)
    }

    /// Connections that were not carried, by reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    pub(super) fn on_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn on_to_peer(&self, bytes: usize) {
        self.to_peer.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn on_from_peer(&self, bytes: usize) {
        self.from_peer.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn on_datagram_to_peer(&self, bytes: usize) {
        self.datagrams_to_peer.fetch_add(1, Ordering::Relaxed);
        self.on_to_peer(bytes);
    }

    pub(super) fn on_datagram_from_peer(&self, bytes: usize) {
        self.datagrams_from_peer.fetch_add(1, Ordering::Relaxed);
        self.on_from_peer(bytes);
    }

    pub(super) fn on_lost(&self, loss: DatagramLoss) {
        self.lost[loss as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn on_refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counters of requests that led to no service.
#[derive(Debug, Default)]
pub struct ServicesCounters {
    pub(super) unknown_service: AtomicU64,
    pub(super) bad_request: AtomicU64,
    pub(super) shutting_down: AtomicU64,
}

impl ServicesCounters {
    /// Requests for services that do not exist.
    #[must_use]
    pub fn unknown_service(&self) -> u64 {
        self.unknown_service.load(Ordering::Relaxed)
    }

    /// Streams that did not begin with a request, or not in time.
    #[must_use]
    pub fn bad_request(&self) -> u64 {
        self.bad_request.load(Ordering::Relaxed)
    }

    /// Streams that came after the node was told to stop.
    #[must_use]
    pub fn shutting_down(&self) -> u64 {
        self.shutting_down.load(Ordering::Relaxed)
    }
}
