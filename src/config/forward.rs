//! `[[forward]]`: a local address that leads to a service of a peer.

use toml::Spanned;

use super::problem::{Problem, Problems};
use super::resolve::{peer, service_name, value};
use super::service::{connections_max, plain_address};
use super::{file, values};
use crate::channel::{Address, UnixOptions};
use crate::crypto::identity::NodeId;
use crate::stream::Priority;

/// A local address that leads to a service of a peer.
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    /// Where applications connect: TCP or a Unix socket.
    pub listen: Address,
    /// Options of the Unix socket, if it is one.
    pub unix: UnixOptions,
    /// Whose service.
    pub peer: NodeId,
    /// Which service.
    pub service: String,
    /// Whether connections begin with a PROXY protocol header, as behind a load balancer.
    pub accepts_proxy_protocol: bool,
    /// Connections at once.
    pub connections_max: u32,
    /// How urgent its requests are.
    pub priority: Priority,
}

pub(super) fn resolve(
    section: &Spanned<file::Forward>,
    own: &NodeId,
    problems: &mut Problems,
) -> Option<ForwardConfig> {
    let section = section.get_ref();
    let listen = plain_address(&section.listen, problems);
    let peer = peer(&section.peer, own, problems);
    let service = service_name(&section.service, problems);
    let accepts_proxy_protocol = value(section.proxy_protocol.as_ref(), accepts, false, problems);
    let connections_max = connections_max(section.connections_max.as_ref(), problems);
    let priority = value(section.priority.as_ref(), str::parse, Priority::default(), problems);
    let mut unix = UnixOptions::default();
    unix.mode = value(section.mode.as_ref(), values::mode, unix.mode, problems);
    let listen = listen?;
    if let (Address::Tcp { .. }, Some(mode)) = (&listen, &section.mode) {
        let message = "mode is an option of unix addresses; tcp addresses have none";
        problems.push(Problem::new(message).at(mode.span()).help("remove it"));
    }
    Some(ForwardConfig {
        listen,
        unix,
        peer: peer?,
        service: service?,
        accepts_proxy_protocol,
        connections_max,
        priority,
    })
}

fn accepts(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "accept" => Ok(true),
        other => Err(format!("\"{other}\" is no choice; expected \"none\" or \"accept\"")),
    }
}
