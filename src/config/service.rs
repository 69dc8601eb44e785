//! `[[service]]`: what peers may reach here.

use std::time::Duration;

use toml::Spanned;

use super::allow::allow;
use super::datagrams::{DatagramKeys, given_of_connections, refuse_for_datagrams};
use super::limits::{bandwidth, connections_per_peer_max};
use super::problem::{Problem, Problems};
use super::resolve::{number, service_name, value};
use super::unix::refuse;
use super::{file, values};
use crate::channel::Address;
use crate::crypto::identity::NodeId;
use crate::service::proxy_protocol::ProxyVersion;
use crate::service::{Endpoint, ServiceConfig, Target, UdpAddress};
use crate::stream::Priority;

pub(super) fn resolve(
    section: &Spanned<file::Service>,
    own: &NodeId,
    problems: &mut Problems,
) -> Option<ServiceConfig> {
    let section = section.get_ref();
    let name = service_name(&section.name, problems);
    let target = match section.target.get_ref().parse::<Target>() {
        Ok(Target::Bench) => Some(Target::Bench),
        _ => plain_address(&section.target, problems).map(|endpoint| match endpoint {
            Endpoint::Stream(address) => Target::Address(address),
            Endpoint::Datagrams(address) => Target::Datagrams(address),
        }),
    };
    if let Some(Target::Address(Address::Tcp { port: 0, .. }) | Target::Datagrams(UdpAddress { port: 0, .. })) = target
    {
        problems.push(Problem::new("a target has a port above 0").at(section.target.span()));
    }
    let keys = DatagramKeys {
        idle_timeout: &section.idle_timeout,
        flow_count_max: &section.flow_count_max,
        datagram_age_max: &section.datagram_age_max,
    };
    match target {
        Some(Target::Datagrams(_)) => {
            refuse_for_datagrams(given_of_connections(&section.proxy_protocol, &section.connections_max), problems);
        }
        Some(_) => refuse(keys.given(), "udp", "other", problems),
        None => {}
    }
    let datagrams = keys.resolve(problems);
    let allow = allow(section.allow.as_deref(), own, problems);
    let proxy_protocol = value(section.proxy_protocol.as_ref(), proxy_version, None, problems);
    let connections_max = connections_max(section.connections_max.as_ref(), problems);
    let connections_per_peer_max = connections_per_peer_max(section.connections_per_peer_max.as_ref(), problems);
    let bandwidth_limit = bandwidth(section.bandwidth_limit.as_ref(), problems);
    if let (Some(Target::Bench), Some(limit)) = (&target, &section.bandwidth_limit) {
        let problem = Problem::new("\"bench:\" measures what links carry, and has no bandwidth_limit").at(limit.span());
        problems.push(problem.help("limit the [[link]], or peers in [limits]"));
    }
    let timeout = section.connect_timeout.as_ref();
    let connect_timeout = value(timeout, values::duration_above_zero, CONNECT_TIMEOUT, problems);
    let priority = value(section.priority.as_ref(), str::parse, Priority::default(), problems);
    Some(ServiceConfig {
        name: name?,
        target: target?,
        allow,
        proxy_protocol,
        connections_max,
        connections_per_peer_max,
        bandwidth_limit,
        datagrams,
        connect_timeout,
        priority,
        replay_safe: section.replay_safe.unwrap_or(false),
    })
}

/// An address of applications: they are no channels, so that `tls://` and `quic://` have no meaning.
pub(super) fn plain_address(text: &Spanned<String>, problems: &mut Problems) -> Option<Endpoint> {
    let address = problems.check(text.span(), text.get_ref().parse::<Endpoint>())?;
    if let Endpoint::Stream(channel @ (Address::Tls { .. } | Address::Quic { .. })) = &address {
        let message = "services and forwards pass bytes on as they are; expected tcp://host:port, udp://host:port or unix:///path";
        let help = format!("write tcp:// in place of {}://", channel.kind());
        problems.push(Problem::new(message).at(text.span()).help(help));
        return None;
    }
    Some(address)
}

pub(super) fn connections_max(value: Option<&Spanned<u32>>, problems: &mut Problems) -> u32 {
    number(value, 1..=1_000_000, CONNECTIONS_MAX, problems)
}

fn proxy_version(text: &str) -> Result<Option<ProxyVersion>, String> {
    match text {
        "none" => Ok(None),
        "v1" => Ok(Some(ProxyVersion::V1)),
        "v2" => Ok(Some(ProxyVersion::V2)),
        other => Err(format!("\"{other}\" is no PROXY protocol; expected \"none\", \"v1\" or \"v2\"")),
    }
}

/// Enough for a pool of each of many clients, few enough that their streams fit one session's count.
const CONNECTIONS_MAX: u32 = 1024;

/// A target is near: one that takes longer is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
