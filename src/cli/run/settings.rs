//! From what a configuration means to what the layers below take.

use crate::config::{LinkConfig, NodeConfig, Seal};
use crate::node;
use crate::session::SessionConfig;

pub(super) fn node(config: &NodeConfig) -> node::NodeConfig {
    node::NodeConfig {
        session: SessionConfig { survive: config.survive, age_max: config.session_age_max, ..SessionConfig::default() },
        memory_bytes_max: config.memory_bytes_max,
        ..node::NodeConfig::default()
    }
}

pub(in crate::cli) fn link(config: LinkConfig) -> node::LinkConfig {
    let session = SessionConfig {
        padding: config.padding,
        scheduler: config.scheduler,
        seal_always: config.seal == Seal::Always,
        survive: config.survive,
        age_max: config.session_age_max,
        ..SessionConfig::default()
    };
    let usual = node::LinkConfig::new(config.peer, []);
    node::LinkConfig {
        addresses: config.addresses,
        prefer: config.prefer,
        entrances: config.entrances,
        session,
        dial: config.dial,
        early_data: config.early_data,
        ..usual
    }
}
