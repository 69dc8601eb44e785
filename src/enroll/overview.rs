//! What an operator is shown of an authority: tokens, the newest certificate of each node, how many are denied.
//!
//! Read from the store in one go, and shown as of any moment after it: what has expired since is expired. No secret is in
//! the store, and no key is shown.

use serde::Serialize;

use super::store::{Store, StoreError};
use super::{Denial, Denied, Issuance, TokenRecord, newest_of_each};

/// What the store had.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    tokens: Vec<TokenRecord>,
    /// Of each node the newest certificate.
    newest: Vec<Newest>,
    issued_count: usize,
    denied_count: usize,
    denylist_version: u64,
}

#[derive(Clone, Debug)]
struct Newest {
    name: String,
    not_after_unix: i64,
    is_denied: bool,
}

/// The state of an authority at a moment. Of many tokens and nodes the lists have the most interesting ones.
#[derive(Clone, Debug, Serialize)]
pub struct AuthorityState {
    /// Tokens, valid ones first, then the newest.
    pub tokens: Vec<TokenState>,
    /// How many tokens there are.
    pub token_count: usize,
    /// Nodes by their newest certificate: those that end first, before those that have ended.
    pub nodes: Vec<NodeState>,
    /// How many nodes have or had a certificate.
    pub node_count: usize,
    /// How many certificates were issued, renewed ones included.
    pub certificates_issued: usize,
    /// How many nodes, keys and tokens are on the denylist.
    pub denied_count: usize,
    /// Grows with every change of the denylist.
    pub denylist_version: u64,
}

/// A token as it may be shown.
#[derive(Clone, Debug, Serialize)]
pub struct TokenState {
    /// Its public name.
    pub id: String,
    /// `valid`, `used up`, `expired` or `revoked`.
    pub state: &'static str,
    /// Whether it lets guests in.
    pub is_for_guests: bool,
    /// Which names it gives.
    pub name: String,
    /// How often it was used.
    pub use_count: u32,
    /// How often it may be.
    pub uses_max: u32,
    /// From when on it is worth nothing.
    pub not_after_unix: u64,
}

/// A node as it may be shown.
#[derive(Clone, Debug, Serialize)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// `valid`, `expired` or `revoked`.
    pub state: &'static str,
    /// The end of its newest certificate.
    pub not_after_unix: i64,
}

/// How much an authority has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityCounts {
    /// Tokens by state: `valid`, `used up`, `expired`, `revoked`.
    pub tokens: Vec<(&'static str, u64)>,
    /// Nodes by the state of their newest certificate: `valid`, `expired`, `revoked`.
    pub nodes: Vec<(&'static str, u64)>,
    /// Certificates that were ever issued, renewed ones included.
    pub certificates_issued: u64,
    /// Nodes, keys and tokens on the denylist.
    pub denied: u64,
}

impl Overview {
    /// Reads it. Takes as long as the store does, and longer the more was ever issued.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let denials = store.denials()?;
        let issuances = store.issuances()?;
        let issued_count = issuances.iter().filter(|issuance| issuance.certificate.is_some()).count();
        let newest = newest_of_each(issuances).into_iter().map(|issuance| Newest {
            is_denied: denials.iter().any(|denial| denies(denial, &issuance)),
            not_after_unix: issuance.not_after_unix,
            name: issuance.name,
        });
        Ok(Self {
            tokens: store.tokens()?,
            newest: newest.collect(),
            issued_count,
            denied_count: denials.len(),
            denylist_version: store.denylist_version()?,
        })
    }

    /// What it means at a moment.
    #[must_use]
    pub fn at(&self, now_unix: u64) -> AuthorityState {
        let mut tokens: Vec<_> = self.tokens.iter().map(|token| (token, token.state(now_unix))).collect();
        tokens.sort_by_key(|(token, state)| (*state != "valid", std::cmp::Reverse(token.created_unix)));
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        let mut nodes: Vec<_> = self.newest.iter().map(|newest| node(newest, now)).collect();
        nodes.sort_by(|a, b| {
            (a.state != "valid", a.not_after_unix, &a.name).cmp(&(b.state != "valid", b.not_after_unix, &b.name))
        });
        nodes.truncate(ROWS_MAX);
        AuthorityState {
            token_count: tokens.len(),
            tokens: tokens.into_iter().take(ROWS_MAX).map(|(record, state)| token(record, state)).collect(),
            node_count: self.newest.len(),
            nodes,
            certificates_issued: self.issued_count,
            denied_count: self.denied_count,
            denylist_version: self.denylist_version,
        }
    }
}

