//! The words that attributes have for what happened: few, and the same in every version.

use crate::base::Side;
use crate::session::{CloseReason, LaneEnd, LaneState};

pub(super) fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

pub(super) fn lane_end(end: LaneEnd) -> &'static str {
    match end {
        LaneEnd::ChannelClosed => "channel-closed",
        LaneEnd::Unacknowledged => "unacknowledged",
        LaneEnd::Idle => "idle",
        LaneEnd::ClosedByPeer(_) => "closed-by-peer",
        LaneEnd::NotConfirmed => "not-confirmed",
        LaneEnd::Closed(_) => "closed",
        LaneEnd::SessionClosed => "session-closed",
    }
}

pub(super) fn close_reason(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Local { .. } => "local",
        CloseReason::Peer { .. } => "peer",
        CloseReason::Fault(_) => "fault",
        CloseReason::ChannelsLost { .. } => "channels-lost",
        CloseReason::NotAccepted => "not-accepted",
        CloseReason::Reset => "reset",
        CloseReason::Unauthenticated => "unauthenticated",
        CloseReason::KeysExhausted => "keys-exhausted",
    }
}

pub(super) fn lane_state(state: LaneState) -> &'static str {
    match state {
        LaneState::Joining => "joining",
        LaneState::Active => "active",
        LaneState::Suspect => "suspect",
        LaneState::Dead => "dead",
    }
}
