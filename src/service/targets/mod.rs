//! The targets of a service: which one a connection gets, which ones work, and what is known of them.
//!
//! What decides is pure and gets the time as an argument: `choose` picks one of several, `health` follows checks,
//! `ejection` follows connections that cannot be made, `slow_start` and `latency` weigh, and `state` composes them for one
//! service. `pool` puts a lock and log lines around it. `probe` is one check over a socket, `checks` the tasks that make
//! them. Connecting, and trying the next target, is the business of [`Service`](super::Service).

mod check;
mod checks;
mod choose;
mod ejection;
mod health;
mod latency;
mod list;
mod options;
mod pool;
mod probe;
mod report;
mod slow_start;
mod state;

pub use check::{CheckKind, CheckOptions, CheckOutcome, StatusCodes};
pub(super) use checks::Checks;
pub(super) use choose::seed;
pub use list::{TargetConfig, Targets, TargetsError};
pub use options::{BalanceOptions, EjectionOptions, Strategy, UnknownStrategy};
pub(super) use pool::{Lease, Pool, Tried};
pub use report::{TargetReport, TargetState};