impl Overview {
    /// How many tokens and nodes are in which state at a moment, all of them.
    #[must_use]
    pub fn counts(&self, now_unix: u64) -> AuthorityCounts {
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        let tokens = |wanted| self.tokens.iter().filter(|token| token.state(now_unix) == wanted).count() as u64;
        let nodes = |wanted| self.newest.iter().filter(|newest| state(newest, now) == wanted).count() as u64;
        AuthorityCounts {
            tokens: TOKEN_STATES.into_iter().map(|state| (state, tokens(state))).collect(),
            nodes: NODE_STATES.into_iter().map(|state| (state, nodes(state))).collect(),
            certificates_issued: self.issued_count as u64,
            denied: self.denied_count as u64,
        }
    }
}

fn denies(denial: &Denial, issuance: &Issuance) -> bool {
    match &denial.denied {
        Denied::Node(name) => issuance.name == *name,
        Denied::Key(hash) => issuance.spki_sha256 == *hash,
        Denied::Token(id) => issuance.token_id == Some(*id),
    }
}

fn token(token: &TokenRecord, state: &'static str) -> TokenState {
    TokenState {
        id: token.id.to_string(),
        state,
        is_for_guests: token.is_for_guests,
        name: token.name.to_string(),
        use_count: token.use_count,
        uses_max: token.uses_max,
        not_after_unix: token.not_after_unix,
    }
}

fn node(newest: &Newest, now: i64) -> NodeState {
    NodeState { name: newest.name.clone(), state: state(newest, now), not_after_unix: newest.not_after_unix }
}

fn state(newest: &Newest, now: i64) -> &'static str {
    match newest {
        _ if newest.is_denied => "revoked",
        _ if newest.not_after_unix <= now => "expired",
        _ => "valid",
    }
}

/// What a token can be, by [`TokenRecord::state`].
const TOKEN_STATES: [&str; 4] = ["valid", "used up", "expired", "revoked"];

/// What a node can be.
const NODE_STATES: [&str; 3] = ["valid", "expired", "revoked"];

/// Rows of a list: what a page shows, and what an answer each second may cost. `longhaul token list` and `node list` have
/// all of them.
const ROWS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::token::TokenId;

    fn record(number: u8, created_unix: u64, not_after_unix: u64) -> TokenRecord {
        TokenRecord {
            id: TokenId::from_bytes([number; 10]),
            public_key: [7; 32],
            is_for_guests: false,
            name: "n".parse().unwrap(),
            roles: Vec::new(),
            address_range: None,
            created_unix,
            not_after_unix,
            uses_max: 1,
            use_count: 0,
            revoked_unix: None,
        }
    }

    #[test]
    fn valid_tokens_come_first_and_expire_without_another_look() {
        let overview = Overview { tokens: vec![record(1, 30, 50), record(2, 10, 90)], ..Overview::default() };
        let states = |now| overview.at(now).tokens.iter().map(|token| token.state).collect::<Vec<_>>();
        assert_eq!(states(40), ["valid", "valid"]);
        let later = overview.at(60);
        assert_eq!(later.tokens[0].id, TokenId::from_bytes([2; 10]).to_string());
        assert_eq!(states(60), ["valid", "expired"]);
        assert_eq!(overview.counts(60).tokens, [("valid", 1), ("used up", 0), ("expired", 1), ("revoked", 0)]);
        let shown = serde_json::to_string(&later).unwrap();
        assert!(!shown.contains("public_key") && !shown.contains("0707"), "{shown}");
    }

    #[test]
    fn nodes_that_end_first_come_first_and_long_lists_are_cut() {
        let newest = |end: i64| Newest { name: format!("n{end}"), not_after_unix: end, is_denied: end == 300 };
        let overview = Overview { newest: (1..=300).rev().map(newest).collect(), ..Overview::default() };
        assert_eq!(overview.counts(100).nodes, [("valid", 199), ("expired", 100), ("revoked", 1)], "all of them count");
        let state = overview.at(100);
        assert_eq!((state.node_count, state.nodes.len()), (300, ROWS_MAX));
        assert_eq!((state.nodes[0].name.as_str(), state.nodes[0].state), ("n101", "valid"));
        let late = overview.at(298);
        assert_eq!(late.nodes.iter().filter(|node| node.state == "valid").count(), 1);
        let last = overview.at(299);
        assert!(last.nodes.iter().all(|node| node.state != "valid"));
    }
}
