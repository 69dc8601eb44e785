//! The name of a node or of a guest: a trust domain and a name in it, always valid, written as a SPIFFE ID.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::IdentityError;

/// Who a node is: `spiffe://<trust-domain>/node/<name>` (SPIFFE ID §2). Or who a guest is, a peer without a certificate:
/// `spiffe://<trust-domain>/guest/<name>`, which no text can be read as, so that a guest is never taken for a node that
/// has the same name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    trust_domain: Arc<str>,
    name: Arc<str>,
    is_guest: bool,
}

impl NodeId {
    /// A node `name` of `trust_domain`.
    ///
    /// # Errors
    /// If the trust domain is not 1 to 255 of `a-z 0-9 . _ -`, or the name not 1 to 64 of `A-Z a-z 0-9 . _ -`, or
    /// the name is `.` or `..`.
    pub fn new(trust_domain: &str, name: &str) -> Result<Self, IdentityError> {
        if !is_trust_domain(trust_domain) {
            return Err(IdentityError::BadTrustDomain { found: clip(trust_domain) });
        }
        if !is_node_name(name) {
            return Err(IdentityError::BadNodeName { found: clip(name) });
        }
        Ok(Self { trust_domain: trust_domain.into(), name: name.into(), is_guest: false })
    }

    /// A guest `name` of `trust_domain`.
    ///
    /// # Errors
    /// As [`NodeId::new`].
    pub fn guest(trust_domain: &str, name: &str) -> Result<Self, IdentityError> {
        Ok(Self { is_guest: true, ..Self::new(trust_domain, name)? })
    }

    /// Length of a name. Our own: names appear in log lines, metrics and file names.
    pub const NAME_BYTES_MAX: usize = 64;

    /// The administrative domain, which has certificate authorities of its own.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The node's name in its trust domain.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a guest, not a node.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.is_guest
    }

    /// Another node of the same trust domain, or of any when `name` is a whole SPIFFE ID.
    ///
    /// # Errors
    /// As [`NodeId::new`].
    pub fn relative(&self, name: &str) -> Result<Self, IdentityError> {
        if name.contains("://") { name.parse() } else { Self::new(&self.trust_domain, name) }
    }

    /// The trust domain of `spiffe://<trust-domain>`, as certificate authorities carry it, or of a node's name.
    #[must_use]
    pub fn trust_domain_of_uri(uri: &str) -> Option<&str> {
        let rest = uri.strip_prefix(SCHEME)?;
        let domain = rest.split_once('/').map_or(rest, |(domain, _)| domain);
        is_trust_domain(domain).then_some(domain)
    }
}

impl FromStr for NodeId {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let rest = uri.strip_prefix(SCHEME).ok_or_else(|| IdentityError::BadNodeUri { found: clip(uri) })?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| IdentityError::BadNodeUri { found: clip(uri) })?;
        let name = path.strip_prefix("node/").ok_or_else(|| IdentityError::BadNodeUri { found: clip(uri) })?;
        Self::new(domain, name)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_guest { "guest" } else { "node" };
        write!(f, "{SCHEME}{}/{kind}/{}", self.trust_domain, self.name)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `text` may be a trust domain (SPIFFE ID §2.1).
fn is_trust_domain(text: &str) -> bool {
    (1..=TRUST_DOMAIN_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b))
}

/// Whether `text` may be the name of a node (SPIFFE ID §2.2, one segment).
pub(super) fn is_node_name(text: &str) -> bool {
    (1..=NodeId::NAME_BYTES_MAX).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

/// What came, short and printable enough for a log line.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

const SCHEME: &str = "spiffe://";

/// SPIFFE ID §2.1.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_reads_what_it_writes() {
        let id = NodeId::new("example.org", "dc-A_1").expect("valid");
        assert_eq!(id.to_string(), "spiffe://example.org/node/dc-A_1");
        assert_eq!(id.to_string().parse::<NodeId>().expect("valid"), id);
        assert_eq!((id.trust_domain(), id.name()), ("example.org", "dc-A_1"));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "dc-a",
            "https://example/node/a",
            "spiffe://example",
            "spiffe://example/a",
            "spiffe://example/node/",
            "spiffe://example/node/a/b",
            "spiffe://example/node/a/",
            "spiffe://example/node/..",
            "spiffe://example/node/.",
            "spiffe://example/node/%61",
            "spiffe://example/node/a?x",
            "spiffe://example:1/node/a",
            "spiffe://user@example/node/a",
            "spiffe:///node/a",
            "spiffe://Example/node/a",
            "SPIFFE://example/node/a",
        ] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
        assert!(NodeId::new(&"d".repeat(256), "a").is_err());
        assert!(NodeId::new("d", &"a".repeat(65)).is_err());
    }

    #[test]
    fn a_guest_is_no_node_of_the_same_name() {
        let (node, guest) =
            (NodeId::new("example", "a").expect("valid"), NodeId::guest("example", "a").expect("valid"));
        assert_ne!(node, guest);
        assert_eq!(guest.to_string(), "spiffe://example/guest/a");
        assert!(guest.to_string().parse::<NodeId>().is_err());
        assert!(!guest.relative("b").expect("valid").is_guest());
    }

    #[test]
    fn a_relative_name_stays_in_the_trust_domain() {
        let own = NodeId::new("example", "dc-a").expect("valid");
        assert_eq!(own.relative("dc-b").expect("valid").to_string(), "spiffe://example/node/dc-b");
        assert_eq!(own.relative("spiffe://other/node/x").expect("valid").trust_domain(), "other");
    }
}
