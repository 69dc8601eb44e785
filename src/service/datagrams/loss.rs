//! Why a forward or a service did not carry a datagram. What the session drops is counted there.

use std::fmt;

/// Why a forward or a service did not carry a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramLoss {
    /// As many flows are open as may be.
    TooManyFlows,
    /// The flow was not open yet, and too much came, or it took too long.
    NotOpen,
    /// The flow was refused, or had just ended.
    FlowOver,
    /// The peer, or the system, does not take datagrams of this size.
    TooLarge,
    /// The target's machine said that nobody listens at its port (ICMP).
    TargetRefused,
    /// The socket failed.
    Socket,
    /// More came than the bandwidth limit lets pass in time.
    Limited,
}

impl DatagramLoss {
    /// All reasons, in the order of their indices.
    pub const ALL: [Self; 7] = [
        Self::TooManyFlows,
        Self::NotOpen,
        Self::FlowOver,
        Self::TooLarge,
        Self::TargetRefused,
        Self::Socket,
        Self::Limited,
    ];

    /// The word for it in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooManyFlows => "too-many-flows",
            Self::NotOpen => "not-open",
            Self::FlowOver => "flow-over",
            Self::TooLarge => "too-large",
            Self::TargetRefused => "target-refused",
            Self::Socket => "socket",
            Self::Limited => "limited",
        }
    }
}

impl fmt::Display for DatagramLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_those_of_the_list() {
        for (index, loss) in DatagramLoss::ALL.into_iter().enumerate() {
            assert_eq!(loss as usize, index);
        }
    }
}
