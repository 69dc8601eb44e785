//! TLS 1.3 through rustls, identities, keys and epochs, joins.

pub mod identity;
