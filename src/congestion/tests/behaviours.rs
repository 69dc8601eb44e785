//! What a flow does when the path or the application changes.

use std::time::{Duration, Instant};

use super::super::State;
use super::super::parameters::PROBE_RTT_POSTPONED_MAX;
use super::flow::Flow;
use super::network::{Network, PACKET, Path};

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(5);

fn alone(path: Path, flow: fn(Instant, u64) -> Flow) -> Network {
    let mut network = Network::new(path, 11);
    network.add(|now| flow(now, 11));
    network
}

/// The states that the flow goes through in `time`, each once.
fn states(network: &mut Network, time: Duration) -> Vec<State> {
    let (end, mut states) = (network.elapsed + time, Vec::new());
    while network.elapsed < end {
        network.run(STEP);
        let state = network.flows[0].bbr().state();
        if !states.contains(&state) {
            states.push(state);
        }
    }
    states
}

#[test]
fn startup_drains_and_every_state_is_visited() {
    use State::{Drain, ProbeBwCruise, ProbeBwDown, ProbeBwRefill, ProbeBwUp, ProbeRtt, Startup};
    for flow in [Flow::paced as fn(_, _) -> _, Flow::windowed] {
        let mut network = alone(Path::half_gigabit(50, 0.0), flow);
        let states = states(&mut network, PROBE_RTT_POSTPONED_MAX + SECOND * 7);
        for state in [Startup, Drain, ProbeBwDown, ProbeBwCruise, ProbeBwRefill, ProbeBwUp, ProbeRtt] {
            assert!(states.contains(&state), "{state:?} is not among {states:?}");
        }
        assert_eq!(states[..2], [Startup, Drain]);
    }
}

/// After each probe for bandwidth the queue of a flow that is alone is empty, which shows all that ProbeRTT would.
#[test]
fn a_flow_alone_keeps_its_rate_for_half_a_minute() {
    for (rtt_ms, lateness_ms) in [(50, 0), (150, 0), (150, 6)] {
        let path = Path { lateness: Duration::from_millis(lateness_ms), ..Path::half_gigabit(rtt_ms, 0.0) };
        let mut network = alone(path, Flow::windowed);
        let states = states(&mut network, SECOND * 28);
        assert!(!states.contains(&State::ProbeRtt), "{rtt_ms} ms, up to {lateness_ms} ms late");
    }
}

/// A pacer that spreads a window and a quarter over a round trip would hold it to less.
#[test]
fn startup_doubles_the_rate_each_round() {
    let mut network = alone(Path::half_gigabit(150, 0.0), Flow::windowed);
    network.run(Duration::from_millis(450));
    let before = network.measure(Duration::from_millis(150))[0];
    network.run(Duration::from_millis(300));
    let rate = network.measure(Duration::from_millis(150))[0];
    assert_eq!(network.flows[0].bbr().state(), State::Startup);
    let growth = (rate as f64 / before as f64).cbrt();
    assert!(growth > 2.0, "{growth:.2} a round");
}

#[test]
fn the_queue_of_startup_is_drained_and_later_ones_are_bounded() {
    for rtt_ms in [50, 150] {
        for flow in [Flow::paced as fn(_, _) -> _, Flow::windowed] {
            let mut network = alone(Path::half_gigabit(rtt_ms, 0.0), flow);
            network.run(SECOND * 3);
            let dropped = network.dropped_count;
            let mut low = Duration::MAX;
            let end = network.elapsed + SECOND * 12;
            let mut long_count = 0;
            while network.elapsed < end {
                network.queue_max = Duration::ZERO;
                network.run(STEP * 2);
                low = low.min(network.queue_max);
                long_count += u32::from(network.queue_max > Duration::from_millis(rtt_ms / 2));
            }
            assert!(low < Duration::from_millis(2), "the queue never was shorter than {low:?}");
            assert_eq!(network.dropped_count, dropped, "at {rtt_ms} ms");
            assert!(long_count < 120, "{long_count} of 1200 times more than half a BDP was queued at {rtt_ms} ms");
        }
    }
}

