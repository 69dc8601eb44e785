//! Traffic keys: from the exporter of the session's handshake, stepped by a ratchet after RFC 9001 §6.

use std::sync::Arc;

use ring::hkdf;
use rustls::crypto::cipher::{AeadKey, Iv, NONCE_LEN};
use rustls::quic::{PacketKey, Suite};
use zeroize::Zeroizing;

use crate::base::{Epoch, Secret, SessionId, Side};

/// Label of the exporter (RFC 5705 §4). The context is the session id.
const SESSION_LABEL: &[u8] = b"EXPORTER-longhaul-session-v1";
/// Labels of what is expanded from what the exporter gave.
const CLIENT_TRAFFIC_LABEL: &[u8] = b"longhaul c traffic";
const SERVER_TRAFFIC_LABEL: &[u8] = b"longhaul s traffic";
const JOIN_LABEL: &[u8] = b"longhaul join";
const GUEST_LABEL: &[u8] = b"longhaul guest";

/// What a finished handshake leaves behind: everything that later keys are derived from.
#[derive(Clone, Debug)]
pub struct SessionSecrets {
    client_traffic: Secret<32>,
    server_traffic: Secret<32>,
    join: Secret<32>,
    guest: Secret<32>,
}

impl SessionSecrets {
    /// Draws the secrets from an exporter, which fills a buffer for a label and a context.
    ///
    /// The exporter is asked once: a draw costs several HMACs with the suite's hash, which is SHA-384 mostly. What it gives
    /// is expanded to one secret for each purpose, and forgotten.
    ///
    /// # Errors
    /// What the exporter reports; it fails when the handshake is not complete.
    pub fn from_exporter<E>(
        session_id: SessionId,
        export: impl FnOnce(&mut [u8], &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut exported = Zeroizing::new([0; 32]);
        export(&mut exported[..], SESSION_LABEL, &session_id.0)?;
        let secret = |label| Secret::new(expand_label(hkdf::HKDF_SHA256, &exported[..], label));
        Ok(Self {
            client_traffic: secret(CLIENT_TRAFFIC_LABEL),
            server_traffic: secret(SERVER_TRAFFIC_LABEL),
            join: secret(JOIN_LABEL),
            guest: secret(GUEST_LABEL),
        })
    }

    /// What the proof of a guest is bound to. Both sides know it; it is the key of nothing.
    #[must_use]
    pub fn guest_exporter(&self) -> &Secret<32> {
        &self.guest
    }

    /// What the keys of the packets that a side sends begin with.
    pub(super) fn traffic(&self, side: Side) -> &Secret<32> {
        match side {
            Side::Client => &self.client_traffic,
            Side::Server => &self.server_traffic,
        }
    }

    /// The key of the proofs that bind further channels to the session.
    #[must_use]
    pub fn join_key(&self) -> &Secret<32> {
        &self.join
    }
}

/// The keys of one epoch.
#[derive(Clone)]
pub struct EpochKeys {
    /// Counts the key updates.
    pub epoch: Epoch,
    /// Seals what this side sends.
    pub local: Arc<dyn PacketKey>,
    /// Opens what the peer sent.
    pub remote: Arc<dyn PacketKey>,
}

/// The keys that open packets now: of the epoch before, the current one, and the next one.
#[derive(Clone)]
pub struct OpeningKeys {
    current: Epoch,
    previous: Option<Arc<dyn PacketKey>>,
    /// Of the current epoch and the next one; none before the handshake is complete.
    keys: Option<[Arc<dyn PacketKey>; 2]>,
}

impl OpeningKeys {
    /// No keys, before there are some: they open nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { current: Epoch(0), previous: None, keys: None }
    }

    /// The key for packets of an epoch, if packets of that epoch are acceptable now.
    #[must_use]
    pub fn key(&self, epoch: Epoch) -> Option<&Arc<dyn PacketKey>> {
        let [current, next] = self.keys.as_ref()?;
        if epoch == self.current {
            Some(current)
        } else if Some(epoch) == self.current.next() {
            Some(next)
        } else if epoch.next() == Some(self.current) {
            self.previous.as_ref()
        } else {
            None
        }
    }
}

