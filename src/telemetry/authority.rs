//! What a hub's authority has, as instruments. The numbers come from whoever reads its state.

use opentelemetry::KeyValue;

use super::points::Collected;

/// How much an authority has.
#[derive(Clone, Debug, Default)]
pub struct Authority {
    /// Tokens by state.
    pub tokens: Vec<(&'static str, u64)>,
    /// Nodes by the state of their newest certificate.
    pub nodes: Vec<(&'static str, u64)>,
    /// Certificates that were ever issued.
    pub certificates_issued: u64,
    /// Entries of the denylist.
    pub denied: u64,
    /// Machines and guests that were let in, or not, since the start, by what happened.
    pub events: Vec<(&'static str, u64)>,
}

impl Collected {
    pub(super) fn add_authority(&mut self, authority: &Authority) {
        let by_state = [("longhaul.authority.token", &authority.tokens), ("longhaul.authority.node", &authority.nodes)];
        for (name, counts) in by_state {
            for (state, count) in counts {
                // Values of attributes are words of one piece.
                self.add(name, *count as f64, &[KeyValue::new("state", state.replace(' ', "-"))]);
            }
        }
        self.add("longhaul.authority.certificate", authority.certificates_issued as f64, &[]);
        self.add("longhaul.authority.denied", authority.denied as f64, &[]);
        for (event, count) in &authority.events {
            self.add("longhaul.authority.event", *count as f64, &[KeyValue::new("event", *event)]);
        }
    }
}