/// Who keeps a queue beside this flow would lose packets with each probe.
#[test]
fn a_probe_for_bandwidth_leaves_room_in_the_queue() {
    for (rtt_ms, lateness_ms, seed) in [(50, 0, 1), (50, 3, 2), (150, 0, 3), (150, 6, 4), (150, 6, 5)] {
        let lateness = Duration::from_millis(lateness_ms);
        let mut network = Network::new(Path { lateness, ..Path::half_gigabit(rtt_ms, 0.0) }, seed);
        network.add(|now| Flow::windowed(now, seed));
        network.run(SECOND * 5);
        network.queue_max = Duration::ZERO;
        network.run(SECOND * 20);
        // The draft's window makes it 27 and 44 ms at 50 ms, 77 and 100 at 150: all that there is.
        let bound = Duration::from_millis(rtt_ms).mul_f64(0.35) + lateness * 2 + Duration::from_millis(8);
        assert!(network.queue_max < bound, "{:?} at {rtt_ms} ms", network.queue_max);
    }
}

/// The highest of many samples of the bandwidth is too high where acknowledgements come late and together. What is sent at
/// it, beyond what the path carries, would stay in the queue from one probe to the next.
#[test]
fn an_estimate_that_is_too_high_makes_no_standing_queue() {
    let path = Path { lateness: Duration::from_millis(6), ..Path::half_gigabit(50, 0.0) };
    let mut network = alone(path, Flow::windowed);
    network.run(SECOND * 4);
    let (mut estimates, mut queues) = (0, Vec::new());
    let end = network.elapsed + SECOND * 12;
    while network.elapsed < end {
        network.queue_max = Duration::ZERO;
        network.run(STEP * 2);
        queues.push(network.queue_max);
        let bandwidth = network.flows[0].bbr().max_bandwidth().bytes_per_second();
        estimates += u32::from(bandwidth > path.bytes_per_second * 102 / 100);
    }
    assert!(estimates > 600, "the estimate was too high in {estimates} of 1200 moments only");
    queues.sort();
    let median = queues[queues.len() / 2];
    assert!(median < Duration::from_millis(15), "{median:?}");
    let rate = network.measure(SECOND * 5)[0];
    assert!(rate > path.bytes_per_second * 94 / 100, "{rate}");
}

#[test]
fn min_rtt_follows_the_route() {
    let mut network = alone(Path::half_gigabit(80, 0.0), Flow::windowed);
    network.run(SECOND * 4);
    let min_rtt = |network: &Network| network.flows[0].bbr().min_rtt().expect("there were samples").as_millis();
    assert!((80..86).contains(&min_rtt(&network)), "{}", min_rtt(&network));
    network.path.rtt = Duration::from_millis(40);
    network.run(SECOND * 7);
    assert!((40..50).contains(&min_rtt(&network)), "a shorter route shows with the next probe: {}", min_rtt(&network));
    network.path.rtt = Duration::from_millis(120);
    network.run(SECOND * 20);
    assert!((120..130).contains(&min_rtt(&network)), "a longer one after the filter: {}", min_rtt(&network));
    let rate = network.measure(SECOND * 5)[0];
    assert!(rate > 52_000_000, "{rate}");
}

#[test]
fn a_fall_and_a_rise_of_the_rate_are_followed() {
    let mut network = alone(Path::half_gigabit(50, 0.0), Flow::windowed);
    network.run(SECOND * 4);
    network.path.bytes_per_second = 12_500_000;
    network.run(SECOND * 10);
    let bandwidth = network.flows[0].bbr().max_bandwidth().bytes_per_second();
    assert!((11_500_000..15_000_000).contains(&bandwidth), "after the fall: {bandwidth}");
    let rate = network.measure(SECOND * 3)[0];
    assert!(rate > 11_000_000, "{rate}");
    network.queue_max = Duration::ZERO;
    network.run(SECOND * 4);
    assert!(network.queue_max < Duration::from_millis(60), "{:?}", network.queue_max);
    network.path.bytes_per_second = 62_500_000;
    network.run(SECOND * 8);
    let rate = network.measure(SECOND * 3)[0];
    assert!(rate > 55_000_000, "after the rise: {rate}");
}

