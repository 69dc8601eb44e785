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
use super::{Denial, Denied, Issuance, Refusal, TokenRecord};
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

    /// The tokens of guests that were revoked or denied and have not expired: sessions that came by them are to end.
    ///
    /// # Errors
    /// [`StoreError`].
    fn revoked_guest_tokens(&self, now_unix: u64) -> Result<Vec<TokenId>, StoreError>;

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

    /// Reserves a further certificate for the holder of one that was issued here. Who asks again with the same request
    /// gets the same reservation.
    ///
    /// # Errors
    /// [`StoreError`]. A refusal is no error: nothing has changed then.
    fn renew(&self, ask: &RenewAsk<'_>) -> Result<Result<Issuance, Refusal>, StoreError>;

    /// Puts something on the denylist, which gets a new version.
    ///
    /// # Errors
    /// [`StoreError`].
    fn deny(&self, denial: &Denial) -> Result<(), StoreError>;

    /// Takes something off the denylist, which gets a new version. Whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn allow(&self, denied: &Denied, now_unix: u64) -> Result<bool, StoreError>;

    /// Gives the denylist a new version, so that everybody takes it again.
    ///
    /// # Errors
    /// [`StoreError`].
    fn revise_denylist(&self, now_unix: u64) -> Result<(), StoreError>;

    /// Grows with every change of the denylist; 0 before the first one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn denylist_version(&self) -> Result<u64, StoreError>;

    /// The denylist with its version, and with the keys of everything that came by a denied token.
    ///
    /// # Errors
    /// [`StoreError`].
    fn denylist(&self) -> Result<DenylistRecord, StoreError>;

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

/// What somebody asks for who has shown a certificate. Serial and times are those of the certificate if a new one is
/// reserved.
#[derive(Clone, Debug)]
pub struct RenewAsk<'a> {
    /// The node that the shown certificate names.
    pub name: &'a str,
    /// SHA-256 of its DER SubjectPublicKeyInfo.
    pub held_spki_sha256: [u8; 32],
    /// SHA-256 of the request, DER.
    pub request_sha256: [u8; 32],
    /// SHA-256 of the DER SubjectPublicKeyInfo in it.
    pub spki_sha256: [u8; 32],
    /// Where the request comes from.
    pub address: Option<IpAddr>,
    /// Now, in seconds since 1970.
    pub now_unix: u64,
    /// How long certificates hold, in seconds.
    pub lifetime_secs: u64,
    /// SHA-256 of all trust anchors that the node is told with it.
    pub anchors_sha256: [u8; 32],
    /// Serial number.
    pub serial: [u8; 16],
    /// Beginning of the certificate, in seconds since 1970.
    pub not_before_unix: i64,
    /// Its end, in seconds since 1970.
    pub not_after_unix: i64,
}

impl RenewAsk<'_> {
    /// The reservation that follows `held`, in the place of `newest`.
    fn issuance(&self, held: &Issuance, newest: Vec<u8>) -> Issuance {
        Issuance {
            token_id: held.token_id,
            request_sha256: self.request_sha256,
            spki_sha256: self.spki_sha256,
            name: held.name.clone(),
            roles: held.roles.clone(),
            address: self.address,
            serial: self.serial,
            reserved_unix: self.now_unix,
            not_before_unix: self.not_before_unix,
            not_after_unix: self.not_after_unix,
            certificate: None,
            replaces: Some(newest),
            anchors_sha256: Some(self.anchors_sha256.to_vec()),
        }
    }
}

/// The denylist as the nodes need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenylistRecord {
    /// Grows with every change; 0 before the first one.
    pub version: u64,
    /// What operators denied.
    pub denials: Vec<Denial>,
    /// SHA-256 of the DER SubjectPublicKeyInfo of what came by denied tokens.
    pub keys: Vec<[u8; 32]>,
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
            replaces: None,
            anchors_sha256: None,
        }
    }
}
