//! From what was typed to what it means: every section in turn, then what they have to agree on.

use std::collections::HashSet;
use std::hash::Hash;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use super::problem::{Problem, Problems};
use super::{Config, EnrollConfig, LinkConfig, LoadedIdentity, NodeConfig, file, values};
use super::{enroll, forward, guest, limits as limits_section, link, listen, log, service};
use crate::base::limits;
use crate::channel::Address;
use crate::crypto::identity::NodeId;
use crate::service::{Endpoint, ForwardConfig, UdpAddress};

/// Turns a file into a configuration. `None`, and what is missing, if something essential is.
pub(super) fn resolve(
    file: &file::File,
    path: &Path,
    identity: Option<LoadedIdentity>,
    enroll: Option<EnrollConfig>,
    problems: &mut Problems,
) -> Option<Config> {
    // Without an identity the rest is still worth checking; names are then taken to be of some domain.
    let own = identity.as_ref().map(|loaded| loaded.identity.node_id().clone());
    let own = own.or_else(|| NodeId::new(UNKNOWN_DOMAIN, "unknown").ok())?;
    let node = node(&file.node, &own, identity.is_some(), problems);
    let mut listeners: Vec<_> = file.listen.iter().filter_map(|section| listen::resolve(section, problems)).collect();
    let links: Vec<_> = file.link.iter().filter_map(|section| link::resolve(section, &node, problems)).collect();
    let services: Vec<_> =
        file.service.iter().filter_map(|section| service::resolve(section, &own, problems)).collect();
    let limits = limits_section::resolve(&file.limits, &own, problems);
    let forward = |section| Some((section, forward::resolve(section, &own, problems)?));
    let forwards: Vec<_> = file.forward.iter().filter_map(forward).collect();
    check_unique(file, &own, problems);
    check_peers(file, &forwards, &links, problems);
    enroll::share_listeners(file.enroll.as_ref(), &mut listeners, problems);
    guest::check(file, identity.as_ref(), problems);
    let forwards = forwards.into_iter().map(|(_, forward)| forward).collect();
    let mut warnings = Vec::new();
    if listeners.is_empty() && links.is_empty() {
        warnings.push("there is neither a [[listen]] nor a [[link]]: no peer can be reached".to_owned());
    }
    let identity = identity?;
    let enroll = enroll.map(|enroll| enroll::with_addresses(enroll, &listeners));
    let log_filter = value(file.log.filter.as_ref(), log::checked, None, problems);
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    let key_log_file = file.log.key_log_file.as_ref().map(|path| base.join(path.get_ref()));
    if let Some(path) = &key_log_file {
        warnings.push(format!("the keys of all sessions are written to {}: see [log] key_log_file", path.display()));
    }
    Some(Config {
        path: path.to_owned(),
        node,
        limits,
        identity,
        enroll,
        renew: None,
        telemetry: crate::telemetry::Settings::default(),
        listeners,
        links,
        services,
        forwards,
        log_filter,
        key_log_file,
        admin: None,
        warnings,
    })
}

fn node(section: &file::Node, own: &NodeId, is_known: bool, problems: &mut Problems) -> NodeConfig {
    if let Some(name) = section.name.as_ref().filter(|_| is_known) {
        match own.relative(name.get_ref()) {
            Ok(named) if named == *own => {}
            Ok(named) => problems.push(
                Problem::new(format!("the name is {named}, but the certificate names {own}"))
                    .at(name.span())
                    .help("correct the name, leave it out, or give this node's own certificate"),
            ),
            Err(error) => problems.push(Problem::new(error.to_string()).at(name.span())),
        }
    }
    let memory = value(section.memory_max.as_ref(), values::size, MEMORY_BYTES_MAX, problems);
    if memory < MEMORY_BYTES_MIN {
        let place = section.memory_max.as_ref().map(Spanned::span).unwrap_or_default();
        problems.push(Problem::new(format!("memory_max is {memory} bytes; expected at least \"64MiB\"")).at(place));
    }
    NodeConfig {
        id: own.clone(),
        shutdown_timeout: value(section.shutdown_timeout.as_ref(), values::duration, SHUTDOWN_TIMEOUT, problems),
        survive: value(section.survive.as_ref(), values::duration, limits::SURVIVE, problems),
        session_age_max: value(
            section.max_session_age.as_ref(),
            values::duration_above_zero,
            limits::SESSION_AGE_MAX,
            problems,
        ),
        memory_bytes_max: memory,
    }
}

/// The parsed text, or the default if there is none or it is wrong.
pub(super) fn value<T>(
    text: Option<&Spanned<String>>,
    parse: impl FnOnce(&str) -> Result<T, String>,
    default: T,
    problems: &mut Problems,
) -> T {
    text.and_then(|text| problems.check(text.span(), parse(text.get_ref()))).unwrap_or(default)
}

