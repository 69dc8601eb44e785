//! TLS 1.3 through rustls, identities, keys and their epochs, joins.
//!
//! A session begins with one TLS handshake. On a raw channel [`Handshake`] runs it with `rustls::quic`; on a channel
//! that is TLS itself the channel has run it. Either way it ends in [`SessionSecrets`] from the exporter, and
//! everything after that is the same: [`KeySchedule`] seals packets, [`join`] admits further channels. How a machine gets
//! its certificate by a [`token`] stands apart from all that.
//!
//! No I/O and no clock: certificates are checked at the time that the configuration's `TimeProvider` tells.

mod handshake;
pub mod identity;
pub mod join;
pub mod key_log;
mod recorded;
mod schedule;
mod seal;
pub mod token;

pub use handshake::{CompletedHandshake, Flight, Handshake, HandshakeError};
pub use recorded::{NotOpened, RecordedKeys, RecordedOpener};
pub use schedule::{EpochKeys, KeySchedule, OpeningKeys, SessionSecrets};
pub use seal::{LaneOpener, OpenError, SealedKeys};
pub(crate) use seal::{open_with, seal_with};
