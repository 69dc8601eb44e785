//! How much a node sends: in all, to each peer, over each link. Whatever is limited is limited at the sender.
//!
//! A session asks before it cuts a packet with data ([`SendLimit`]), and all three have to have room. What the node has in
//! all is divided between peers ([`FairShare`]), so that one with many sessions, channels or streams gets no more than
//! another. While there is no limit at all, a packet costs the look at one flag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::base::{Bandwidth, FairShare, Member, Pacer};
use crate::crypto::identity::NodeId;
use crate::session::{Held, LimitedBy, SendLimit};

/// How much a node sends, in data of streams and datagrams with their packets. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BandwidthLimits {
    /// To all peers together; divided evenly between those that have something to get.
    pub node: Option<Bandwidth>,
    /// To each peer, over all of its sessions, dialled and accepted.
    pub each_peer: Option<Bandwidth>,
    /// To single peers, in place of that.
    pub peers: HashMap<NodeId, Bandwidth>,
    /// Over the link to a peer: the sessions that this node dialled.
    pub links: HashMap<NodeId, Bandwidth>,
}

impl BandwidthLimits {
    /// What holds for a peer.
    #[must_use]
    pub fn of_peer(&self, peer: &NodeId) -> Option<Bandwidth> {
        self.peers.get(peer).copied().or(self.each_peer)
    }

    fn is_any(&self) -> bool {
        self.node.is_some() || self.each_peer.is_some() || !self.peers.is_empty() || !self.links.is_empty()
    }
}

/// The limits of a node, and what was used of them.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    is_any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limits: BandwidthLimits,
    node: Option<FairShare>,
    /// Those that have sessions.
    peers: HashMap<NodeId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    session_count: usize,
    member: Option<Member>,
    all: Option<Pacer>,
    link: Option<Pacer>,
}

impl Limiter {
    /// Keeps to other limits from now on, in all sessions.
    pub(super) fn set(&self, limits: BandwidthLimits) {
        let (mut state, now) = (self.lock(), Instant::now());
        let State { node, peers, .. } = &mut *state;
        match (limits.node, &mut *node) {
            (Some(bandwidth), Some(share)) => share.set_bandwidth(now, bandwidth),
            (Some(bandwidth), None) => {
                let share = node.insert(FairShare::new(bandwidth));
                peers.values_mut().for_each(|peer| peer.member = Some(share.add()));
            }
            (None, _) => {
                *node = None;
                peers.values_mut().for_each(|peer| peer.member = None);
            }
        }
        for (id, peer) in peers {
            follow(&mut peer.all, limits.of_peer(id), now);
            follow(&mut peer.link, limits.links.get(id).copied(), now);
        }
        self.is_any.store(limits.is_any(), Ordering::Release);
        state.limits = limits;
    }

    /// The limits that hold.
    pub(super) fn limits(&self) -> BandwidthLimits {
        self.lock().limits.clone()
    }

