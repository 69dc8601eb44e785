//! Stream ids: which ones we may open, and which ones the peer may open.

use crate::base::{Direction, Side, StreamId};

/// The streams of one direction that this side opens.
#[derive(Clone, Debug)]
pub struct LocalIds {
    side: Side,
    direction: Direction,
    next: u64,
    maximum: u64,
    blocked_at: Option<u64>,
}

impl LocalIds {
    /// No stream opened, and as many allowed as the peer's parameters say.
    #[must_use]
    pub fn new(side: Side, direction: Direction, maximum: u64) -> Self {
        Self { side, direction, next: 0, maximum, blocked_at: None }
    }

    /// The next id, if the peer allows one more.
    pub fn open(&mut self) -> Option<StreamId> {
        (self.next < self.maximum).then(|| {
            self.next += 1;
            StreamId::new(self.side, self.direction, self.next - 1)
        })
    }

    /// Whether a stream was opened.
    #[must_use]
    pub fn was_opened(&self, id: StreamId) -> bool {
        id.index() < self.next
    }

    /// Whether the peer allows no more now.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.next == self.maximum
    }

    /// Takes a new maximum. Returns whether it is higher than before.
    pub fn set_maximum(&mut self, maximum: u64) -> bool {
        let is_news = maximum > self.maximum;
        self.maximum = self.maximum.max(maximum);
        is_news
    }

    /// The limit to complain about, once for each limit.
    pub fn poll_blocked(&mut self) -> Option<u64> {
        let news = self.is_used_up() && self.blocked_at != Some(self.maximum);
        news.then(|| {
            self.blocked_at = Some(self.maximum);
            self.maximum
        })
    }
}

/// The streams of one direction that the peer opens.
#[derive(Clone, Debug)]
pub struct RemoteIds {
    side: Side,
    direction: Direction,
    /// Streams below were opened; a stream opens all below it (RFC 9000 §3.2).
    opened: u64,
    ended: u64,
    maximum: u64,
    concurrent_max: u64,
    /// The peer waits to open one more.
    is_blocked: bool,
}

impl RemoteIds {
    /// No stream opened; the peer may have `concurrent_max` open at once. `side` is the peer's.
    #[must_use]
    pub fn new(side: Side, direction: Direction, concurrent_max: u64) -> Self {
        Self { side, direction, opened: 0, ended: 0, maximum: concurrent_max, concurrent_max, is_blocked: false }
    }

    /// Notes that the peer used an id: returns the ids that this opens, or `None` when the peer exceeds its limit.
    pub fn on_used(&mut self, id: StreamId) -> Option<impl Iterator<Item = StreamId> + use<>> {
        debug_assert_eq!((id.initiator(), id.direction()), (self.side, self.direction));
        if id.index() >= self.maximum {
            return None;
        }
        let (side, direction) = (self.side, self.direction);
        let opened = self.opened..id.index() + 1;
        self.opened = self.opened.max(id.index() + 1);
        Some(opened.map(move |index| StreamId::new(side, direction, index)))
    }

    /// Counts a stream that is over on both sides. Returns the new limit to tell the peer, when it is worth a frame.
    pub fn on_ended(&mut self) -> Option<u64> {
        self.ended += 1;
        let is_worth_it = self.is_blocked || self.unannounced() >= (self.concurrent_max / 8).max(1);
        is_worth_it.then(|| self.announce())
    }

    /// The peer waits because of a limit: it is told of the next stream that ends, as others may never end. Returns
    /// whether that was news, which it is once for each limit, and the new limit if there is one already.
    pub fn on_blocked(&mut self, limit: u64) -> (bool, Option<u64>) {
        if limit != self.maximum || self.is_blocked {
            return (false, None);
        }
        self.is_blocked = true;
        (true, (self.unannounced() > 0).then(|| self.announce()))
    }

    /// Streams that the peer may open and does not know of.
    fn unannounced(&self) -> u64 {
        self.ended + self.concurrent_max - self.maximum
    }

    fn announce(&mut self) -> u64 {
        self.is_blocked = false;
        self.maximum = self.ended + self.concurrent_max;
        self.maximum
    }

    /// Whether the peer has opened a stream.
    #[must_use]
    pub fn was_opened(&self, id: StreamId) -> bool {
        id.index() < self.opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_opens_those_below_it_and_the_limit_holds() {
        let mut ids = RemoteIds::new(Side::Client, Direction::Bi, 4);
        let third = StreamId::new(Side::Client, Direction::Bi, 2);
        assert_eq!(ids.on_used(third).map(Iterator::count), Some(3));
        assert_eq!(ids.on_used(third).map(Iterator::count), Some(0));
        assert!(ids.on_used(StreamId::new(Side::Client, Direction::Bi, 4)).is_none());
        assert_eq!(ids.on_ended(), Some(5));
        assert_eq!(ids.on_used(StreamId::new(Side::Client, Direction::Bi, 4)).map(Iterator::count), Some(2));
    }

    #[test]
    fn who_waits_is_told_of_each_stream_that_ends() {
        let mut ids = RemoteIds::new(Side::Client, Direction::Bi, 80);
        assert_eq!((ids.on_ended(), ids.on_ended()), (None, None), "nobody waits, and ten are worth a frame");
        assert_eq!(ids.on_blocked(80), (true, Some(82)));
        assert_eq!(ids.on_blocked(80), (false, None), "it was sent before the last limit came");
        assert_eq!(ids.on_ended(), None);
        assert_eq!(ids.on_blocked(82), (true, Some(83)));
        assert_eq!(ids.on_blocked(83), (true, None), "none has ended");
        assert_eq!(ids.on_blocked(83), (false, None), "that is known");
        assert_eq!(ids.on_ended(), Some(84));
        assert_eq!(ids.on_ended(), None);
    }
}