/// The number, which has to be in `range`, or the default.
pub(super) fn number(
    value: Option<&Spanned<u32>>,
    range: std::ops::RangeInclusive<u32>,
    default: u32,
    problems: &mut Problems,
) -> u32 {
    let Some(value) = value else { return default };
    if !range.contains(value.get_ref()) {
        let message = format!("{} is out of range; expected {} to {}", value.get_ref(), range.start(), range.end());
        problems.push(Problem::new(message).at(value.span()));
    }
    *value.get_ref()
}

/// A node of the own trust domain by its name, or of any by its SPIFFE ID.
pub(super) fn peer(text: &Spanned<String>, own: &NodeId, problems: &mut Problems) -> Option<NodeId> {
    let peer = problems.check(text.span(), own.relative(text.get_ref()))?;
    if peer == *own {
        let message = format!("the peer is {own}, which is this node");
        problems.push(Problem::new(message).at(text.span()).help("name the other node"));
        return None;
    }
    if peer.trust_domain() != own.trust_domain() && own.trust_domain() != UNKNOWN_DOMAIN {
        let message = format!("{peer} is of another trust domain than this node ({})", own.trust_domain());
        problems.push(Problem::new(message).at(text.span()).help("only nodes of one trust domain can be linked yet"));
        return None;
    }
    Some(peer)
}

/// A name of a service.
pub(super) fn service_name(text: &Spanned<String>, problems: &mut Problems) -> Option<String> {
    let name = text.get_ref();
    if NodeId::new("names", name).is_err() {
        let message = format!("{name:?} is no service name; expected 1 to 64 of A-Z, a-z, 0-9, '.', '-', '_'");
        problems.push(Problem::new(message).at(text.span()));
        return None;
    }
    Some(name.clone())
}

/// Nothing may be named twice that is found by its name, in whatever way it is written.
fn check_unique(file: &file::File, own: &NodeId, problems: &mut Problems) {
    let listens = file.listen.iter().map(|section| &section.get_ref().address);
    let forwards = file.forward.iter().map(|section| &section.get_ref().listen);
    unique("address", listens.chain(forwards), bound_address, problems);
    let peers = file.link.iter().map(|section| &section.get_ref().peer);
    unique("link to peer", peers, |name| own.relative(name).ok(), problems);
    unique(
        "service",
        file.service.iter().map(|section| &section.get_ref().name),
        |name| Some(name.to_owned()),
        problems,
    );
}

/// What may be bound once. Port 0 asks the system for a free port, which is another one every time.
fn bound_address(text: &str) -> Option<Endpoint> {
    let endpoint = text.parse().ok()?;
    let is_any = match &endpoint {
        Endpoint::Stream(Address::Tcp { port, .. } | Address::Tls { port, .. } | Address::Quic { port, .. })
        | Endpoint::Datagrams(UdpAddress { port, .. }) => *port == 0,
        Endpoint::Stream(Address::Unix { .. }) => false,
    };
    (!is_any).then_some(endpoint)
}

/// A text without a meaning was told already.
fn unique<'a, M: Eq + Hash>(
    what: &str,
    texts: impl Iterator<Item = &'a Spanned<String>>,
    meaning: impl Fn(&str) -> Option<M>,
    problems: &mut Problems,
) {
    let mut seen = HashSet::new();
    for text in texts {
        if meaning(text.get_ref()).is_some_and(|meaning| !seen.insert(meaning)) {
            let message = format!("the {what} {:?} is there twice", text.get_ref());
            problems.push(Problem::new(message).at(text.span()).help("remove one of the two"));
        }
    }
}

/// A peer that is not dialled has to be able to dial us.
fn check_peers(
    file: &file::File,
    forwards: &[(&Spanned<file::Forward>, ForwardConfig)],
    links: &[LinkConfig],
    problems: &mut Problems,
) {
    if !file.listen.is_empty() || file.link.len() != links.len() {
        return;
    }
    let dialled: HashSet<_> = links.iter().map(|link| &link.peer).collect();
    for (section, forward) in forwards.iter().filter(|(_, forward)| !dialled.contains(&forward.peer)) {
        let message =
            format!("there is no [[link]] to {}, and without a [[listen]] it cannot dial us", forward.peer.name());
        let place = section.get_ref().peer.span();
        problems.push(Problem::new(message).at(place).help("add a [[link]] to this peer, or a [[listen]]"));
    }
}

/// Stands for the own trust domain while the certificate that names it cannot be read; never in a [`Config`].
const UNKNOWN_DOMAIN: &str = "unknown.invalid";

/// Long enough for requests, short enough for a service manager's patience (systemd kills after 90 s).
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// One session at its largest window.
const MEMORY_BYTES_MIN: u64 = limits::SESSION_WINDOW_BYTES_MAX;
