//! What every layer shares: identifiers, limits, byte ranges, secrets, rates, and codes for the end of things.
//!
//! Nothing in here knows a message format, a key or a socket.

mod bandwidth;
mod codes;
mod entropy;
mod ids;
pub mod limits;
mod pace;
mod ranges;
mod rate;
mod secret;
mod share;

pub use bandwidth::Bandwidth;
pub use codes::{CloseCode, StreamCode};
pub use entropy::{Entropy, SystemEntropy};
pub(crate) use ids::IdMap;
pub use ids::{Direction, Epoch, LaneId, PacketNumber, SessionId, Side, StreamId};
pub use pace::{Pacer, VirtualQueue};
pub use ranges::RangeSet;
pub use rate::TokenBucket;
pub use secret::{Secret, equal_in_constant_time};
pub use share::{FairShare, Member};
