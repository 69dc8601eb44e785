//! Congestion control by a model of the path: BBR version 3 after draft-ietf-ccwg-bbr.
//!
//! Owns the algorithm: what was sent, acknowledged and lost goes in, with the time of each; a congestion window, a pacing
//! rate and a send quantum come out. Knows no transport, clock or socket: the caller counts bytes, keeps its own packet
//! numbers, and says when. Terms are the draft's; where this differs from it, the file says so and why.
//!
//! A part a file: `delivery` samples the delivery rate, `filter` and `min_rtt` remember, `full_pipe` sees a
//! plateau, `path_loss` tells a path that loses from a queue that overflows, `short_term` holds the bounds after loss,
//! `startup`, `probe_bw` and `probe_rtt` are the states, `output` turns the model into numbers. `window` is for
//! transports that take a window and nothing else.

mod aggregation;
mod bandwidth;
mod bbr;
mod delivery;
mod filter;
mod full_pipe;
mod loss;
mod min_rtt;
mod output;
mod parameters;
mod path_loss;
mod probe_bw;
mod probe_rtt;
mod random;
mod rounds;
mod short_term;
mod startup;
mod state;
mod window;

#[cfg(test)]
mod tests;

pub use bandwidth::Bandwidth;
pub use bbr::{Bbr, BbrConfig};
pub use state::State;
pub use window::PacedWindow;
