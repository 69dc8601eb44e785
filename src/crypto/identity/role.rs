//! Roles: names for what nodes have in common, which their authority puts into their certificates.
//!
//! They stand in a private, not critical extension (RFC 5280 §4.2) of the leaf, so that they are signed with everything
//! else and verifiers that do not know them pass over them. A second URI SAN would break X.509-SVID §2, and a part of the
//! subject is what other authorities let a requester choose.

use std::fmt;
use std::str::FromStr;

use x509_parser::certificate::X509Certificate;

use super::node_id::is_node_name;
use super::{IdentityError, NodeId};

/// A role of a node: 1 to 64 of `A-Z a-z 0-9 . _ -`, as names are. `guest` is none: who is one is known without a
/// certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "enroll", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "enroll", serde(try_from = "String", into = "String"))]
pub struct Role(String);

impl Role {
    /// The role as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == GUEST {
            return Err(format!("\"{GUEST}\" is what peers without a certificate are; choose another name for a role"));
        }
        let bad = || format!("{text:?} is no role; expected 1 to 64 of A-Z, a-z, 0-9, '.', '-', '_'");
        is_node_name(text).then(|| Self(text.to_owned())).ok_or_else(bad)
    }
}

impl TryFrom<String> for Role {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The roles of one node: each once, in the order of the alphabet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(Vec<Role>);

impl Roles {
    /// These roles.
    ///
    /// # Errors
    /// If there are more than [`ROLES_MAX`].
    pub fn new(roles: impl IntoIterator<Item = Role>) -> Result<Self, IdentityError> {
        let mut roles: Vec<_> = roles.into_iter().collect();
        roles.sort();
        roles.dedup();
        if roles.len() > ROLES_MAX {
            return Err(bad(format!("{} roles; expected at most {ROLES_MAX}", roles.len())));
        }
        Ok(Self(roles))
    }

    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `role` is one of them.
    #[must_use]
    pub fn contains(&self, role: &Role) -> bool {
        self.0.binary_search(role).is_ok()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Role> {
        self.0.iter()
    }

    /// The value of the extension: a DER `SEQUENCE OF UTF8String`.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let content: Vec<u8> =
            self.0.iter().flat_map(|role| [&[UTF8_STRING, role.0.len() as u8], role.0.as_bytes()].concat()).collect();
        // Lengths up to 127 have one form, those up to 65,535 another (X.690 §8.1.3).
        let length = content.len();
        let mut der = vec![SEQUENCE];
        match length {
            0..=0x7f => der.push(length as u8),
            0x80..=0xff => der.extend([0x81, length as u8]),
            _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        der.extend(content);
        der
    }

    /// Reads what [`to_der`](Self::to_der) writes, and nothing else: one spelling, sorted, each role once.
    ///
    /// # Errors
    /// [`IdentityError::BadRoles`].
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let malformed = || bad("the extension is no list of roles".to_owned());
        // That the length is right is seen in the end.
        let ([SEQUENCE, 0x82, _, _, rest @ ..] | [SEQUENCE, 0x81, _, rest @ ..] | [SEQUENCE, _, rest @ ..]) = der
        else {
            return Err(malformed());
        };
        let mut rest = rest;
        let mut roles = Vec::new();
        while let [UTF8_STRING, length, after @ ..] = rest {
            if roles.len() == ROLES_MAX {
                return Err(bad(format!("more than {ROLES_MAX} roles")));
            }
            let (text, after) = after.split_at_checked(usize::from(*length)).ok_or_else(malformed)?;
            let text = std::str::from_utf8(text).map_err(|_| malformed())?;
            roles.push(text.parse::<Role>().map_err(bad)?);
            rest = after;
        }
        let roles = Self::new(roles)?;
        if rest.is_empty() && roles.to_der() == der { Ok(roles) } else { Err(malformed()) }
    }

    /// What a certificate says. One without the extension has none.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let mut found = certificate
            .extensions()
            .iter()
            .filter(|extension| extension.oid.iter().is_some_and(|arcs| arcs.eq(ROLES_OID.iter().copied())));
        match (found.next(), found.next()) {
            (None, _) => Ok(Self::none()),
            (Some(extension), None) => Self::from_der(extension.value),
            (Some(_), Some(_)) => Err(bad("the extension is there twice".to_owned())),
        }
    }