    /// What limits a session, as long as it lives.
    pub(super) fn session(self: &Arc<Self>, peer: &NodeId, is_dialled: bool) -> Arc<dyn SendLimit> {
        let mut state = self.lock();
        let State { limits, node, peers } = &mut *state;
        let entry = peers.entry(peer.clone()).or_insert_with(|| Peer {
            session_count: 0,
            member: node.as_mut().map(FairShare::add),
            all: limits.of_peer(peer).map(Pacer::new),
            link: limits.links.get(peer).copied().map(Pacer::new),
        });
        entry.session_count += 1;
        Arc::new(SessionLimit { limiter: Arc::clone(self), peer: peer.clone(), is_dialled })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers alone: whatever a panic left of them is corrected by time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what was used, if there was a limit before.
fn follow(pacer: &mut Option<Pacer>, bandwidth: Option<Bandwidth>, now: Instant) {
    match (pacer.as_mut(), bandwidth) {
        (Some(pacer), Some(bandwidth)) => pacer.set_bandwidth(now, bandwidth),
        (_, bandwidth) => *pacer = bandwidth.map(Pacer::new),
    }
}

/// What limits one session.
#[derive(Debug)]
struct SessionLimit {
    limiter: Arc<Limiter>,
    peer: NodeId,
    is_dialled: bool,
}

impl SendLimit for SessionLimit {
    fn ask(&self, now: Instant) -> Result<usize, Held> {
        if !self.limiter.is_any.load(Ordering::Acquire) {
            return Ok(usize::MAX);
        }
        let mut state = self.limiter.lock();
        let State { node, peers, .. } = &mut *state;
        let Some(peer) = peers.get_mut(&self.peer) else { return Ok(usize::MAX) };
        let mut bytes = usize::MAX;
        // The node's last: whoever is held up by the others does not ask for a share.
        if let Some(link) = peer.link.as_mut().filter(|_| self.is_dialled) {
            bytes = bytes.min(link.ask(now).map_err(|until| Held { until, by: LimitedBy::Link })?);
        }
        if let Some(all) = &mut peer.all {
            bytes = bytes.min(all.ask(now).map_err(|until| Held { until, by: LimitedBy::Peer })?);
        }
        if let (Some(share), Some(member)) = (node, peer.member) {
            bytes = bytes.min(share.ask(now, member).map_err(|until| Held { until, by: LimitedBy::Node })?);
        }
        Ok(bytes)
    }

    fn spend(&self, now: Instant, bytes: i64) {
        if !self.limiter.is_any.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.limiter.lock();
        let State { node, peers, .. } = &mut *state;
        let Some(peer) = peers.get_mut(&self.peer) else { return };
        if let Some(link) = peer.link.as_mut().filter(|_| self.is_dialled) {
            link.spend(now, bytes);
        }
        if let Some(all) = &mut peer.all {
            all.spend(now, bytes);
        }
        if let (Some(share), Some(member)) = (node, peer.member) {
            share.spend(now, member, bytes);
        }
    }
}

impl Drop for SessionLimit {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        let State { node, peers, .. } = &mut *state;
        let Some(peer) = peers.get_mut(&self.peer) else { return };
        peer.session_count -= 1;
        if peer.session_count == 0 {
            if let (Some(share), Some(member)) = (node, peer.member) {
                share.remove(member);
            }
            peers.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> NodeId {
        NodeId::new("example.org", name).unwrap()
    }

    fn limiter(limits: BandwidthLimits) -> Arc<Limiter> {
        let limiter = Arc::new(Limiter::default());
        limiter.set(limits);
        limiter
    }

    const MEGABYTE: i64 = 1_000_000;

    fn megabyte() -> Option<Bandwidth> {
        Some(Bandwidth::from_bytes_per_second(1_000_000))
    }

    fn held_by(limit: &Arc<dyn SendLimit>, now: Instant) -> Option<LimitedBy> {
        limit.ask(now).err().map(|held| held.by)
    }

    #[test]
    fn sessions_of_one_peer_share_its_limit_and_others_have_theirs() {
        let limiter = limiter(BandwidthLimits { each_peer: megabyte(), ..BandwidthLimits::default() });
        let now = Instant::now();
        let [dialled, accepted] = [true, false].map(|is_dialled| limiter.session(&peer("a"), is_dialled));
        let other = limiter.session(&peer("b"), false);
        dialled.spend(now, MEGABYTE);
        assert_eq!(held_by(&accepted, now), Some(LimitedBy::Peer));
        assert_eq!(held_by(&other, now), None);
    }

    #[test]
    fn a_links_limit_is_that_of_dialled_sessions_and_outlives_each() {
        let links = HashMap::from([(peer("a"), Bandwidth::from_bytes_per_second(1_000_000))]);
        let limiter = limiter(BandwidthLimits { links, ..BandwidthLimits::default() });
        let now = Instant::now();
        let [dialled, accepted] = [true, false].map(|is_dialled| limiter.session(&peer("a"), is_dialled));
        dialled.spend(now, MEGABYTE);
        assert_eq!((held_by(&dialled, now), held_by(&accepted, now)), (Some(LimitedBy::Link), None));
        drop(dialled);
        let next = limiter.session(&peer("a"), true);
        assert_eq!(held_by(&next, now), Some(LimitedBy::Link), "a session that follows inherits what was used");
    }

    #[test]
    fn a_peer_may_have_a_limit_of_its_own() {
        let peers = HashMap::from([(peer("a"), Bandwidth::from_bytes_per_second(100_000_000))]);
        let limits = BandwidthLimits { each_peer: megabyte(), peers, ..BandwidthLimits::default() };
        let limiter = limiter(limits);
        let now = Instant::now();
        let (fast, slow) = (limiter.session(&peer("a"), false), limiter.session(&peer("b"), false));
        for limit in [&fast, &slow] {
            limit.spend(now, MEGABYTE);
        }
        assert_eq!((held_by(&fast, now), held_by(&slow, now)), (None, Some(LimitedBy::Peer)));
    }

    #[test]
    fn limits_change_and_go_while_sessions_live() {
        let limiter = Arc::new(Limiter::default());
        let (session, now) = (limiter.session(&peer("a"), true), Instant::now());
        session.spend(now, MEGABYTE);
        assert_eq!(session.ask(now), Ok(usize::MAX));
        limiter.set(BandwidthLimits { node: megabyte(), ..BandwidthLimits::default() });
        session.spend(now, MEGABYTE);
        assert_eq!(held_by(&session, now), Some(LimitedBy::Node));
        limiter.set(BandwidthLimits::default());
        assert_eq!(session.ask(now), Ok(usize::MAX));
        drop(session);
        assert!(limiter.lock().peers.is_empty(), "nothing is kept of peers without a session");
    }
}
