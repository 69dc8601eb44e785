//! Services and forwards.

pub mod proxy_protocol;
