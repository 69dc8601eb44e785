//! From what a configuration means to what the layers below take.

use anyhow::anyhow;

use crate::cli::CliError;
use crate::config::{Allow, ForwardConfig, LinkConfig, NodeConfig, Seal, ServiceConfig};
use crate::session::SessionConfig;
use crate::{node, service};

pub(super) fn node(config: &NodeConfig) -> node::NodeConfig {
    node::NodeConfig {
        session: SessionConfig { survive: config.survive, ..SessionConfig::default() },
        memory_bytes_max: config.memory_bytes_max,
        ..node::NodeConfig::default()
    }
}

pub(in crate::cli) fn link(config: LinkConfig) -> Result<node::LinkConfig, CliError> {
    let scheduler = config.scheduler.to_string();
    let peer = &config.peer;
    let session = SessionConfig {
        padding: config.padding,
        scheduler: scheduler
            .parse()
            .map_err(|_| anyhow!("link to {peer}: the scheduler {scheduler} is not supported yet in this version"))?,
        seal_always: config.seal == Seal::Always,
        survive: config.survive,
        ..SessionConfig::default()
    };
    let addresses = config.addresses.into_iter();
    let addresses = addresses.map(|wanted| node::LinkAddress {
        address: wanted.address,
        count: wanted.count,
        weight: wanted.weight,
    });
    let usual = node::LinkConfig::new(config.peer, []);
    Ok(node::LinkConfig { addresses: addresses.collect(), session, dial: config.dial, ..usual })
}

pub(super) fn service(config: ServiceConfig) -> service::ServiceConfig {
    service::ServiceConfig {
        name: config.name,
        target: config.target,
        allow: match config.allow {
            Allow::TrustDomain(domain) => service::Allow::TrustDomain(domain),
            Allow::Everyone => service::Allow::Everyone,
            Allow::Nodes(nodes) => service::Allow::Nodes(nodes),
        },
        proxy_protocol: config.proxy_protocol,
        connections_max: config.connections_max,
        connect_timeout: config.connect_timeout,
        priority: config.priority,
    }
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
