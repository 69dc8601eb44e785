//! What can happen to a link: accidents of networks, and what somebody on the way can do.

use std::time::Duration;

use bytes::BytesMut;
use longhaul::session::LaneKind;

use crate::world::{CLIENT, SERVER, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing moves for a while.
    Stall,
    /// Everything disappears, nobody is told.
    HalfOpen,
    /// What one side writes disappears, nobody is told.
    OneWay,
    /// Both sides are told.
    Die,
    /// One side is told.
    DieUnseen,
    /// A byte is changed on the way.
    Corrupt,
    /// A message loses its end.
    Truncate,
    /// A message comes twice.
    Replay,
    /// Two messages change places.
    Swap,
    /// A message comes on another link.
    Move,
}

impl Fault {
    pub const ALL: [Self; 10] = [
        Self::Stall,
        Self::HalfOpen,
        Self::OneWay,
        Self::Die,
        Self::DieUnseen,
        Self::Corrupt,
        Self::Truncate,
        Self::Replay,
        Self::Swap,
        Self::Move,
    ];

    fn is_tampering(self) -> bool {
        matches!(self, Self::Corrupt | Self::Truncate | Self::Replay | Self::Swap | Self::Move)
    }
}

impl World {
    /// Does something to a link. Returns whether there was anything to do it to.
    pub fn harm(&mut self, link: usize, fault: Fault) -> bool {
        let (now, side) = (self.now, self.random.below(2) as usize);
        if fault.is_tampering() && !matches!(self.links[link].kind, LaneKind::Tcp | LaneKind::Unix) {
            // The channel's own protection finds it, and fails.
            self.kill(link, &[CLIENT, SERVER]);
            return true;
        }
        match fault {
            Fault::Stall => {
                let time = Duration::from_millis(self.random.between(50, 4000));
                self.links[link].pipes[side].stall(now, time);
            }
            Fault::HalfOpen => self.kill(link, &[]),
            Fault::OneWay => self.links[link].pipes[side].black_hole(now),
            Fault::Die => self.kill(link, &[CLIENT, SERVER]),
            Fault::DieUnseen => self.kill(link, &[side]),
            Fault::Corrupt | Fault::Truncate | Fault::Replay | Fault::Swap | Fault::Move => {
                return self.tamper(link, side, fault);
            }
        }
        true
    }

    /// Messages of one pipe that are on their way.
    fn tamper(&mut self, link: usize, side: usize, fault: Fault) -> bool {
        let count = self.links[link].pipes[side].writes.len() as u64;
        if count == 0 {
            return false;
        }
        let which = self.random.below(count) as usize;
        let random = self.random.below(u64::MAX);
        let writes = &mut self.links[link].pipes[side].writes;
        let bytes = &mut writes[which].bytes;
        if bytes.is_empty() {
            return false;
        }
        let at = (random % bytes.len() as u64) as usize;
        match fault {
            Fault::Corrupt => bytes[at] ^= 1 << (random >> 60 & 7),
            Fault::Truncate => bytes.truncate(at),
            Fault::Replay => {
                let again = bytes.clone();
                bytes.unsplit(again);
            }
            Fault::Swap => {
                let Some(other) = (which + 1 < writes.len()).then_some(which + 1) else { return false };
                let first = std::mem::take(&mut writes[which].bytes);
                writes[which].bytes = std::mem::replace(&mut writes[other].bytes, first);
            }
            _ => {
                let bytes: BytesMut = bytes.clone();
                let other = (random >> 32) as usize % self.links.len();
                let Some(target) = self.links[other].pipes[side].writes.front_mut() else { return false };
                target.bytes.unsplit(bytes);
            }
        }
        true
    }
}
