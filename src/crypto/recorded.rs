//! Opens recorded packets with the lines of a [key log](super::key_log). Checks no order of packets: a recording has gaps.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ring::hkdf;
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::quic::{PacketKey, Suite};

use super::key_log::{EARLY_LABEL, SUITE_LABEL, handshake_label, traffic_label};
use super::schedule::{expand_label, packet_key};
use super::seal::open_with;
use crate::base::{Epoch, Secret, SessionId, Side};
use crate::wire::{Head, Sealed};

/// Sessions and handshakes of one key log that are kept; further ones are left out.
const ENTRIES_MAX: usize = 1 << 16;

/// Steps of the ratchet for one session: a day of one full key after another at 100 Gbit/s takes 16,875. What a recording
/// says of its epochs costs no more than this.
const STEPS_MAX: u32 = 1 << 16;

/// The lines of a key log.
pub struct RecordedKeys {
    suites: Vec<Suite>,
    sessions: HashMap<SessionId, SessionLines>,
    handshakes: HashMap<[u8; 32], HandshakeLines>,
}

/// What is known of a session.
#[derive(Default)]
struct SessionLines {
    suite: Option<Suite>,
    /// Client's and server's.
    secrets: [Option<Secret<32>>; 2],
}

/// The keys of a TLS handshake: client's, server's, and the client's for early data.
#[derive(Default)]
struct HandshakeLines {
    sides: [Option<Arc<dyn PacketKey>>; 2],
    early: Option<Arc<dyn PacketKey>>,
}

/// Why a recorded packet stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// No line opens it.
    #[error("its keys are not in the key log")]
    NoKeys,
    /// Its epoch is too far from the others.
    #[error("its epoch is out of reach")]
    Epoch,
    /// The keys are those of something else, or the packet was damaged.
    #[error("its seal does not match the keys")]
    Forged,
}

impl RecordedKeys {
    /// Reads the lines of a key log, newest last. What is none of ours is skipped, as Wireshark does.
    #[must_use]
    pub fn parse(text: &str, provider: &CryptoProvider) -> Self {
        let suites = provider.cipher_suites.iter().filter_map(|suite| suite.tls13()?.quic_suite()).collect();
        let mut keys = Self { suites, sessions: HashMap::new(), handshakes: HashMap::new() };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some(label), Some(id), Some(secret), None) =
                (words.next(), words.next(), words.next(), words.next())
            {
                let _ = keys.add(label, id, secret);
            }
        }
        keys
    }

    /// How many sessions it knows.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions
            .values()
            .filter(|lines| lines.suite.is_some() && lines.secrets.iter().all(Option::is_some))
            .count()
    }

    /// `None`: the line is none of ours.
    fn add(&mut self, label: &str, id: &str, secret: &str) -> Option<()> {
        let side = |label_of: fn(Side) -> &'static str| {
            [Side::Client, Side::Server].into_iter().find(|side| label_of(*side) == label)
        };
        if label == SUITE_LABEL {
            let number = u16::from_be_bytes(from_hex(secret)?);
            let suite = *self.suites.iter().find(|suite| u16::from(suite.suite.common.suite) == number)?;
            self.session(id)?.suite = Some(suite);
        } else if let Some(side) = side(traffic_label) {
            let secret = Secret::new(from_hex(secret)?);
            self.session(id)?.secrets[side as usize] = Some(secret);
        } else if let Some(side) = side(handshake_label) {
            let key = self.tls_key(secret)?;
            self.handshake(id)?.sides[side as usize] = Some(key);
        } else if label == EARLY_LABEL {
            let key = self.tls_key(secret)?;
            self.handshake(id)?.early = Some(key);
        }
        Some(())
    }

    fn session(&mut self, id: &str) -> Option<&mut SessionLines> {
        let id = SessionId(from_hex(id)?);
        let has_room = self.sessions.len() < ENTRIES_MAX || self.sessions.contains_key(&id);
        has_room.then(|| self.sessions.entry(id).or_default())
    }

    fn handshake(&mut self, random: &str) -> Option<&mut HandshakeLines> {
        let random = from_hex(random)?;
        let has_room = self.handshakes.len() < ENTRIES_MAX || self.handshakes.contains_key(&random);
        has_room.then(|| self.handshakes.entry(random).or_default())
    }

    /// The packet key of a TLS traffic secret, after RFC 9001 §5.1. The secret's size says which suite it is of: of those
    /// that we have, each has another hash.
    fn tls_key(&self, secret: &str) -> Option<Arc<dyn PacketKey>> {
        let suite =
            self.suites.iter().find(|suite| suite.suite.common.hash_provider.output_len() * 2 == secret.len())?;
        let derive = |algorithm, secret: &[u8]| -> Arc<dyn PacketKey> {
            let key: [u8; 32] = expand_label(algorithm, secret, b"quic key");
            let iv: [u8; 12] = expand_label(algorithm, secret, b"quic iv");
            Arc::from(suite.quic.packet_key(AeadKey::from(key), Iv::from(iv)))
        };
        match secret.len() {
            64 => Some(derive(hkdf::HKDF_SHA256, Secret::<32>::new(from_hex(secret)?).expose())),
            96 => Some(derive(hkdf::HKDF_SHA384, Secret::<48>::new(from_hex(secret)?).expose())),
            _ => None,
        }
    }

    /// What opens the packets of a session, if the key log has it.
    #[must_use]
    pub fn opener(&self, session_id: SessionId) -> Option<RecordedOpener> {
        let SessionLines { suite: Some(suite), secrets: [Some(client), Some(server)] } =
            self.sessions.get(&session_id)?
        else {
            return None;
        };
        let ratchet = |secret: &Secret<32>| Ratchet {
            first: secret.clone(),
            epoch: Epoch(0),
            secret: secret.clone(),
            key: packet_key(suite, secret),
            before: None,
            steps: 0,
        };
        Some(RecordedOpener { suite: *suite, sides: [ratchet(client), ratchet(server)] })
    }

    /// Opens a packet that `side` sent during the handshake with this client random.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open_handshake(
        &self,
        random: &[u8; 32],
        side: Side,
        head: &Head,
        sealed: Sealed,
    ) -> Result<Bytes, NotOpened> {
        let lines = self.handshakes.get(random).ok_or(NotOpened::NoKeys)?;
        let key = lines.sides[side as usize].as_ref().ok_or(NotOpened::NoKeys)?;
        open_with(&**key, head, sealed).map_err(|_| NotOpened::Forged)
    }

    /// Opens a packet of early data of the client with this random.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open_early(&self, random: &[u8; 32], head: &Head, sealed: Sealed) -> Result<Bytes, NotOpened> {
        let key = self.handshakes.get(random).and_then(|lines| lines.early.as_ref()).ok_or(NotOpened::NoKeys)?;
        open_with(&**key, head, sealed).map_err(|_| NotOpened::Forged)
    }
}

