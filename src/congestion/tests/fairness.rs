//! Flows that share the bottleneck.

use std::time::Duration;

use super::flow::Flow;
use super::network::{Network, Path};

const SECOND: Duration = Duration::from_secs(1);

/// The larger rate over the smaller, each at least a packet a second.
fn ratio(rates: &[u64]) -> f64 {
    let [one, other] = rates else { panic!("two flows") };
    let (low, high) = ((*one).min(*other).max(1), (*one).max(*other));
    high as f64 / low as f64
}

/// Lower than elsewhere, so that CUBIC is back at the rate within the time of a test.
fn shared(rtt_ms: u64) -> Path {
    Path { bytes_per_second: 25_000_000, ..Path::half_gigabit(rtt_ms, 0.0) }
}

#[test]
fn shares_with_cubic_whoever_comes_first() {
    for rtt_ms in [20, 50, 100] {
        for is_cubic_first in [true, false] {
            let mut network = Network::new(shared(rtt_ms), 5);
            let bbr = |now| Flow::windowed(now, 5);
            if is_cubic_first {
                network.add(Flow::cubic);
            } else {
                network.add(bbr);
            }
            network.run(SECOND * 5);
            if is_cubic_first {
                network.add(bbr);
            } else {
                network.add(Flow::cubic);
            }
            network.run(SECOND * 10);
            let rates = network.measure(SECOND * 30);
            assert!(ratio(&rates) <= 3.0, "{rates:?} at {rtt_ms} ms, CUBIC first: {is_cubic_first}");
        }
    }
}

#[test]
fn two_flows_converge() {
    for rtt_ms in [20, 50, 150] {
        let mut network = Network::new(shared(rtt_ms), 9);
        network.add(|now| Flow::windowed(now, 1));
        network.run(SECOND * 10);
        network.add(|now| Flow::windowed(now, 2));
        network.run(SECOND * 20);
        let rates = network.measure(SECOND * 20);
        // The one that came first keeps more for a while, the longer the round trip the longer.
        assert!(ratio(&rates) <= 3.0, "{rates:?} at {rtt_ms} ms");
        assert!(rates.iter().sum::<u64>() > 22_500_000, "{rates:?} at {rtt_ms} ms");
    }
}
