//! QUIC for channels, by quinn.

mod congestion;
mod observed;

pub use congestion::QuicCongestion;
pub use observed::{Observed, PathObserver};
