//! The state of an authority: what has to be remembered whatever happens.
//!
//! [`Store`] is the contract. Each method is one transaction: when it returns `Ok`, what it did has reached the disk, and
//! when it does not, nothing or everything of it has. [`RedbStore`] keeps it in a file; a store that several hubs share
//! can stand behind the same trait.

mod error;
mod redb;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::net::IpAddr;

pub use self::error::StoreError;
pub use self::redb::RedbStore;
use super::{Denial, Issuance, Refusal, TokenRecord};
use crate::crypto::token::TokenId;

/// The state of an authority. Methods block, for milliseconds as a rule.
pub trait Store: Debug + Send + Sync {
    /// Remembers a new token.
    ///
    /// # Errors
    /// [`StoreError`]; also if there is one with this id.
    fn add_token(&self, token: &TokenRecord) -> Result<(), StoreError>;

    /// A token.
    ///
    /// # Errors
    /// [`StoreError`].
    fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, StoreError>;

    /// All tokens.
    ///
    /// # Errors
    /// [`StoreError`].
    fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError>;

    /// Makes a token worthless from now on, and gives its row; `None` if there is none. What came by it stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    fn revoke_token(&self, id: TokenId, now_unix: u64) -> Result<Option<TokenRecord>, StoreError>;

    /// Takes one use of a token for a certificate that is going to be issued. Who asks again with the same token and the
    /// same request gets the same reservation, and uses up nothing.
    ///
    /// # Errors
    /// [`StoreError`]. A refusal is no error: nothing has changed then.
    fn reserve(&self, ask: &Ask<'_>) -> Result<Result<Issuance, Refusal>, StoreError>;

    /// Takes one use of a token for the session of a guest: the guest's name, and the token's row as it is then.
    ///
    /// # Errors
    /// [`StoreError`]. A refusal is no error: nothing has changed then.
    fn take_guest_use(&self, ask: &GuestAsk<'_>) -> Result<Result<(String, TokenRecord), Refusal>, StoreError>;

    /// Remembers the certificate of a reservation, and gives the one to be handed out: if another was remembered
    /// meanwhile, that one.
    ///
    /// # Errors
    /// [`StoreError`]; also if there is no such reservation.
    fn commit(&self, token_id: TokenId, request_sha256: [u8; 32], certificate: &[u8]) -> Result<Vec<u8>, StoreError>;

    /// Remembers a certificate that was issued without a token.
    ///
    /// # Errors
    /// [`StoreError`].
    fn record(&self, issuance: &Issuance) -> Result<(), StoreError>;

    /// All certificates, reserved and issued.
    ///
    /// # Errors
    /// [`StoreError`].
    fn issuances(&self) -> Result<Vec<Issuance>, StoreError>;

    /// Puts something on the denylist.
    ///
    /// # Errors
    /// [`StoreError`].
    fn deny(&self, denial: &Denial) -> Result<(), StoreError>;

    /// The denylist.
    ///
    /// # Errors
    /// [`StoreError`].
    fn denials(&self) -> Result<Vec<Denial>, StoreError>;
}

/// What a guest asks for who has proved a token.
#[derive(Clone, Copy, Debug)]
pub struct GuestAsk<'a> {
    /// The token.
    pub token_id: TokenId,
    /// The name that is asked for; empty for the token's own.
    pub name: &'a str,
    /// Where the guest comes from.
    pub address: IpAddr,
    /// Now, in seconds since 1970.
    pub now_unix: u64,
}

/// What somebody asks for who has proved a token. Serial and times are those of the certificate if a new one is reserved.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The token.
    pub token_id: TokenId,
    /// SHA-256 of the request, DER.
    pub request_sha256: [u8; 32],
    /// SHA-256 of the DER SubjectPublicKeyInfo in it.
    pub spki_sha256: [u8; 32],
    /// The name that is asked for; empty for the token's own.
    pub name: &'a str,
    /// Where the request comes from.
    pub address: IpAddr,
    /// Now, in seconds since 1970.
    pub now_unix: u64,
    /// Serial number.
    pub serial: [u8; 16],
    /// Beginning of the certificate, in seconds since 1970.
    pub not_before_unix: i64,
    /// Its end, in seconds since 1970.
    pub not_after_unix: i64,
}

impl Ask<'_> {
    /// The reservation that it leads to.
    fn issuance(&self, token: &TokenRecord, name: String) -> Issuance {
        Issuance {
            token_id: Some(self.token_id),
            request_sha256: self.request_sha256,
            spki_sha256: self.spki_sha256,
            name,
            roles: token.roles.clone(),
            address: Some(self.address),
            serial: self.serial,
            reserved_unix: self.now_unix,
            not_before_unix: self.not_before_unix,
            not_after_unix: self.not_after_unix,
            certificate: None,
        }
    }
}
