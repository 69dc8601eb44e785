//! What every layer shares: identifiers, limits, byte ranges, secrets, rates, and codes for the end of things.
//!
//! Nothing in here knows a message format, a key or a socket.

mod codes;
mod entropy;
mod ids;
pub mod limits;
mod ranges;
mod rate;
mod secret;

pub use codes::{CloseCode, StreamCode};
pub use entropy::{Entropy, SystemEntropy};
pub use ids::{Direction, Epoch, LaneId, PacketNumber, SessionId, Side, StreamId};
pub use ranges::RangeSet;
pub use rate::TokenBucket;
pub use secret::{Secret, equal_in_constant_time};
