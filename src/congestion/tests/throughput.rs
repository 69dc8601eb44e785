//! A bulk flow alone: how much of the path it fills, and how long the queue gets.

use std::time::Duration;

use super::flow::Flow;
use super::network::{Network, Path};

const SECOND: Duration = Duration::from_secs(1);

/// The share of what can arrive, over `seconds` after the start.
fn share(path: Path, seed: u64, seconds: u32, flow: fn(std::time::Instant, u64) -> Flow) -> f64 {
    let mut network = Network::new(path, seed);
    network.add(|now| flow(now, seed));
    network.run(2 * SECOND);
    let rate = network.measure(SECOND * seconds)[0];
    rate as f64 / (path.bytes_per_second as f64 * (1.0 - path.loss))
}

#[test]
fn fills_half_a_gigabit_with_and_without_random_loss() {
    for rtt_ms in [50, 150] {
        for loss in [0.0, 0.001, 0.01, 0.03] {
            let path = Path::half_gigabit(rtt_ms, loss);
            let share = share(path, 7, 10, Flow::windowed);
            assert!(share >= 0.9, "{share:.3} of {path:?}");
        }
    }
}

#[test]
fn a_pacer_that_knows_the_rate_does_as_well() {
    for (rtt_ms, loss) in [(50, 0.0), (150, 0.03)] {
        let path = Path::half_gigabit(rtt_ms, loss);
        let share = share(path, 7, 10, Flow::paced);
        assert!(share >= 0.9, "{share:.3} of {path:?}");
    }
}
