//! What the authority remembers: tokens, certificates reserved and issued, and who is denied. And the one place that
//! decides, from a token's row, whether somebody may have a certificate.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{AddressRange, NamePattern};
use crate::crypto::identity::NodeId;
use crate::crypto::token::TokenId;

pub use crate::crypto::identity::Role;

/// A token as the authority knows it. The secret is not here: from the public key nobody can make a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its public name.
    #[serde(with = "text")]
    pub id: TokenId,
    /// The Ed25519 key that its holder signs with.
    #[serde(with = "hex")]
    pub public_key: [u8; 32],
    /// Whether it lets guests in, who get no certificate; else machines that join.
    #[serde(default)]
    pub is_for_guests: bool,
    /// Which names it gives.
    pub name: NamePattern,
    /// Roles of the nodes that it lets in.
    pub roles: Vec<Role>,
    /// Where they have to come from; anywhere if `None`.
    pub address_range: Option<AddressRange>,
    /// When it was made, in seconds since 1970.
    pub created_unix: u64,
    /// From when on it is worth nothing, in seconds since 1970.
    pub not_after_unix: u64,
    /// How many certificates, or sessions of guests, it is good for.
    pub uses_max: u32,
    /// How many were reserved, issued or begun.
    pub use_count: u32,
    /// When it was revoked, in seconds since 1970.
    pub revoked_unix: Option<u64>,
}

impl TokenRecord {
    /// The name that somebody gets who comes from `address` and asks for `asked_name`. Uses are not looked at: who has a
    /// certificate already may ask for it again.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn admit(&self, asked_name: &str, address: IpAddr, now_unix: u64) -> Result<String, Refusal> {
        // A token for guests would else be worth a certificate.
        if self.is_for_guests { Err(Refusal::WrongKind) } else { self.admit_any(asked_name, address, now_unix) }
    }

    /// The name that a guest gets who comes from `address` and asks for `asked_name`. Uses are not looked at.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn admit_guest(&self, asked_name: &str, address: IpAddr, now_unix: u64) -> Result<String, Refusal> {
        if self.is_for_guests { self.admit_any(asked_name, address, now_unix) } else { Err(Refusal::WrongKind) }
    }

    fn admit_any(&self, asked_name: &str, address: IpAddr, now_unix: u64) -> Result<String, Refusal> {
        if self.revoked_unix.is_some() {
            return Err(Refusal::Revoked);
        }
        if now_unix >= self.not_after_unix {
            return Err(Refusal::Expired);
        }
        if self.address_range.is_some_and(|range| !range.contains(address)) {
            return Err(Refusal::WrongAddress);
        }
        self.name.resolve(asked_name).map(str::to_owned).ok_or(Refusal::WrongName)
    }

    /// Whether a further certificate can be had.
    #[must_use]
    pub fn has_uses_left(&self) -> bool {
        self.use_count < self.uses_max
    }

    /// What it is good for now, for lists.
    #[must_use]
    pub fn state(&self, now_unix: u64) -> &'static str {
        match self {
            _ if self.revoked_unix.is_some() => "revoked",
            _ if now_unix >= self.not_after_unix => "expired",
            _ if !self.has_uses_left() => "used up",
            _ => "valid",
        }
    }
}

/// Why somebody does not get a certificate. For the audit log: whoever asked hears of it only that it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The message is none, or the id no id.
    #[error("bad-request")]
    BadRequest,
    /// There is no such token.
    #[error("unknown-token")]
    UnknownToken,
    /// Too many wrong proofs came lately.
    #[error("locked")]
    Locked,
    /// The proof is not the token's, or was made for another connection or request.
    #[error("wrong-proof")]
    WrongProof,
    /// The certificate request is none, its signature does not fit, or its key is of a kind that is not taken.
    #[error("bad-certificate-request")]
    BadCertificateRequest,
    /// It is a token for guests and was used to join, or the other way.
    #[error("wrong-kind")]
    WrongKind,
    /// The token was revoked.
    #[error("revoked")]
    Revoked,
    /// The token has expired.
    #[error("expired")]
    Expired,
    /// It comes from outside of the token's address range.
    #[error("wrong-address")]
    WrongAddress,
    /// The token does not give this name.
    #[error("wrong-name")]
    WrongName,
    /// The token has no uses left.
    #[error("used-up")]
    UsedUp,
    /// The name belongs to another key, whose certificate holds yet.
    #[error("name-taken")]
    NameTaken,
    /// The name, the key or the token is on the denylist.
    #[error("denied")]
    Denied,
    /// The certificate was not issued here, or the name has gone to another machine since.
    #[error("unknown-certificate")]
    UnknownCertificate,
    /// The node was given too many certificates lately.
    #[error("too-many-renewals")]
    TooManyRenewals,
}

