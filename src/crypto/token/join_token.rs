//! The token as one string: `lhjoin_<id>_<seed>_<pin>_<checksum>`.
//!
//! The prefix and the checksum let secret scanners find it (<https://github.blog/2021-04-05-behind-githubs-new-authentication-token-formats/>), and tell a
//! person who cut or mistyped it so. No error repeats any part of what came.

use std::fmt;

use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use super::TokenId;
use super::alphabet::{CHECKSUM_CHARS, base32, base62, base64url, crc32, from_base64url};
use super::proof::{EnrollProof, GuestProof, PROOF_BYTES};
use crate::base::{Entropy, Secret};

/// What lets one machine, or several, join a trust domain. `Debug` shows its id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: TokenId,
    seed: Secret<32>,
    authority_pin: [u8; 32],
}

impl JoinToken {
    /// Makes a new token for the authority whose DER SubjectPublicKeyInfo has the SHA-256 `authority_pin`.
    #[must_use]
    pub fn generate(authority_pin: [u8; 32], entropy: &mut dyn Entropy) -> Self {
        let id = TokenId::generate(entropy);
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(&mut *seed);
        Self::from_parts(id, Secret::new(*seed), authority_pin)
    }

    /// The token of these parts.
    #[must_use]
    pub fn from_parts(id: TokenId, seed: Secret<32>, authority_pin: [u8; 32]) -> Self {
        Self { id, seed, authority_pin }
    }