#[test]
fn sending_less_than_the_path_carries_keeps_the_estimate() {
    let mut network = alone(Path::half_gigabit(50, 0.001), Flow::windowed);
    network.run(SECOND * 4);
    // A tenth of the path for half a minute, in pieces of 10 ms.
    for _ in 0..3000 {
        network.set_supply(0, Some(62_500 - 62_500 % PACKET));
        network.run(Duration::from_millis(10));
    }
    let bandwidth = network.flows[0].bbr().max_bandwidth().bytes_per_second();
    assert!(bandwidth > 50_000_000, "{bandwidth}");
    network.set_supply(0, None);
    network.run(Duration::from_millis(200));
    let rate = network.measure(SECOND)[0];
    assert!(rate > 50_000_000, "{rate}");
}

#[test]
fn after_a_pause_the_path_is_full_within_two_round_trips_and_without_a_burst() {
    let mut network = alone(Path::half_gigabit(50, 0.0), Flow::windowed);
    network.run(SECOND * 4);
    network.set_supply(0, Some(0));
    network.run(SECOND * 8);
    let dropped = network.dropped_count;
    network.queue_max = Duration::ZERO;
    network.set_supply(0, None);
    network.run(Duration::from_millis(100));
    assert!(network.queue_max < Duration::from_millis(25), "{:?}", network.queue_max);
    let rate = network.measure(Duration::from_millis(500))[0];
    assert!(rate > 50_000_000, "{rate}");
    assert_eq!(network.dropped_count, dropped);
}

#[test]
fn a_policer_without_a_queue_is_answered() {
    let mut network = alone(Path { queue: Duration::from_millis(1), ..Path::half_gigabit(50, 0.0) }, Flow::windowed);
    network.run(SECOND * 5);
    let (lost, delivered) = (network.flows[0].lost, network.flows[0].delivered);
    network.run(SECOND * 10);
    let (lost, delivered) = (network.flows[0].lost - lost, network.flows[0].delivered - delivered);
    assert!(lost * 20 < lost + delivered, "lost {lost} of {}", lost + delivered);
    assert!(delivered > 8 * 62_500_000, "{delivered}");
}

#[test]
fn a_timeout_shrinks_the_window_until_something_arrives() {
    let mut network = alone(Path::half_gigabit(50, 0.0), Flow::paced);
    network.run(SECOND * 3);
    let mut bbr = network.flows[0].bbr().clone();
    let (now, before) = (network.now(), bbr.window());
    bbr.on_lost(now, now, bbr.in_flight());
    bbr.on_persistent_congestion(now);
    assert_eq!(bbr.window(), 4 * PACKET);
    bbr.on_sent(now, PACKET);
    bbr.on_acked(now, PACKET);
    bbr.on_ack_end(now + Duration::from_millis(50), 0, false);
    assert!(bbr.window() > before / 4, "{} of {before}", bbr.window());
}

#[test]
fn a_congestion_mark_outside_of_a_probe_lowers_the_rate() {
    let mut network = alone(Path::half_gigabit(50, 0.0), Flow::paced);
    network.run(SECOND * 2);
    while network.flows[0].bbr().state() != State::ProbeBwCruise {
        network.run(STEP);
    }
    let rate = network.flows[0].bbr().pacing_rate();
    let mut marked = network.flows[0].bbr().clone();
    let mut unmarked = marked.clone();
    for (bbr, is_marked) in [(&mut marked, true), (&mut unmarked, false)] {
        let mut now = network.now();
        // Two rounds of a few packets, slower than the estimate.
        for _ in 0..8 {
            bbr.on_sent(now, PACKET);
            if is_marked {
                bbr.on_congestion_mark(now, now);
            }
            let sent = now;
            now += Duration::from_millis(50);
            bbr.on_acked(sent, PACKET);
            bbr.on_ack_end(now, bbr.in_flight() - PACKET, false);
        }
    }
    assert!(marked.pacing_rate() < rate.scaled(0.8), "{:?} after {rate:?}", marked.pacing_rate());
    assert_eq!(unmarked.pacing_rate(), rate);
}
