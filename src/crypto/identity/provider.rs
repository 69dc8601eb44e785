//! The cryptography that rustls may use: which provider, suites and key exchanges, in which order.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, NamedGroup};
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
use std::sync::Arc;

/// The provider of this build: aws-lc-rs if compiled in, otherwise ring, [restricted](restrict).
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[must_use]
pub fn default_provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(restrict(provider))
}

/// What protects the first packets of QUIC (RFC 9001 §5.2): a suite that [`restrict`] leaves out of the handshake itself.
///
/// # Panics
/// Never: both providers have it.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[must_use]
pub fn quic_initial_suite() -> rustls::quic::Suite {
    #[cfg(feature = "aws-lc-rs")]
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    #[cfg(not(feature = "aws-lc-rs"))]
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    suite.tls13().and_then(rustls::Tls13CipherSuite::quic_suite).expect("the suite is one of TLS 1.3 and QUIC")
}

/// Leaves only our TLS 1.3 suites, AES first, and puts the hybrid post-quantum key exchange first where there is one.
#[must_use]
pub fn restrict(mut provider: CryptoProvider) -> CryptoProvider {
    provider.cipher_suites.retain(|suite| SUITES.contains(&suite.suite()));
    provider.cipher_suites.sort_by_key(|suite| SUITES.iter().position(|ours| *ours == suite.suite()));
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    provider
}

/// In order of preference. 256-bit keys throughout, so that one key size serves the whole key schedule.
const SUITES: [CipherSuite; 2] = [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256];

#[cfg(all(test, any(feature = "aws-lc-rs", feature = "ring")))]
mod tests {
    use super::*;

    #[test]
    fn only_our_suites_are_left_with_aes_first() {
        let provider = default_provider();
        assert_eq!(provider.cipher_suites.iter().map(rustls::SupportedCipherSuite::suite).collect::<Vec<_>>(), SUITES);
    }

    #[cfg(feature = "aws-lc-rs")]
    #[test]
    fn the_post_quantum_key_exchange_is_preferred() {
        assert_eq!(default_provider().kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    }
}