    /// What the certificate of a node says of its roles, DER. Verifies nothing.
    ///
    /// # Errors
    /// If the certificate or its roles cannot be read.
    pub fn of_certificate(certificate: &rustls::pki_types::CertificateDer<'_>) -> Result<Self, IdentityError> {
        use x509_parser::prelude::FromDer;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| super::leaf::bad(&error))?;
        Self::of(&parsed)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(Role::as_str).collect();
        f.write_str(&texts.join(", "))
    }
}

/// The name of a peer that has no certificate and proved a token: allowed only where this word says so.
pub const GUEST: &str = "guest";

/// Roles of one node.
pub const ROLES_MAX: usize = 16;

/// The extension: under the arc that Microsoft gives to identifiers made of a random UUID, here
/// 7f2c5a1e-94b3-4d0e-8c61-a3f90b7d24e8, cut into two, two, two, two, two, three and three bytes.
pub const ROLES_OID: [u64; 14] =
    [1, 2, 840, 113_556, 1, 8000, 2554, 0x7f2c, 0x5a1e, 0x94b3, 0x4d0e, 0x8c61, 0x00a3_f90b, 0x007d_24e8];

const SEQUENCE: u8 = 0x30;
const UTF8_STRING: u8 = 0x0c;

// A role's length has one byte, and a list of them two.
const _: () = assert!(NodeId::NAME_BYTES_MAX < 0x80 && ROLES_MAX * (NodeId::NAME_BYTES_MAX + 2) < 0x10000);

fn bad(reason: String) -> IdentityError {
    IdentityError::BadRoles { reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn roles(texts: &[&str]) -> Roles {
        Roles::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
    }

    #[test]
    fn roles_read_what_they_write() {
        let many: Vec<_> = (0..ROLES_MAX).map(|n| format!("{n:064}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for list in [&[][..], &["edge"], &["b", "a", "b"], &many[..1], &many[..3], &many] {
            let written = roles(list);
            assert_eq!(Roles::from_der(&written.to_der()), Ok(written));
        }
        assert_eq!(roles(&["edge"]).to_der(), b"\x30\x06\x0c\x04edge");
        assert_eq!(roles(&["b", "a"]).to_string(), "a, b");
        assert!(roles(&["b", "a"]).contains(&"a".parse().unwrap()));
        assert!(!roles(&["b", "a"]).contains(&"c".parse().unwrap()));
    }

    #[test]
    fn other_spellings_are_refused() {
        let good = b"\x30\x06\x0c\x01a\x0c\x01b".to_vec();
        assert!(Roles::from_der(&good).is_ok());
        let bads: [&[u8]; 10] = [
            b"",
            b"\x30",
            b"\x30\x06\x0c\x01b\x0c\x01a",
            b"\x30\x06\x0c\x01a\x0c\x01a",
            b"\x30\x05\x0c\x01a\x0c\x01b",
            b"\x30\x81\x06\x0c\x01a\x0c\x01b",
            b"\x30\x06\x0c\x01a\x0c\x05b",
            b"\x30\x07\x0c\x01a\x0c\x01b\x00",
            b"\x30\x03\x0c\x01/",
            b"\x30\x07\x0c\x05guest",
        ];
        for bad in bads {
            assert!(Roles::from_der(bad).is_err(), "{bad:x?}");
        }
        assert!("guest".parse::<Role>().is_err() && "a b".parse::<Role>().is_err() && "".parse::<Role>().is_err());
        let many = (0..=ROLES_MAX).map(|n| n.to_string().parse().unwrap());
        assert!(Roles::new(many).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_each_value_has_one_spelling(der in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(roles) = Roles::from_der(&der) {
                prop_assert_eq!(roles.to_der(), der);
            }
        }

        #[test]
        fn no_list_panics(texts in prop::collection::vec("[a-zA-Z0-9._-]{1,64}", 0..20)) {
            let made = Roles::new(texts.iter().filter_map(|text| text.parse().ok()));
            if let Ok(roles) = made {
                prop_assert_eq!(Roles::from_der(&roles.to_der()), Ok(roles));
            }
        }
    }
}
