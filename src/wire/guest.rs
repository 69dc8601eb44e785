//! What a guest shows in place of a certificate: the id of a token, the proof that it has it, and the name that it wants.

use std::fmt;

use super::error::WireError;

/// What a guest shows: valid in its form, and proved by nobody yet.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestCredential(Vec<u8>);

impl GuestCredential {
    /// Made of its parts; a name that is too long is cut, and then none that anybody gets.
    #[must_use]
    pub fn new(token_id: &[u8; ID_BYTES], proof: &[u8; PROOF_BYTES], name: &str) -> Self {
        let name = name.as_bytes();
        Self([&token_id[..], proof, &name[..name.len().min(NAME_BYTES_MAX)]].concat())
    }

    /// Reads the bytes of a frame.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if !(ID_BYTES + PROOF_BYTES..=ID_BYTES + PROOF_BYTES + NAME_BYTES_MAX).contains(&bytes.len()) {
            return Err(WireError::Range("credential"));
        }
        if !bytes[ID_BYTES + PROOF_BYTES..].iter().all(u8::is_ascii_graphic) {
            return Err(WireError::Text("name"));
        }
        Ok(Self(bytes.to_vec()))
    }

    /// Public id of the token.
    #[must_use]
    pub fn token_id(&self) -> [u8; ID_BYTES] {
        std::array::from_fn(|index| self.0[index])
    }

    /// The token's proof.
    #[must_use]
    pub fn proof(&self) -> [u8; PROOF_BYTES] {
        std::array::from_fn(|index| self.0[ID_BYTES + index])
    }

    /// The name that is asked for; empty for the token's own.
    #[must_use]
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.0[ID_BYTES + PROOF_BYTES..]).unwrap_or_default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for GuestCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestCredential").field("name", &self.name()).finish_non_exhaustive()
    }
}

const ID_BYTES: usize = 10;
const PROOF_BYTES: usize = 64;

/// As long as a node's name.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_read_as_it_was_made() {
        let made = GuestCredential::new(&[1; 10], &[2; 64], "laptop");
        let read = GuestCredential::decode(made.as_bytes()).unwrap();
        assert_eq!((read.token_id(), read.proof(), read.name()), ([1; 10], [2; 64], "laptop"));
        assert_eq!(GuestCredential::decode(&[0; 74]).unwrap().name(), "");
        assert!(!format!("{read:?}").contains('2'), "{read:?}");
    }

    #[test]
    fn other_sizes_and_names_are_refused() {
        for bad in [vec![], vec![b'a'; 73], vec![b'a'; 139], [&[0; 74][..], b"a b"].concat(), vec![0xff; 80]] {
            assert!(GuestCredential::decode(&bad).is_err(), "{bad:x?}");
        }
        assert!(GuestCredential::decode(&[b'a'; 138]).is_ok());
        let long = GuestCredential::new(&[1; 10], &[2; 64], &"x".repeat(100));
        assert_eq!(long.name().len(), 64);
    }
}
