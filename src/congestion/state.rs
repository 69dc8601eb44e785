//! The states and their gains (draft-ietf-ccwg-bbr, "State Transition Diagram" and "Summary of Control Behavior in the
//! State Machine").
//!
//! ```text
//!  Startup → Drain → ProbeBwDown → ProbeBwCruise → ProbeBwRefill → ProbeBwUp ─┐
//!     ↑                   ↑                                                   │
//!     │                   └───────────────────────────────────────────────────┘
//!     └── ProbeRtt ← from each of them; back to ProbeBwCruise, or to Startup if the pipe was never full
//! ```

use super::parameters::{
    CRUISE_QUEUE_PACING_GAIN, DEFAULT_CWND_GAIN, DRAIN_PACING_GAIN, PROBE_DOWN_PACING_GAIN, PROBE_RTT_CWND_GAIN,
    PROBE_UP_CWND_GAIN, PROBE_UP_PACING_GAIN, STARTUP_PACING_GAIN,
};

/// What the flow does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Doubles its rate each round to find the bandwidth.
    Startup,
    /// Empties the queue that Startup made.
    Drain,
    /// Sends less than is delivered, to leave room.
    ProbeBwDown,
    /// Sends what is delivered.
    ProbeBwCruise,
    /// Fills the path, before asking for more.
    ProbeBwRefill,
    /// Sends more than is delivered, to find out whether there is more.
    ProbeBwUp,
    /// Keeps half of the path empty to see its RTT.
    ProbeRtt,
}

impl State {
    /// BBR.pacing_gain. The draft has none of its own for ProbeBW_CRUISE with a queue.
    pub(super) fn pacing_gain(self, is_queue_present: bool) -> f64 {
        match self {
            Self::Startup => STARTUP_PACING_GAIN,
            Self::Drain => DRAIN_PACING_GAIN,
            Self::ProbeBwDown => PROBE_DOWN_PACING_GAIN,
            Self::ProbeBwUp => PROBE_UP_PACING_GAIN,
            Self::ProbeBwCruise if is_queue_present => CRUISE_QUEUE_PACING_GAIN,
            Self::ProbeBwCruise | Self::ProbeBwRefill | Self::ProbeRtt => 1.0,
        }
    }

    /// BBR.cwnd_gain.
    pub(super) fn cwnd_gain(self) -> f64 {
        match self {
            Self::ProbeBwUp => PROBE_UP_CWND_GAIN,
            Self::ProbeRtt => PROBE_RTT_CWND_GAIN,
            _ => DEFAULT_CWND_GAIN,
        }
    }

    /// IsInAProbeBWState.
    pub(super) fn is_probe_bw(self) -> bool {
        matches!(self, Self::ProbeBwDown | Self::ProbeBwCruise | Self::ProbeBwRefill | Self::ProbeBwUp)
    }

    /// IsProbingBW.
    pub(super) fn is_probing(self) -> bool {
        matches!(self, Self::Startup | Self::ProbeBwRefill | Self::ProbeBwUp)
    }
}

/// BBR.ack_phase: what acknowledgements mean with regard to a probe for bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckPhase {
    /// No probe, and no feedback from one.
    Init,
    /// The path is being filled.
    Refilling,
    /// A probe began, its feedback is a round away.
    ProbeStarting,
    /// Acknowledgements tell of a probe.
    ProbeFeedback,
    /// A probe ended, its feedback still comes.
    ProbeStopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_draft() {
        use State::{Drain, ProbeBwCruise, ProbeBwDown, ProbeBwRefill, ProbeBwUp, ProbeRtt, Startup};
        let table = [
            (Startup, 2.77, 2.0, false, true),
            (Drain, 0.5, 2.0, false, false),
            (ProbeBwDown, 0.9, 2.0, true, false),
            (ProbeBwCruise, 1.0, 2.0, true, false),
            (ProbeBwRefill, 1.0, 2.0, true, true),
            // The draft has 2.25 for the window.
            (ProbeBwUp, 1.25, 1.3, true, true),
            (ProbeRtt, 1.0, 0.5, false, false),
        ];
        for (state, pacing, cwnd, is_probe_bw, is_probing) in table {
            assert_eq!((state.pacing_gain(false), state.cwnd_gain()), (pacing, cwnd), "{state:?}");
            assert_eq!((state.is_probe_bw(), state.is_probing()), (is_probe_bw, is_probing), "{state:?}");
        }
    }
}