/// A certificate that was reserved, and perhaps issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuance {
    /// The token that it was issued for; `None` for those that the operator made.
    #[serde(with = "optional_text")]
    pub token_id: Option<TokenId>,
    /// SHA-256 of the request, DER.
    #[serde(with = "hex")]
    pub request_sha256: [u8; 32],
    /// SHA-256 of the DER SubjectPublicKeyInfo.
    #[serde(with = "hex")]
    pub spki_sha256: [u8; 32],
    /// The node that it names.
    pub name: String,
    /// Roles of the node.
    pub roles: Vec<Role>,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// Serial number.
    #[serde(with = "hex")]
    pub serial: [u8; 16],
    /// When it was reserved, in seconds since 1970.
    pub reserved_unix: u64,
    /// Beginning of the certificate, in seconds since 1970.
    pub not_before_unix: i64,
    /// Its end, in seconds since 1970.
    pub not_after_unix: i64,
    /// The certificate, DER; `None` between reserving and issuing.
    #[serde(with = "hex_bytes")]
    pub certificate: Option<Vec<u8>>,
    /// Of a renewed certificate, the row of the one before.
    #[serde(default, with = "hex_bytes")]
    pub replaces: Option<Vec<u8>>,
    /// Of a renewed certificate, the SHA-256 of all trust anchors that the node was told with it, DER, in ascending
    /// order one behind the other.
    #[serde(default, with = "hex_bytes")]
    pub anchors_sha256: Option<Vec<u8>>,
}

impl Issuance {
    /// Its row in the state, which `replaces` of the next one names.
    #[must_use]
    pub fn row(&self) -> Vec<u8> {
        issuance_key(self.token_id, &self.request_sha256)
    }
}

/// Of each node the newest certificate that was issued, by name.
pub fn newest_of_each(all: impl IntoIterator<Item = Issuance>) -> Vec<Issuance> {
    let issued: Vec<_> = all.into_iter().filter(|issuance| issuance.certificate.is_some()).collect();
    let replaced: HashSet<_> = issued.iter().filter_map(|issuance| issuance.replaces.clone()).collect();
    // Several may be of the same second: then it is the one that no other has replaced.
    let age =
        |issuance: &Issuance| (issuance.reserved_unix, !replaced.contains(&issuance.row()), issuance.not_after_unix);
    let mut newest = BTreeMap::<String, Issuance>::new();
    for issuance in issued {
        match newest.get(&issuance.name) {
            Some(known) if age(known) >= age(&issuance) => {}
            _ => drop(newest.insert(issuance.name.clone(), issuance)),
        }
    }
    newest.into_values().collect()
}

/// The row of what was asked for: the token's id, zeroes without one, and the hash of the request.
pub(super) fn issuance_key(token_id: Option<TokenId>, request_sha256: &[u8; 32]) -> Vec<u8> {
    let id = token_id.map_or([0; TokenId::BYTES], |id| *id.as_bytes());
    [&id[..], request_sha256].concat()
}

/// What is denied: never a certificate by its hash, of which one key can have many (ECDSA signatures are malleable).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Denied {
    /// A node by its name.
    Node(String),
    /// A key, by the SHA-256 of its DER SubjectPublicKeyInfo.
    Key([u8; 32]),
    /// Everything that came by a token.
    Token(TokenId),
}

/// An entry of the denylist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// What is denied.
    #[serde(with = "text")]
    pub denied: Denied,
    /// Since when, in seconds since 1970.
    pub since_unix: u64,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Key(hash) => write!(f, "key:{}", hex::digits(hash)),
            Self::Token(id) => write!(f, "token:{id}"),
        }
    }
}

impl FromStr for Denied {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no entry of a denylist; expected node:NAME, key:SHA256 or token:ID");
        match text.split_once(':').ok_or_else(bad)? {
            ("node", name) if NodeId::new("any", name).is_ok() => Ok(Self::Node(name.to_owned())),
            ("key", digits) => hex::array(digits).map(Self::Key).ok_or_else(bad),
            ("token", id) => id.parse().map(Self::Token).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

/// Values as the text that they print.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(Error::custom)
    }
}

/// The same, of values that may be missing.
mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<impl Display>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| text.parse().map_err(Error::custom)).transpose()
    }
}

