//! The session: composes streams, keys and lanes; no I/O, no clock.
