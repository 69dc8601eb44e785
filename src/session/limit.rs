//! Keeps what the session sends below a bandwidth: which is somebody else's to know, here is only asked.
//!
//! Stream data and datagrams are limited. Acknowledgements, pings, credits, key updates, opens and resets pass at once:
//! they are small, and what they say makes room elsewhere. While the limit holds, data stays where it is, in its order of
//! priorities; packets under a limit are short, so that what is urgent waits for no more than one of them. Without a
//! limit, none of this costs more than the question whether there is one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::Session;
use crate::base::limits;
use crate::wire::Frame;

/// Whose limit holds data up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitedBy {
    /// That of the link.
    Link,
    /// That of the peer, over all of its sessions.
    Peer,
    /// That of the node, which its peers share.
    Node,
}

impl LimitedBy {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Link, Self::Peer, Self::Node];

    /// The word for it in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Peer => "peer",
            Self::Node => "node",
        }
    }
}

/// Data may not be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// When to ask again.
    pub until: Instant,
    /// Whose limit it is.
    pub by: LimitedBy,
}

/// Says when data may be sent. Sessions that share a limit share one of these, or parts of it.
pub trait SendLimit: Send + Sync + fmt::Debug {
    /// How many bytes of data the next packet may carry; [`usize::MAX`] without a limit.
    ///
    /// # Errors
    /// [`Held`] when there may be none now.
    fn ask(&self, now: Instant) -> Result<usize, Held>;

    /// Counts a packet that carries data, or gives back what was counted too much.
    fn spend(&self, now: Instant, bytes: i64);
}

/// What a session knows of its limit.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    limit: Option<Arc<dyn SendLimit>>,
    held: Option<(Held, Instant)>,
    /// Data that a packet may carry, as was said last.
    packet_bytes: usize,
    /// By how much datagrams are ahead of streams, in bytes; a packet at most in either direction.
    balance: i64,
    /// Until when lanes leave it to carriers to send what is theirs.
    put_off: Option<Instant>,
    totals: [Duration; LimitedBy::ALL.len()],
}

impl Throttle {
    /// Whether data waits for the limit.
    pub(super) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Whether lanes may not send data, for that or because it is the turn of carriers.
    pub(super) fn holds_lanes(&self) -> bool {
        self.held.is_some() || self.put_off.is_some()
    }

    /// When data need not wait any more.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held.map(|(held, _)| held.until).into_iter().chain(self.put_off).min()
    }

    /// How long data waited, by limit.
    pub(super) fn totals(&self) -> [Duration; LimitedBy::ALL.len()] {
        self.totals
    }

    /// Ends the wait, if it is over. Returns whether it has just ended.
    fn release(&mut self, now: Instant) -> bool {
        let Some((held, since)) = self.held.take_if(|(held, _)| held.until <= now) else { return false };
        self.totals[held.by as usize] += now.saturating_duration_since(since);
        true
    }

    /// Notes what went out, to know whose turn it is.
    fn weigh(&mut self, datagram_bytes: usize, stream_bytes: usize) {
        let most = self.packet_bytes as i64;
        self.balance = (self.balance + datagram_bytes as i64 - stream_bytes as i64).clamp(-most, most);
    }

    /// Whether anything is limited, as was said last.
    fn is_limited(&self) -> bool {
        self.limit.is_some() && self.packet_bytes < usize::MAX
    }

    /// Whether datagrams are ahead, so that it is the turn of streams that have something to send.
    pub(super) fn is_turn_of_streams(&self) -> bool {
        self.is_limited() && self.balance > 0
    }

    fn is_turn_of_datagrams(&self) -> bool {
        self.is_limited() && self.balance < 0
    }

    /// How much data a packet may carry now.
    fn ask(&mut self, now: Instant) -> usize {
        let Some(limit) = &self.limit else { return usize::MAX };
        if self.held.is_some() {
            return 0;
        }
        match limit.ask(now) {
            Ok(bytes) => {
                self.packet_bytes = bytes;
                bytes
            }
            Err(held) => {
                debug_assert!(held.until > now, "asked again at once this would go round in circles");
                self.held = Some((held, now));
                0
            }
        }
    }
}

impl Session {
    /// Sets what limits the data that this side sends.
    pub fn set_send_limit(&mut self, limit: Arc<dyn SendLimit>) {
        self.throttle.limit = Some(limit);
    }

    /// How much data a packet of a lane may carry now.
    pub(super) fn ask_limit(&mut self, now: Instant) -> usize {
        if self.throttle.limit.is_none() {
            return usize::MAX;
        }
        self.end_holding(now);
        if !self.streams.has_ready() && !self.has_datagrams_for_lanes() {
            return usize::MAX;
        }
        let allowed = self.throttle.ask(now);
        if allowed > 0 && self.throttle.is_turn_of_datagrams() && self.has_datagrams_for_carriers() {
            // A carrier that sends its part wakes lanes. Until then it may be at work elsewhere, but not for long.
            self.throttle.put_off.get_or_insert(now + CARRIER_TURN);
            self.wake_carriers();
        }
        if self.throttle.put_off.is_some() { 0 } else { allowed }
    }

    /// Whether a packet of a carrier may leave now. Where both wait for a limit, datagrams and streams have as much of it:
    /// whichever asks first would leave nothing to the other.
    pub(super) fn ask_limit_for_carrier(&mut self, now: Instant) -> bool {
        if self.throttle.limit.is_none() {
            return true;
        }
        self.end_holding(now);
        if !self.streams.has_datagrams() || self.throttle.ask(now) == 0 {
            return false;
        }
        let has_had_its_part = self.throttle.is_turn_of_streams() && self.streams.has_ready();
        !(has_had_its_part && self.lanes.iter().any(|lane| lane.is_waiting && self.is_carrying(lane)))
    }

    /// A packet of a lane was cut, and makes a message of `bytes`. It counts if it carries data.
    pub(super) fn count_packet(&mut self, now: Instant, frames: &[Frame], bytes: usize) {
        if !self.throttle.is_limited() {
            return;
        }
        let (mut of_datagrams, mut of_streams) = (0, 0);
        for frame in frames {
            match frame {
                Frame::Datagram(_) => of_datagrams += frame.encoded_len(),
                Frame::Stream(_) => of_streams += frame.encoded_len(),
                _ => {}
            }
        }
        if of_datagrams + of_streams == 0 {
            return;
        }
        self.spend(now, bytes);
        self.throttle.weigh(of_datagrams, of_streams);
        self.wake_carriers();
    }

    /// The same of a carrier.
    pub(super) fn count_carrier_packet(&mut self, now: Instant, bytes: usize) {
        if self.throttle.is_limited() {
            self.spend(now, bytes);
            self.throttle.weigh(bytes, 0);
            self.throttle.put_off = None;
        }
    }

    /// Lets data go on when it has waited long enough.
    pub(super) fn end_holding(&mut self, now: Instant) {
        if self.throttle.put_off.take_if(|at| *at <= now).is_some() {
            self.throttle.balance = 0;
        }
        if self.throttle.release(now) {
            self.wake_carriers();
        }
    }

    fn spend(&mut self, now: Instant, bytes: usize) {
        if let Some(limit) = &self.throttle.limit {
            limit.spend(now, bytes as i64);
        }
    }
}

/// How long lanes leave a limit to carriers that were woken: a task that is ready runs within this on a busy machine.
const CARRIER_TURN: Duration = Duration::from_millis(5);

const _: () = assert!(limits::PACED_PACKET_BYTES_MIN >= super::transmit::PACKET_BYTES_MIN);