    /// Reads a token. White space around it is left out, as files end with a newline.
    ///
    /// # Errors
    /// [`TokenError`], which says what is wrong and repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        if !text.is_ascii() {
            return Err(TokenError::Mistyped);
        }
        if text.len() < TOKEN_CHARS {
            return Err(TokenError::Cut { missing_count: TOKEN_CHARS - text.len() });
        }
        if text.len() > TOKEN_CHARS {
            return Err(TokenError::TooLong { extra_count: text.len() - TOKEN_CHARS });
        }
        let (body, checksum) = text.split_at(TOKEN_CHARS - CHECKSUM_CHARS);
        let mut expected = String::new();
        base62(crc32(body.as_bytes()), &mut expected);
        if checksum != expected {
            return Err(TokenError::Mistyped);
        }
        Self::from_body(rest).ok_or(TokenError::Mistyped)
    }

    /// The whole token: a secret, to be shown once and to nobody else.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // Of the final size from the beginning: growth would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS));
        text.push_str(PREFIX);
        base32(self.id.as_bytes(), &mut text);
        text.push('_');
        base64url(self.seed.expose(), &mut text);
        text.push('_');
        base64url(&self.authority_pin, &mut text);
        text.push('_');
        let checksum = crc32(text.as_bytes());
        base62(checksum, &mut text);
        text
    }

    /// Its public name.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo of the authority that the hub has to show.
    #[must_use]
    pub fn authority_pin(&self) -> &[u8; 32] {
        &self.authority_pin
    }

    /// The Ed25519 public key, which is all that the hub keeps of the seed.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key_pair().public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// Proves that the holder of this token asks for what `proof` says, on the connection that it names.
    #[must_use]
    pub fn prove(&self, proof: &EnrollProof<'_>) -> [u8; PROOF_BYTES] {
        let signature = self.key_pair().sign(&proof.message());
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// Proves that the holder of this token is the client of the session that `proof` names.
    #[must_use]
    pub fn prove_guest(&self, proof: &GuestProof<'_>) -> [u8; PROOF_BYTES] {
        let signature = self.key_pair().sign(&proof.message());
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    fn key_pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(self.seed.expose()).expect("any 32 bytes are an Ed25519 seed")
    }

    /// What is between the prefix and the checksum, which have been looked at. Underscores are letters of base64url, so
    /// that only places tell the parts.
    fn from_body(rest: &str) -> Option<Self> {
        let (id, rest) = rest.split_at_checked(TokenId::CHARS)?;
        let (seed, rest) = rest.strip_prefix('_')?.split_at_checked(KEY_CHARS)?;
        let (pin, rest) = rest.strip_prefix('_')?.split_at_checked(KEY_CHARS)?;
        rest.strip_prefix('_')?;
        let mut bytes = Zeroizing::new([0; 32]);
        from_base64url(seed, &mut *bytes)?;
        let mut authority_pin = [0; 32];
        from_base64url(pin, &mut authority_pin)?;
        Some(Self::from_parts(id.parse().ok()?, Secret::new(*bytes), authority_pin))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// What is wrong with a text that should be a token. Says nothing of what the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("this is not a token; expected one line that begins with {PREFIX}")]
    NotAToken,
    /// It begins as a token, and is too short.
    #[error("the token is cut: the last {missing_count} of its {TOKEN_CHARS} characters are missing; copy it again")]
    Cut {
        /// How many characters are missing.
        missing_count: usize,
    },
    /// It begins as a token, and something follows it.
    #[error("the token has {extra_count} characters too many; expected {TOKEN_CHARS} and nothing else")]
    TooLong {
        /// How many characters are too many.
        extra_count: usize,
    },
    /// It is as long as a token, and its checksum is not right.
    #[error("the token is mistyped: its checksum does not fit; copy it again")]
    Mistyped,
    /// It is no id of a token.
    #[error("this is not the id of a token; expected 16 characters a-z and 2-7, as `longhaul token list` shows them")]
    NotAnId,
}

/// Tells people and secret scanners what it is.
const PREFIX: &str = "lhjoin_";

/// 32 bytes in base64url.
const KEY_CHARS: usize = 43;

/// Of the whole token.
const TOKEN_CHARS: usize = PREFIX.len() + TokenId::CHARS + 1 + KEY_CHARS + 1 + KEY_CHARS + 1 + CHECKSUM_CHARS;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(id: [u8; 10], seed: [u8; 32], pin: [u8; 32]) -> JoinToken {
        JoinToken::from_parts(TokenId::from_bytes(id), Secret::new(seed), pin)
    }

    proptest! {
        #[test]
        fn a_token_reads_what_it_writes(id: [u8; 10], seed: [u8; 32], pin: [u8; 32]) {
            let written = token(id, seed, pin);
            let text = written.to_text();
            prop_assert_eq!(text.len(), TOKEN_CHARS);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            prop_assert_eq!(JoinToken::parse(&text), Ok(written.clone()));
            prop_assert_eq!(JoinToken::parse(&format!("  {}\r\n", *text)), Ok(written));
        }

        #[test]
        fn one_other_character_is_a_mistake(seed: [u8; 32], at in 7..TOKEN_CHARS, other in "[!-~]") {
            let text = token([7; 10], seed, [9; 32]).to_text();
            let mut changed = text.to_string();
            changed.replace_range(at..=at, &other);
            let expected = if changed == *text { Ok(token([7; 10], seed, [9; 32])) } else { Err(TokenError::Mistyped) };
            prop_assert_eq!(JoinToken::parse(&changed), expected);
        }

        #[test]
        fn two_exchanged_characters_are_a_mistake(seed: [u8; 32], at in 24..66usize) {
            let text = token([7; 10], seed, [9; 32]).to_text();
            let mut bytes = text.as_bytes().to_vec();
            bytes.swap(at, at + 1);
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(JoinToken::parse(&changed).is_ok(), changed == *text);
        }

        #[test]
        fn a_cut_token_is_called_so(seed: [u8; 32], length in 7..TOKEN_CHARS) {
            let text = token([7; 10], seed, [9; 32]).to_text();
            let missing_count = TOKEN_CHARS - length;
            prop_assert_eq!(JoinToken::parse(&text[..length]), Err(TokenError::Cut { missing_count }));
        }

        #[test]
        fn no_text_panics(text in "(lhjoin_)?\\PC{0,130}") {
            let _ = JoinToken::parse(&text);
        }
    }

    #[test]
    fn other_texts_are_called_what_they_are() {
        let text = token([7; 10], [8; 32], [9; 32]).to_text();
        for other in ["", "hello", "LHJOIN_abc", "-----BEGIN PRIVATE KEY-----"] {
            assert_eq!(JoinToken::parse(other), Err(TokenError::NotAToken), "{other}");
        }
        assert_eq!(JoinToken::parse(&format!("{}xy", *text)), Err(TokenError::TooLong { extra_count: 2 }));
        assert_eq!(JoinToken::parse("lhjoin_\u{e4}"), Err(TokenError::Mistyped));
        for bad in ["", "abc", "ABCDEFGHIJKLMNOP", "abcdefghijklmno1", "abcdefghijklmnopq"] {
            assert_eq!(bad.parse::<TokenId>(), Err(TokenError::NotAnId), "{bad}");
        }
    }

    #[test]
    fn neither_debug_nor_errors_show_the_secret() {
        let token = token([7; 10], [8; 32], [9; 32]);
        let text = token.to_text();
        let seed = &text[24..67];
        assert_eq!(format!("{token:?}"), format!("JoinToken {{ id: {}, seed: [redacted], .. }}", token.id()));
        for bad in [&text[..100], &text.replace('a', "b"), &format!("{}x", *text), &text[1..]] {
            let error = JoinToken::parse(bad).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(&seed[..8]) && !shown.contains(&seed[30..]), "{shown}");
        }
    }

    /// `tests/golden/join-token.txt`: tokens that were given out have to stay readable.
    #[test]
    fn the_golden_token_is_read_and_written() {
        let golden = include_str!("../../../tests/golden/join-token.txt");
        let mut lines = golden.lines().filter(|line| !line.starts_with('#'));
        let counting = |start: u8| std::array::from_fn(|index| start + index as u8);
        let id = TokenId::from_bytes(std::array::from_fn(|index| 0x10 + index as u8));
        let token = JoinToken::from_parts(id, Secret::new(counting(0x20)), counting(0x80));
        assert_eq!(lines.next(), Some(token.to_text().as_str()));
        assert_eq!(JoinToken::parse(golden.lines().last().unwrap()), Ok(token));
    }
}
