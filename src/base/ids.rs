//! Newtypes for everything that is counted or named on the wire, so that one cannot pass for another.

use std::collections::HashMap;
use std::fmt;

/// A map by ids, with a hash that is cheap, as several maps are asked for each packet. A peer can hardly choose ids that fall
/// on one another: they are given in order or within small limits, and each map has a seed of its own.
pub(crate) type IdMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Which side of a session a node is: the client dialled the first channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Dialled the session's first channel, and dials all further ones.
    Client,
    /// Accepted the session's first channel.
    Server,
}

impl Side {
    /// The other side.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Whether a stream carries bytes both ways or only from its initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Bytes in both directions.
    Bi,
    /// Bytes from the initiator only.
    Uni,
}

/// Names a session: 16 random bytes, chosen by the client, unique at the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; SessionId::LEN]);

impl SessionId {
    /// Size on the wire, in bytes.
    pub const LEN: usize = 16;
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first four bytes in hexadecimal: enough to follow a session in a log.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Names a lane of a session. A value is used once in a session's life, because it is part of the nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u32);

impl LaneId {
    /// The lane that carried the handshake.
    pub const FIRST: Self = Self(0);
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the traffic keys of a session, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch after this one, or `None` at the end of the number space.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// Counts the packets of one direction of one lane, from 0, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketNumber(pub u64);

impl PacketNumber {
    /// Past this number a lane has to end (RFC 9000 §12.3).
    pub const MAX: Self = Self((1 << 62) - 1);

    /// The number after this one, or `None` when the lane has to end.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        (self < Self::MAX).then_some(Self(self.0 + 1))
    }
}

/// Names a stream. The two low bits say who opened it and in which directions it carries bytes (RFC 9000 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// Past this value there are no stream ids (RFC 9000 §2.1).
    pub const MAX: Self = Self((1 << 62) - 1);

    /// The `index`-th stream that `initiator` opens in `direction`.
    #[must_use]
    pub fn new(initiator: Side, direction: Direction, index: u64) -> Self {
        let initiator = u64::from(initiator == Side::Server);
        let direction = u64::from(direction == Direction::Uni) << 1;
        Self(index << 2 | direction | initiator)
    }

    /// Who opened the stream.
    #[must_use]
    pub fn initiator(self) -> Side {
        if self.0 & 1 == 0 { Side::Client } else { Side::Server }
    }

    /// In which directions the stream carries bytes.
    #[must_use]
    pub fn direction(self) -> Direction {
        if self.0 & 2 == 0 { Direction::Bi } else { Direction::Uni }
    }

    /// The position among the streams of the same initiator and direction.
    #[must_use]
    pub fn index(self) -> u64 {
        self.0 >> 2
    }

    /// Whether `side` may write to the stream.
    #[must_use]
    pub fn is_writable_by(self, side: Side) -> bool {
        self.direction() == Direction::Bi || self.initiator() == side
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let initiator = match self.initiator() {
            Side::Client => "client",
            Side::Server => "server",
        };
        let direction = match self.direction() {
            Direction::Bi => "bi",
            Direction::Uni => "uni",
        };
        write!(f, "{initiator} {direction} {}", self.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_id_keeps_initiator_direction_and_index() {
        for side in [Side::Client, Side::Server] {
            for direction in [Direction::Bi, Direction::Uni] {
                let id = StreamId::new(side, direction, 77);
                assert_eq!((id.initiator(), id.direction(), id.index()), (side, direction, 77));
                assert!(id.is_writable_by(side));
                assert_eq!(id.is_writable_by(side.peer()), direction == Direction::Bi);
            }
        }
    }

    #[test]
    fn numbers_end_instead_of_wrapping() {
        assert_eq!(PacketNumber::MAX.next(), None);
        assert_eq!(Epoch(u32::MAX).next(), None);
    }
}
