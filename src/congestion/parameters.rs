//! The constants of the algorithm: first those of draft-ietf-ccwg-bbr, with its sections, then those of this
//! implementation, with their reasons.

use std::time::Duration;

// draft-ietf-ccwg-bbr, "Pacing State and Parameters" and "Summary of Control Behavior in the State Machine".
pub(super) const STARTUP_PACING_GAIN: f64 = 2.77;
pub(super) const DRAIN_PACING_GAIN: f64 = 0.5;
pub(super) const PROBE_DOWN_PACING_GAIN: f64 = 0.9;
pub(super) const PROBE_UP_PACING_GAIN: f64 = 1.25;
pub(super) const PACING_MARGIN: f64 = 0.01;

// draft-ietf-ccwg-bbr, "cwnd State and Parameters" and the same summary.
pub(super) const DEFAULT_CWND_GAIN: f64 = 2.0;
pub(super) const PROBE_RTT_CWND_GAIN: f64 = 0.5;

// draft-ietf-ccwg-bbr, "Core Algorithm Design Parameters".
pub(super) const LOSS_THRESH: f64 = 0.02;
pub(super) const BETA: f64 = 0.7;
pub(super) const HEADROOM: f64 = 0.15;
pub(super) const MIN_PIPE_CWND_SEGMENTS: u64 = 4;

// draft-ietf-ccwg-bbr, "Estimating BBR.max_bw" and "Estimating BBR.extra_acked".
pub(super) const MAX_BW_FILTER_CYCLES: u64 = 2;
pub(super) const EXTRA_ACKED_FILTER_ROUNDS: u64 = 10;

// draft-ietf-ccwg-bbr, "Exiting Acceleration Based on Bandwidth Plateau" and "Exiting Startup Based on Packet Loss".
pub(super) const FULL_BW_GROWTH: f64 = 1.25;
pub(super) const FULL_BW_ROUNDS: u32 = 3;
pub(super) const STARTUP_FULL_LOSS_COUNT: u32 = 6;

/// draft-ietf-ccwg-bbr, "Drain": the rounds after which Drain ends with any amount in flight.
pub(super) const DRAIN_ROUNDS_MAX: u64 = 3;

// draft-ietf-ccwg-bbr, "ProbeRTT and min_rtt Parameters and State".
pub(super) const MIN_RTT_FILTER: Duration = Duration::from_secs(10);
pub(super) const PROBE_RTT_DURATION: Duration = Duration::from_millis(200);
pub(super) const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);

// draft-ietf-ccwg-bbr, "Design Considerations for Choosing Constant Parameters".
pub(super) const PROBE_WAIT_BASE: Duration = Duration::from_secs(2);
pub(super) const PROBE_WAIT_RANDOM: Duration = Duration::from_secs(1);
pub(super) const RENO_ROUNDS_MAX: u64 = 63;

// draft-ietf-ccwg-bbr, "Send Quantum".
pub(super) const SEND_QUANTUM_TIME: Duration = Duration::from_millis(1);
pub(super) const SEND_QUANTUM_BYTES_MAX: u64 = 64 * 1024;

/// The highest share of losses that is taken for the path's own. Long paths that lose this much are in use; beyond it a
/// policer or a queue of a few packets is likelier.
pub(super) const PATH_LOSS_MAX: f64 = 0.05;

/// The RTT above the path's lowest that counts as a queue: this share of it, and no less than [`QUEUE_DELAY_MIN`].
pub(super) const QUEUE_DELAY_SHARE: f64 = 0.125;

/// Below this, timers and batches of acknowledgements move the RTT as much as a queue does.
pub(super) const QUEUE_DELAY_MIN: Duration = Duration::from_millis(4);

/// The pacing gain of ProbeBW_CRUISE while the RTT shows a queue. The highest of many samples of the bandwidth is some percent
/// too high, and a flow that sends at it fills its window, which is twice what the path holds. While there is a queue the path
/// is full, so that sending a little less costs nothing.
pub(super) const CRUISE_QUEUE_PACING_GAIN: f64 = 0.92;

/// The window of ProbeBW_UP as a share of what the path holds, a little more than the pacing gain brings in a round trip. The
/// draft has 2.25: that the path is full shows a round trip late, when the queue of a long path has half of it.
pub(super) const PROBE_UP_CWND_GAIN: f64 = 1.3;

/// The share of loss at which Startup ends at once, given a queue in the RTT. The draft waits for the end of a second
/// round; at 150 ms those are half a second, in which a third of what is sent is lost.
pub(super) const STARTUP_OVERFLOW_LOSS: f64 = 0.1;

/// How long the lowest RTT is remembered for telling queue from path. Longer than the filter for the model: a neighbour
/// that keeps its queue full outlives that one.
pub(super) const QUEUE_REFERENCE_FILTER: Duration = Duration::from_secs(30);

/// The queue was empty when the RTT was no more than this part above its lowest: timers and batches add a millisecond or two.
/// ProbeRTT, which costs a flow a tenth of a second's rate and more each time, would show nothing else, and is put off.
pub(super) const EMPTY_QUEUE_PART: u32 = 25;

/// For how long at most: flows that all took a queue for the path would keep it. As long as the queue's reference lasts.
pub(super) const PROBE_RTT_POSTPONED_MAX: Duration = QUEUE_REFERENCE_FILTER;

/// The part of what the path holds down to which ProbeBW_DOWN drains it. The draft stops at all of it. When the lowest RTT was
/// that of a queue, the RTT falls below it here, and ProbeRTT follows at once.
pub(super) const PROBE_DOWN_IN_FLIGHT: f64 = 0.92;

/// Sends closer together than this part of an RTT share a record: the rate sample errs by less than the pacing margin,
/// and the records of an RTT are bounded.
pub(super) const RECORDS_PER_RTT: u32 = 512;

/// Records kept at most. They reach back four round trips; an RTT estimate that is wrong by more loses the oldest.
pub(super) const RECORDS_MAX: usize = 8192;

const _: () = assert!(RECORDS_MAX >= 4 * RECORDS_PER_RTT as usize);
