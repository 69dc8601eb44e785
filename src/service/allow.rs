//! Who may use a service.

use crate::crypto::identity::{NodeId, PeerIdentity, Role};

/// Which peers may use a service. Every peer of a session is authenticated already: nodes by their certificates, guests
/// by a token. Guests may use what names them and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Every node of a trust domain.
    TrustDomain(String),
    /// Every authenticated node.
    Everyone,
    /// Who is one of these.
    OneOf(Vec<Who>),
}

/// Some of the peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// This node.
    Node(NodeId),
    /// Nodes to which the authority of the trust domain gave the role.
    Role {
        /// Whose word counts.
        trust_domain: String,
        /// The role.
        role: Role,
    },
    /// Every authenticated node.
    AnyNode,
    /// Every guest.
    Guest,
}

impl Allow {
    /// These nodes.
    #[must_use]
    pub fn nodes(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self::OneOf(nodes.into_iter().map(Who::Node).collect())
    }

    /// Whether `peer` may use the service.
    #[must_use]
    pub fn allows(&self, peer: &PeerIdentity) -> bool {
        match self {
            Self::TrustDomain(domain) => !peer.is_guest() && peer.node_id.trust_domain() == domain,
            Self::Everyone => !peer.is_guest(),
            Self::OneOf(list) => list.iter().any(|who| who.is(peer)),
        }
    }
}

impl Who {
    fn is(&self, peer: &PeerIdentity) -> bool {
        match self {
            Self::Node(node) => !peer.is_guest() && peer.node_id == *node,
            Self::Role { trust_domain, role } => {
                !peer.is_guest() && peer.node_id.trust_domain() == trust_domain && peer.roles.contains(role)
            }
            Self::AnyNode => !peer.is_guest(),
            Self::Guest => peer.is_guest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::identity::Roles;

    fn peer(node_id: NodeId, roles: &[&str]) -> PeerIdentity {
        let roles = Roles::new(roles.iter().map(|role| role.parse().unwrap())).unwrap();
        PeerIdentity { roles, ..PeerIdentity::unverified(node_id) }
    }

    #[test]
    fn each_policy_allows_its_own() {
        let node = |domain, name| NodeId::new(domain, name).unwrap();
        let peers = [
            peer(node("example", "a"), &["edge"]),
            peer(node("example", "b"), &[]),
            peer(node("elsewhere", "a"), &["edge"]),
            peer(NodeId::guest("example", "a").unwrap(), &[]),
        ];
        let allowed = |allow: &Allow| peers.each_ref().map(|peer| allow.allows(peer));
        assert_eq!(allowed(&Allow::TrustDomain("example".to_owned())), [true, true, false, false]);
        assert_eq!(allowed(&Allow::Everyone), [true, true, true, false]);
        assert_eq!(allowed(&Allow::nodes([node("example", "b")])), [false, true, false, false]);
        // A guest has the name that its token gives, which may be that of a node.
        assert_eq!(allowed(&Allow::nodes([node("example", "a")])), [true, false, false, false]);
        let edge = Who::Role { trust_domain: "example".to_owned(), role: "edge".parse().unwrap() };
        assert_eq!(allowed(&Allow::OneOf(vec![edge.clone()])), [true, false, false, false]);
        assert_eq!(allowed(&Allow::OneOf(vec![edge, Who::Guest])), [true, false, false, true]);
        assert_eq!(allowed(&Allow::OneOf(vec![Who::AnyNode])), [true, true, true, false]);
        assert_eq!(allowed(&Allow::OneOf(Vec::new())), [false; 4]);
    }
}
