//! Services and forwards.