/// The session's keys over time.
pub struct KeySchedule {
    suite: Suite,
    side: Side,
    previous: Option<EpochKeys>,
    current: EpochKeys,
    next: EpochKeys,
    /// Of the epoch after `next`: client's, server's.
    secrets: [Secret<32>; 2],
}

impl KeySchedule {
    /// The schedule at epoch 0.
    #[must_use]
    pub fn new(suite: Suite, side: Side, secrets: &SessionSecrets) -> Self {
        let secrets = [secrets.client_traffic.clone(), secrets.server_traffic.clone()];
        let current = derive_keys(&suite, side, Epoch(0), &secrets);
        let secrets = secrets.map(|secret| next_secret(&secret));
        let next = derive_keys(&suite, side, Epoch(1), &secrets);
        let secrets = secrets.map(|secret| next_secret(&secret));
        Self { suite, side, previous: None, current, next, secrets }
    }

    /// The epoch that this side sends in.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.current.epoch
    }

    /// The keys that this side sends with.
    #[must_use]
    pub fn current(&self) -> &EpochKeys {
        &self.current
    }

    /// Packets that one key may seal at most: the AEAD's own limit (RFC 9001 §6.6).
    #[must_use]
    pub fn confidentiality_limit(&self) -> u64 {
        self.current.local.confidentiality_limit()
    }

    /// A snapshot of the keys that open packets.
    #[must_use]
    pub fn opening_keys(&self) -> OpeningKeys {
        OpeningKeys {
            current: self.current.epoch,
            previous: self.previous.as_ref().map(|keys| Arc::clone(&keys.remote)),
            keys: Some([Arc::clone(&self.current.remote), Arc::clone(&self.next.remote)]),
        }
    }

    /// Moves to the next epoch; both directions step together. The keys before stay usable for opening until
    /// [`forget_previous`](Self::forget_previous). Returns `false` at the end of the number space.
    pub fn advance(&mut self) -> bool {
        let Some(after) = self.next.epoch.next() else { return false };
        let next = derive_keys(&self.suite, self.side, after, &self.secrets);
        self.secrets = [next_secret(&self.secrets[0]), next_secret(&self.secrets[1])];
        let current = std::mem::replace(&mut self.next, next);
        self.previous = Some(std::mem::replace(&mut self.current, current));
        true
    }

    /// Drops the keys of the epoch before the current one.
    pub fn forget_previous(&mut self) {
        self.previous = None;
    }

    /// Whether keys of the epoch before are still held.
    #[must_use]
    pub fn has_previous(&self) -> bool {
        self.previous.is_some()
    }
}

fn derive_keys(suite: &Suite, side: Side, epoch: Epoch, secrets: &[Secret<32>; 2]) -> EpochKeys {
    let [client, server] = secrets.each_ref().map(|secret| packet_key(suite, secret));
    let (local, remote) = match side {
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    EpochKeys { epoch, local, remote }
}

/// The packet key of a secret.
pub(super) fn packet_key(suite: &Suite, secret: &Secret<32>) -> Arc<dyn PacketKey> {
    let key: [u8; 32] = expand_label(hkdf::HKDF_SHA256, secret.expose(), b"longhaul key");
    let iv: [u8; NONCE_LEN] = expand_label(hkdf::HKDF_SHA256, secret.expose(), b"longhaul iv");
    Arc::from(suite.quic.packet_key(AeadKey::from(key), Iv::from(iv)))
}

/// The secret of the epoch after that of `secret`.
pub(super) fn next_secret(secret: &Secret<32>) -> Secret<32> {
    Secret::new(expand_label(hkdf::HKDF_SHA256, secret.expose(), b"longhaul ku"))
}

/// HKDF-Expand-Label (RFC 8446 §7.1) with an empty context.
pub(super) fn expand_label<const N: usize>(algorithm: hkdf::Algorithm, secret: &[u8], label: &[u8]) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let size = u16::try_from(N).expect("keys are short").to_be_bytes();
    let label_size = [u8::try_from(label.len() + 6).expect("labels are short")];
    let info = [&size[..], &label_size, b"tls13 ", label, &[0]];
    let mut output = [0; N];
    hkdf::Prk::new_less_safe(algorithm, secret)
        .expand(&info, Length(N))
        .and_then(|okm| okm.fill(&mut output))
        .expect("the length is below 255 hashes");
    output
}
