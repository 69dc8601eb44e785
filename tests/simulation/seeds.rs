//! Runs a scenario for many seeds. `LONGHAUL_SEED=n` replays one, `LONGHAUL_SEEDS=n` says how many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seeds of a run that asks for nothing else: some seconds in a debug build.
const SEEDS_DEFAULT: u64 = 100;

/// Tells which seed it was when the scenario panics.
struct Reporter {
    scenario: &'static str,
    seed: u64,
}

impl Drop for Reporter {
    #[expect(clippy::print_stderr, reason = "the one thing that has to be known of a failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with LONGHAUL_SEED={} cargo test --test simulation {}", self.seed, self.scenario);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs `scenario` for each seed, on all processors.
pub fn for_each_seed(scenario: &'static str, run: fn(u64)) {
    if let Some(seed) = number("LONGHAUL_SEED") {
        let _reporter = Reporter { scenario, seed };
        return run(seed);
    }
    let count = number("LONGHAUL_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let _reporter = Reporter { scenario, seed };
                    run(seed);
                }
            });
        }
    });
}

/// Durations of scenarios, in virtual milliseconds.
pub const fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}