/// Opens the packets of one session, of both directions and all lanes.
pub struct RecordedOpener {
    suite: Suite,
    sides: [Ratchet; 2],
}

/// The keys of one direction, at the newest epoch of which a packet was opened.
struct Ratchet {
    first: Secret<32>,
    epoch: Epoch,
    secret: Secret<32>,
    key: Arc<dyn PacketKey>,
    /// Lanes do not change keys at the same moment.
    before: Option<(Epoch, Arc<dyn PacketKey>)>,
    steps: u32,
}

impl RecordedOpener {
    /// Opens a packet that `side` sent.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(&mut self, side: Side, head: &Head, sealed: Sealed) -> Result<Bytes, NotOpened> {
        let ratchet = &mut self.sides[side as usize];
        if head.epoch == ratchet.epoch {
            return open_with(&*ratchet.key, head, sealed).map_err(|_| NotOpened::Forged);
        }
        if let Some((_, key)) = ratchet.before.as_ref().filter(|(epoch, _)| *epoch == head.epoch) {
            return open_with(&**key, head, sealed).map_err(|_| NotOpened::Forged);
        }
        let secret = ratchet.secret_of(head.epoch).ok_or(NotOpened::Epoch)?;
        let key = packet_key(&self.suite, &secret);
        let content = open_with(&*key, head, sealed).map_err(|_| NotOpened::Forged)?;
        let key = std::mem::replace(&mut ratchet.key, key);
        ratchet.before = Some((std::mem::replace(&mut ratchet.epoch, head.epoch), key));
        ratchet.secret = secret;
        Ok(content)
    }
}

impl Ratchet {
    /// The secret of an epoch, from the nearest one that is known.
    fn secret_of(&mut self, epoch: Epoch) -> Option<Secret<32>> {
        let (begin, secret) = if epoch > self.epoch { (self.epoch.0, &self.secret) } else { (0, &self.first) };
        let count = epoch.0 - begin;
        if count > STEPS_MAX - self.steps {
            return None;
        }
        self.steps += count;
        Some((0..count).fold(secret.clone(), |secret, _| super::schedule::next_secret(&secret)))
    }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}
