//! What became of datagrams.

use std::fmt;

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramDrop {
    /// It had waited too long for a lane.
    Expired,
    /// Newer ones needed its place in the queue for lanes.
    QueueFull,
    /// The peer takes none of this size.
    TooLarge,
    /// Its stream ended while it waited for a lane.
    FlowOver,
    /// The peer sent it for a stream that is over.
    UnknownFlow,
    /// The application did not take it before newer ones needed its place.
    NotTaken,
    /// Pieces of it did not arrive in time. One that comes later still counts as another datagram.
    Incomplete,
    /// A piece that contradicts another one of its datagram, or repeats it.
    Contradictory,
}

impl DatagramDrop {
    /// All reasons, in the order of their indices: those of the sender, then those of the receiver.
    pub const ALL: [Self; 8] = [
        Self::Expired,
        Self::QueueFull,
        Self::TooLarge,
        Self::FlowOver,
        Self::UnknownFlow,
        Self::NotTaken,
        Self::Incomplete,
        Self::Contradictory,
    ];

    /// The word for it in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::QueueFull => "queue-full",
            Self::TooLarge => "too-large",
            Self::FlowOver => "flow-over",
            Self::UnknownFlow => "unknown-flow",
            Self::NotTaken => "not-taken",
            Self::Incomplete => "incomplete",
            Self::Contradictory => "contradictory",
        }
    }
}

impl fmt::Display for DatagramDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Datagrams of a session since its begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramStats {
    /// Datagrams given to lanes and carriers, with their last piece.
    pub sent: u64,
    /// Bytes in them.
    pub bytes_sent: u64,
    /// Those among the sent that were cut into pieces.
    pub cut: u64,
    /// Those among the sent that went over carriers which may lose them.
    pub sent_unreliably: u64,
    /// Datagrams that arrived whole, for a flow that is there.
    pub received: u64,
    /// Bytes in them.
    pub bytes_received: u64,
    /// Bytes that wait for lanes.
    pub waiting_bytes: u64,
    dropped: [u64; DatagramDrop::ALL.len()],
}

impl DatagramStats {
    /// Datagrams that were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DatagramDrop) -> u64 {
        self.dropped[reason as usize]
    }

    /// Datagrams that were dropped.
    #[must_use]
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(in crate::stream) fn on_sent(&mut self, bytes: usize, is_cut: bool) {
        self.sent += 1;
        self.bytes_sent += bytes as u64;
        self.cut += u64::from(is_cut);
    }

    pub(in crate::stream) fn on_received(&mut self, bytes: usize) {
        self.received += 1;
        self.bytes_received += bytes as u64;
    }

    pub(in crate::stream) fn on_dropped(&mut self, reason: DatagramDrop, count: usize) {
        self.dropped[reason as usize] += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_counter_and_word() {
        for (index, reason) in DatagramDrop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let mut stats = DatagramStats::default();
            stats.on_dropped(reason, 3);
            assert_eq!((stats.dropped(reason), stats.dropped_in_all()), (3, 3));
            assert_eq!(DatagramDrop::ALL.iter().filter(|other| other.as_str() == reason.as_str()).count(), 1);
        }
    }
}
