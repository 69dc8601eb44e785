//! The session: streams, keys and lanes composed into one association of two nodes. No I/O, no clock.
//!
//! **One mutation, then drain the outputs.** Inputs are `handle_*` (packets, timeouts), `add_lane`/`remove_lane` and
//! what the application does to streams. Outputs are [`Session::poll_transmit`] for each lane that is ready,
//! [`Session::poll_wake`] (lanes that should ask), [`Session::poll_event`] and [`Session::next_timeout`]. Asked at the right
//! moment, [`Session::poll_transmit_woken`] and [`Session::next_timeout_before`] give the same for less.
//!
//! Sealing and opening happen outside, by the keys that [`Transmission`] and [`Session::opening_keys`] give: the
//! session's state is meant to be behind one short lock.
//!
//! * [`Establishing`]: the handshake on the first lane, which ends in a session; `early`: what may be said before that.
//! * `lane`: what is known of one lane; `former`: lanes that are over; `acknowledge`: what was sent, acknowledged, lost.
//! * `transmit`: cuts packets; `receive`: takes them apart; `timers`: what happens when nothing happens; `stall`: when
//!   this side did not run.
//! * `limit`: how much may be sent; `meter`: what is measured for statistics.
//! * `datagrams`: what goes beside streams and may be lost, also over carriers that lose it.
//! * `rekey`: when keys change; `join`: how lanes are added; `tier`: which lanes may carry data; [`scheduler`]: which of
//!   them carries the next packet; `copies`: what goes out on two of them; `express`: which one is kept free of bulk
//!   data; `standing_queue`: how much the others may have on their way then.

mod acknowledge;
mod channels;
mod config;
mod copies;
mod datagrams;
mod early;
mod establish;
mod event;
mod express;
mod former;
mod guest;
mod join;
mod lane;
mod limit;
mod meter;
mod receive;
mod reinject;
mod rekey;
mod rtt;
pub mod scheduler;
mod stall;
mod standing_queue;
mod state;
mod stats;
mod tier;
mod timers;
mod transmit;

pub use config::SessionConfig;
pub use datagrams::DatagramTransmission;
pub use early::{EarlyKey, SessionKeys};
pub use establish::{EarlyEstablished, EstablishError, Established, Establishing, Progress};
pub use event::{CloseReason, Event, LaneEnd, SessionFault};
pub use join::{JoinRefused, JoinRequest};
pub use lane::{LaneKind, LaneSetup, LaneState, Protection};
pub use limit::{Held, LimitedBy, SendLimit};
pub use meter::{Blocked, Decisions, Reading, Samples};
pub use state::{OpenError, Session, SessionParts};
pub use stats::{LaneStats, SessionStats};
pub use transmit::Transmission;
