//! From what a configuration means to what the layers below take.

use crate::config::{ForwardConfig, LinkConfig, NodeConfig, Seal};
use crate::session::SessionConfig;
use crate::{node, service};

pub(super) fn node(config: &NodeConfig) -> node::NodeConfig {
    node::NodeConfig {
        session: SessionConfig { survive: config.survive, ..SessionConfig::default() },
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
        ..SessionConfig::default()
    };
    let usual = node::LinkConfig::new(config.peer, []);
    node::LinkConfig { addresses: config.addresses, session, dial: config.dial, ..usual }
}

pub(super) fn forward(config: ForwardConfig) -> service::ForwardConfig {
    let usual = service::ForwardConfig::new(config.listen, config.peer, &config.service);
    service::ForwardConfig {
        unix: config.unix,
        accepts_proxy_protocol: config.accepts_proxy_protocol,
        connections_max: config.connections_max,
        priority: config.priority,
        ..usual
    }
}
