//! `[[forward]]`: a local address that leads to a service of a peer.

use toml::Spanned;

use super::datagrams::{DatagramKeys, given_of_connections, refuse_for_datagrams};
use super::limits::bandwidth;
use super::problem::Problems;
use super::resolve::{peer, service_name, value};
use super::service::{connections_max, plain_address};
use super::unix::{UnixKeys, refuse};
use super::{file, values};
use crate::channel::Address;
use crate::crypto::identity::NodeId;
use crate::service::{Endpoint, ForwardConfig};

pub(super) fn resolve(
    section: &Spanned<file::Forward>,
    own: &NodeId,
    problems: &mut Problems,
) -> Option<ForwardConfig> {
    let section = section.get_ref();
    let listen = plain_address(&section.listen, problems);
    let peer = peer(&section.peer, own, problems);
    let service = service_name(&section.service, problems);
    let unix = UnixKeys {
        mode: &section.mode,
        uid: &section.uid,
        gid: &section.gid,
        allow_uids: &section.allow_uids,
        allow_gids: &section.allow_gids,
    };
    let keys = DatagramKeys {
        idle_timeout: &section.idle_timeout,
        flow_count_max: &section.flow_count_max,
        datagram_age_max: &section.datagram_age_max,
    };
    match &listen {
        Some(Endpoint::Datagrams(_)) => {
            refuse(unix.given(), "unix", "udp", problems);
            refuse_for_datagrams(given_of_connections(&section.proxy_protocol, &section.connections_max), problems);
        }
        Some(Endpoint::Stream(address)) => {
            refuse(keys.given(), "udp", "other", problems);
            if let Address::Tcp { .. } = address {
                refuse(unix.given(), "unix", "tcp", problems);
            }
        }
        None => {}
    }
    let datagrams = keys.resolve(problems);
    let unix = unix.resolve(problems);
    let accepts_proxy_protocol = value(section.proxy_protocol.as_ref(), accepts, false, problems);
    let connections_max = connections_max(section.connections_max.as_ref(), problems);
    let bandwidth_limit = bandwidth(section.bandwidth_limit.as_ref(), problems);
    let priority = value(section.priority.as_ref(), str::parse, Default::default(), problems);
    let mut usual = ForwardConfig::new(listen?, peer?, &service?);
    let timeout = section.session_timeout.as_ref();
    usual.session_timeout = value(timeout, values::duration_above_zero, usual.session_timeout, problems);
    let replay_safe = section.replay_safe.unwrap_or(false);
    Some(ForwardConfig {
        unix,
        accepts_proxy_protocol,
        connections_max,
        bandwidth_limit,
        datagrams,
        priority,
        replay_safe,
        ..usual
    })
}

fn accepts(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "accept" => Ok(true),
        other => Err(format!("\"{other}\" is no choice; expected \"none\" or \"accept\"")),
    }
}
