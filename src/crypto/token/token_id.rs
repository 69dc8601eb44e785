//! The public name of a token.

use std::fmt;
use std::str::FromStr;

use super::TokenError;
use super::alphabet::{base32, from_base32};
use crate::base::Entropy;

/// Which token: 80 random bits, written as 16 characters `a-z2-7`. Not secret: logs and lists show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; Self::BYTES]);

impl TokenId {
    /// Size as bytes.
    pub const BYTES: usize = 10;

    /// Size as text.
    pub const CHARS: usize = 16;

    /// A new one.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; Self::BYTES];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// The one with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut bytes = [0; Self::BYTES];
        from_base32(text, &mut bytes).ok_or(TokenError::NotAnId)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(Self::CHARS);
        base32(&self.0, &mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
