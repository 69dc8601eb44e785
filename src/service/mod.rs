//! Services and forwards.

pub mod proxy_protocol;
pub mod bench;