/// Bytes of a fixed size as hexadecimal digits.
pub(super) mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::enroll) fn digits(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(in crate::enroll) fn bytes(digits: &str) -> Option<Vec<u8>> {
        let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
            [a, b] => Some((char::from(*a).to_digit(16)? << 4 | char::from(*b).to_digit(16)?) as u8),
            _ => None,
        });
        pairs.collect()
    }

    pub(super) fn array<const N: usize>(digits: &str) -> Option<[u8; N]> {
        bytes(digits)?.try_into().ok()
    }

    pub(super) fn serialize<S: Serializer, const N: usize>(value: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digits(value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[u8; N], D::Error> {
        array(&String::deserialize(from)?).ok_or_else(|| Error::custom("not as many hexadecimal digits as expected"))
    }
}

/// Bytes of any size, which may be missing.
mod hex_bytes {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::hex;

    pub(super) fn serialize<S: Serializer>(value: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_deref().map(hex::digits).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let digits = Option::<String>::deserialize(from)?;
        digits.map(|digits| hex::bytes(&digits).ok_or_else(|| Error::custom("no hexadecimal digits"))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TokenRecord {
        TokenRecord {
            id: TokenId::from_bytes([1; 10]),
            public_key: [2; 32],
            is_for_guests: false,
            name: "dc-b".parse().unwrap(),
            roles: vec!["edge".parse().unwrap()],
            address_range: Some("192.0.2.0/24".parse().unwrap()),
            created_unix: 1000,
            not_after_unix: 2000,
            uses_max: 1,
            use_count: 0,
            revoked_unix: None,
        }
    }

    #[test]
    fn a_token_admits_whom_its_row_names() {
        let inside = "192.0.2.7".parse().unwrap();
        let outside = "198.51.100.7".parse().unwrap();
        assert_eq!(token().admit("", inside, 1999), Ok("dc-b".to_owned()));
        assert_eq!(token().admit("dc-c", inside, 1999), Err(Refusal::WrongName));
        assert_eq!(token().admit("", outside, 1999), Err(Refusal::WrongAddress));
        assert_eq!(token().admit("", inside, 2000), Err(Refusal::Expired));
        assert_eq!(token().admit_guest("", inside, 1999), Err(Refusal::WrongKind));
        let guests = TokenRecord { is_for_guests: true, ..token() };
        assert_eq!(guests.admit("", inside, 1999), Err(Refusal::WrongKind));
        assert_eq!(guests.admit_guest("", inside, 1999), Ok("dc-b".to_owned()));
        assert_eq!(guests.admit_guest("", outside, 1999), Err(Refusal::WrongAddress));
        let revoked = TokenRecord { revoked_unix: Some(1500), ..token() };
        assert_eq!(revoked.admit("", inside, 1999), Err(Refusal::Revoked));
        let used = TokenRecord { use_count: 1, ..token() };
        assert_eq!([token(), revoked, used].map(|token| token.state(1999)), ["valid", "revoked", "used up"]);
        assert_eq!(token().state(2000), "expired");
    }

    #[test]
    fn records_read_what_they_write() {
        let text = serde_json::to_string(&token()).unwrap();
        assert_eq!(serde_json::from_str::<TokenRecord>(&text).unwrap(), token());
        // Rows of before there were guests.
        let old = text.replace("\"is_for_guests\":false,", "");
        assert!(old != text && serde_json::from_str::<TokenRecord>(&old).unwrap() == token());
        let denied = [Denied::Node("dc-b".to_owned()), Denied::Key([7; 32]), Denied::Token(token().id)];
        for denied in denied {
            assert_eq!(denied.to_string().parse(), Ok(denied));
        }
        for bad in ["", "node:", "node:a/b", "key:00", "token:x", "certificate:00"] {
            assert!(bad.parse::<Denied>().is_err(), "{bad}");
        }
        assert!("a b".parse::<Role>().is_err());
    }

    #[test]
    fn of_renewals_within_a_second_the_last_one_counts() {
        let issuance = |request: u8, replaces: Option<Vec<u8>>| Issuance {
            token_id: None,
            request_sha256: [request; 32],
            spki_sha256: [request; 32],
            name: "dc-b".to_owned(),
            roles: Vec::new(),
            address: None,
            serial: [request; 16],
            reserved_unix: 1_800_000_000,
            not_before_unix: 0,
            not_after_unix: i64::MAX,
            certificate: Some(Vec::new()),
            replaces,
            anchors_sha256: None,
        };
        let first = issuance(9, None);
        let second = issuance(5, Some(first.row()));
        let third = issuance(7, Some(second.row()));
        let all = [first, second, third.clone()];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(
                newest_of_each(order.map(|index| all[index].clone())),
                std::slice::from_ref(&third),
                "{order:?}"
            );
        }
    }
}
