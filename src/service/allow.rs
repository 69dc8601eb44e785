//! Who may use a service.

use crate::crypto::identity::NodeId;

/// Which peers may use a service. Every peer of a session is authenticated already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Every node of a trust domain.
    TrustDomain(String),
    /// Every authenticated node.
    Everyone,
    /// These nodes.
    Nodes(Vec<NodeId>),
}

impl Allow {
    /// Whether `peer` may use the service.
    #[must_use]
    pub fn allows(&self, peer: &NodeId) -> bool {
        match self {
            Self::TrustDomain(domain) => peer.trust_domain() == domain,
            Self::Everyone => true,
            Self::Nodes(nodes) => nodes.contains(peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_allows_its_own() {
        let [a, b] = ["a", "b"].map(|name| NodeId::new("example", name).unwrap());
        let stranger = NodeId::new("elsewhere", "a").unwrap();
        let allowed = |allow: &Allow| [&a, &b, &stranger].map(|node| allow.allows(node));
        assert_eq!(allowed(&Allow::TrustDomain("example".to_owned())), [true, true, false]);
        assert_eq!(allowed(&Allow::Everyone), [true, true, true]);
        assert_eq!(allowed(&Allow::Nodes(vec![b.clone()])), [false, true, false]);
        assert_eq!(allowed(&Allow::Nodes(Vec::new())), [false, false, false]);
    }
}
