//! Messages: bytes ↔ values, bounded.
