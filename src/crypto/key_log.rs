//! The key log: lines from which recorded packets can be opened. What they are, and who writes them; not where they go.
//!
//! A line is `LABEL ID SECRET`, numbers in hexadecimal, as in NSS's key logs, so that one file serves Wireshark, too:
//!
//! ```text
//! LONGHAUL_SUITE                     session id (16 bytes)     TLS cipher suite (2 bytes)
//! LONGHAUL_CLIENT_TRAFFIC_SECRET_0   session id                secret of epoch 0 (32 bytes), client to server
//! LONGHAUL_SERVER_TRAFFIC_SECRET_0   session id                the same, server to client
//! CLIENT_HANDSHAKE_TRAFFIC_SECRET    client random (32 bytes)  of TLS, as rustls tells it; and others of [`LABELS`]
//! ```
//!
//! What makes a session anew, or adds a channel to it, is in no line: exporter secrets, join keys, reset tokens.

use rustls::KeyLog;
use rustls::quic::Suite;
use zeroize::Zeroizing;

use super::schedule::SessionSecrets;
use crate::base::{SessionId, Side};

/// The label of a session's cipher suite.
pub(super) const SUITE_LABEL: &str = "LONGHAUL_SUITE";

/// All labels that are written. rustls offers others, which open more than packets.
const LABELS: [&str; 8] = [
    SUITE_LABEL,
    traffic_label(Side::Client),
    traffic_label(Side::Server),
    EARLY_LABEL,
    handshake_label(Side::Client),
    handshake_label(Side::Server),
    // Of channels that are TLS themselves, for Wireshark.
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
];

/// The label of a client's early data.
pub(super) const EARLY_LABEL: &str = "CLIENT_EARLY_TRAFFIC_SECRET";

/// The label of the packets that a side sends.
pub(super) const fn traffic_label(side: Side) -> &'static str {
    match side {
        Side::Client => "LONGHAUL_CLIENT_TRAFFIC_SECRET_0",
        Side::Server => "LONGHAUL_SERVER_TRAFFIC_SECRET_0",
    }
}

/// The label of what a side sends during the handshake.
pub(super) const fn handshake_label(side: Side) -> &'static str {
    match side {
        Side::Client => "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        Side::Server => "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    }
}

/// Whether lines of a label belong into a key log.
#[must_use]
pub fn is_logged(label: &str) -> bool {
    LABELS.contains(&label)
}

/// A line of a key log, its end included.
#[must_use]
pub fn key_line(label: &str, id: &[u8], secret: &[u8]) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(label.len() + 2 * (id.len() + secret.len()) + 3));
    line.push_str(label);
    for bytes in [id, secret] {
        line.push(' ');
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                line.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
    }
    line.push('\n');
    line
}

impl SessionSecrets {
    /// Tells a key log what opens the packets of the session.
    pub fn tell(&self, key_log: &dyn KeyLog, session_id: SessionId, suite: &Suite) {
        if !key_log.will_log(SUITE_LABEL) {
            return;
        }
        key_log.log(SUITE_LABEL, &session_id.0, &u16::from(suite.suite.common.suite).to_be_bytes());
        for side in [Side::Client, Side::Server] {
            key_log.log(traffic_label(side), &session_id.0, self.traffic(side).expose());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_label_and_two_numbers() {
        assert_eq!(key_line("LABEL", &[0, 0xab], &[0x10]).as_str(), "LABEL 00ab 10\n");
    }

    #[test]
    fn what_opens_more_than_packets_is_left_out() {
        assert!(is_logged("LONGHAUL_SUITE") && is_logged("CLIENT_HANDSHAKE_TRAFFIC_SECRET"));
        assert!(!is_logged("EXPORTER_SECRET") && !is_logged("EARLY_EXPORTER_SECRET"));
    }
}
