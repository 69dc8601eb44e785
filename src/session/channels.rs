//! Lanes of one channel. A QUIC connection carries several, so that a lost datagram holds up only one of them; they share
//! its path and its congestion control. So the scheduler chooses among channels, the rate is measured over all lanes of
//! one, and a lane that waits for a repair is not taken for dead while others of its channel are acknowledged.
//!
//! Of the lanes of the chosen channel whichever asks carries the packet.

use std::time::{Duration, Instant};

use super::lane::{Lane, LaneKind};
use super::rtt::{ALLOWANCE_MIN, DeliveryRate};
use super::scheduler::ChannelView;
use super::state::Session;
use super::timers::earlier;
use crate::base::{LaneId, limits};

const _: () = assert!(ALLOWANCE_MIN <= limits::QUIC_IN_FLIGHT_BYTES_MAX);

impl Session {
    /// The channel under a lane, by the first of its lanes.
    #[must_use]
    pub fn channel_of(&self, id: LaneId) -> Option<LaneId> {
        self.known_lane(id).map(Lane::channel)
    }

    /// What carries a lane.
    #[must_use]
    pub fn lane_kind(&self, id: LaneId) -> Option<LaneKind> {
        self.known_lane(id).map(|lane| lane.setup.kind)
    }

    /// The living lanes of a channel.
    pub(super) fn channel_lanes(&self, channel: LaneId) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().filter(move |lane| lane.is_alive() && lane.channel() == channel)
    }

    /// The rate of a lane's channel, which is kept with the oldest of its lanes.
    pub(super) fn rate_mut(&mut self, index: usize) -> &mut DeliveryRate {
        let channel = self.lanes[index].channel();
        let oldest = self.lanes.iter().position(|lane| lane.channel() == channel).unwrap_or(index);
        &mut self.lanes[oldest].rate
    }

    /// The same, to look at.
    fn rate(&self, channel: LaneId) -> Option<&DeliveryRate> {
        self.lanes.iter().find(|lane| lane.channel() == channel).map(|lane| &lane.rate)
    }

    /// The highest rate of all channels that carry data, in bytes a second.
    fn best_rate(&self) -> f64 {
        let carrying = self.lanes.iter().filter(|lane| self.is_carrying(lane));
        carrying.filter_map(|lane| lane.rate.bytes_per_second()).fold(0.0, f64::max)
    }

    /// Takes the word of the transport under a channel, that its peer acknowledged packets at that time. A transport that
    /// repairs losses tells nothing of what it holds back meanwhile, and on a slow path repairs take their time: that is no
    /// reason to give up a path that works.
    pub fn handle_transport_word(&mut self, channel: LaneId, heard_at: Instant) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.channel() == channel) {
            lane.transport_heard_at = lane.transport_heard_at.max(Some(heard_at));
        }
    }

    /// When a lane is suspect unless something of it is acknowledged: sooner when nothing of its channel is, either, and its
    /// transport is silent, too.
    pub(super) fn suspect_deadline(&self, lane: &Lane) -> Option<Instant> {
        if !lane.is_healthy() {
            return None;
        }
        let silent = self.channel_silent_from(lane)?;
        let Some(overtaken_at) = lane.overtaken_at else { return Some(silent) };
        let (since, timeout) = (lane.unacknowledged_since()?, lane.patience()?);
        // Nothing sent since then was overtaken, and time in which this side did not run does not count.
        let alone = overtaken_at.max(since) + timeout.max(limits::LANE_REPAIR_TIMEOUT);
        let works = self.channel_progress_at(lane.channel()).is_some_and(|at| alone <= at + timeout);
        Some(if works { alone } else { silent })
    }

    /// Notes that a lane is acknowledged while others of its channel wait for that. They have waited alone since then, unless
    /// nothing of the channel was for a while.
    pub(super) fn overtake_siblings(&mut self, index: usize, now: Instant) {
        let channel = self.lanes[index].channel();
        if self.lanes[index].setup.kind != LaneKind::Quic {
            return;
        }
        let progress_at = self.channel_progress_at(channel);
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if at != index && lane.channel() == channel && !lane.sent.is_empty() {
                let was_silent = progress_at.is_some_and(|at| at + lane.suspect_timeout() <= now);
                lane.overtaken_at = lane.overtaken_at.filter(|_| !was_silent).or(Some(now));
            }
        }
    }

    /// From when on nothing of a lane's channel has been acknowledged for as long as makes the lane suspect, unless something is
    /// by then.
    fn channel_silent_from(&self, lane: &Lane) -> Option<Instant> {
        let since = lane.silent_since()?;
        // Other channels have one lane.
        let is_quic = lane.setup.kind == LaneKind::Quic;
        let progress_at = is_quic.then(|| self.channel_progress_at(lane.channel())).flatten();
        Some(since.max(progress_at.unwrap_or(since)) + lane.patience()?)
    }

    /// Whether nothing of a lane's channel has been acknowledged for as long as makes the lane suspect.
    pub(super) fn is_channel_silent(&self, lane: &Lane, now: Instant) -> bool {
        self.channel_silent_from(lane).is_some_and(|from| from <= now)
    }

    /// When something of a channel was acknowledged last.
    fn channel_progress_at(&self, channel: LaneId) -> Option<Instant> {
        self.channel_lanes(channel).map(|lane| lane.last_progress_at).max()
    }

    /// Whether a lane may carry shared data: it has room, and holds nothing up, or all that may do.
    pub(super) fn is_usable(&self, lane: &Lane) -> bool {
        let is_prompt = |lane: &Lane| self.is_carrying(lane) && !lane.is_late();
        let may_carry = self.is_carrying(lane) && (!lane.is_late() || !self.lanes.iter().any(is_prompt));
        may_carry && !self.is_express(lane.id) && !self.is_full(lane.channel())
    }

    /// Whether enough is on its way on a channel.
    fn is_full(&self, channel: LaneId) -> bool {
        let in_flight = self.channel_lanes(channel).map(|lane| lane.in_flight_bytes).sum::<u64>();
        (in_flight >= ALLOWANCE_MIN && in_flight >= self.allowance(channel)) || self.is_path_full(channel)
    }

    /// Bytes that may be on their way on a channel.
    fn allowance(&self, channel: LaneId) -> u64 {
        let Some(oldest) = self.channel_lanes(channel).next() else { return 0 };
        let allowance =
            self.rate(channel).map_or(0, |rate| rate.allowance(oldest.round_trip.minimum().unwrap_or_default()));
        match oldest.setup.kind {
            // What follows a lost datagram waits at the peer, which has no more room for it.
            LaneKind::Quic => allowance.min(limits::QUIC_IN_FLIGHT_BYTES_MAX),
            LaneKind::Tcp | LaneKind::Tls | LaneKind::Unix => allowance,
        }
    }

    /// What a packet is expected to take on a lane, by itself.
    pub(super) fn packet_time(&self, index: usize, bytes: u32) -> Duration {
        let rate = self.rate(self.lanes[index].channel());
        rate.map(|rate| rate.packet_time(bytes, self.best_rate())).unwrap_or_default()
    }

    /// The longest packet for a lane.
    pub(super) fn packet_bytes_max(&self, index: usize) -> usize {
        let rate = self.rate(self.lanes[index].channel());
        let bytes = rate.map_or(u64::MAX, |rate| rate.packet_bytes(self.best_rate()));
        self.message_bytes_max()
            .min(usize::try_from(bytes).unwrap_or(usize::MAX))
            .max(super::transmit::PACKET_BYTES_MIN)
    }

    /// Whether a lane gets nothing because its channel is full, or is kept free or holds something up while others of its channel carry
    /// what there is.
    pub(super) fn is_spared(&self, index: usize) -> bool {
        let lane = &self.lanes[index];
        let others_carry = || self.channel_lanes(lane.channel()).any(|lane| self.is_usable(lane) && !lane.is_late());
        self.is_full(lane.channel()) || ((lane.is_late() || self.is_express(lane.id)) && others_carry())
    }

    /// A lane of a channel that waits to carry something, the emptiest.
    pub(super) fn waiting_lane(&self, channel: LaneId) -> Option<usize> {
        self.emptiest(channel, |lane| lane.is_waiting && self.is_usable(lane))
    }

    /// The lane of a channel with the least on its way.
    pub(super) fn emptiest_lane(&self, channel: LaneId) -> Option<usize> {
        self.emptiest(channel, |lane| self.is_carrying(lane))
    }

    fn emptiest(&self, channel: LaneId, is_wanted: impl Fn(&Lane) -> bool) -> Option<usize> {
        let lanes = self.lanes.iter().enumerate();
        let wanted = lanes.filter(|(_, lane)| lane.is_alive() && lane.channel() == channel && is_wanted(lane));
        wanted.min_by_key(|(_, lane)| lane.in_flight_bytes).map(|(index, _)| index)
    }

    /// Views of the channels that may carry data: those of the best tier with a lane that holds nothing up, or those that
    /// there are. A lane that is kept free of bulk data is none of them.
    pub(super) fn fill_views(&mut self, asking: Option<usize>) {
        self.refresh_express(None);
        debug_assert!(self.lanes.iter().all(Lane::is_alive), "lanes that are over are not looked at for each packet");
        debug_assert_eq!(self.tiers.carrying().is_some(), self.lanes.iter().any(Lane::is_healthy));
        let mut views = std::mem::take(&mut self.views);
        views.clear();
        let any_prompt = self.lanes.iter().any(|lane| self.is_carrying(lane) && !lane.is_late());
        for (index, lane) in self.lanes.iter().enumerate() {
            if !self.is_carrying(lane) || (lane.is_late() && any_prompt) || self.is_express(lane.id) {
                continue;
            }
            let channel = lane.channel();
            let at = views.iter().position(|view| view.id == channel).unwrap_or_else(|| {
                let is_first = lane.id == channel;
                let oldest = if is_first { None } else { self.lanes.iter().find(|lane| lane.channel() == channel) };
                let rate = &oldest.unwrap_or(lane).rate;
                views.push(ChannelView {
                    id: channel,
                    weight: lane.setup.usage.weight,
                    round_trip_min: None,
                    round_trip: None,
                    bytes_per_second: rate.bytes_per_second(),
                    is_least_rate: rate.is_least(),
                    startup_bytes: lane.round_trip.minimum().and_then(|least| rate.startup_bytes(least)),
                    in_flight_bytes: 0,
                    sent_bytes: 0,
                    is_ready: false,
                });
                views.len() - 1
            });
            let view = &mut views[at];
            view.round_trip_min = earlier(view.round_trip_min, lane.round_trip.minimum());
            view.round_trip = earlier(view.round_trip, lane.round_trip.smoothed());
            view.in_flight_bytes += lane.in_flight_bytes;
            view.sent_bytes += lane.counters.bytes_sent;
            view.is_ready |= lane.is_waiting || asking == Some(index);
        }
        for view in &mut views {
            view.is_ready &= view.in_flight_bytes < ALLOWANCE_MIN || view.in_flight_bytes < self.allowance(view.id);
            view.is_ready &= !self.is_path_full(view.id);
        }
        self.views = views;
    }
}
