//! What differs between the configuration that a node runs with and the one that follows it, and which of that cannot
//! be changed while it runs. `examples/config/full.toml` says the same for each option, and a test compares the two.

use std::fmt;

use super::{AdminConfig, Config, EnrollConfig, GuestIdentity, LinkConfig, ListenConfig, NodeConfig, RenewConfig};
use crate::channel::Address;
use crate::crypto::identity::{Identity, NodeId, TrustAnchors};
use crate::service::{Endpoint, ForwardConfig, ServiceConfig, UdpAddress};
use crate::telemetry::{OtlpSettings, Settings};

/// The names of those fields that differ.
macro_rules! differing {
    ($old:expr, $new:expr, $($($field:ident).+ $name:literal),* $(,)?) => {{
        let (old, new) = ($old, $new);
        let mut names = Vec::new();
        $(if old.$($field).+ != new.$($field).+ { names.push($name); })*
        names
    }};
}

/// Two configurations of one node.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// What the node runs with.
    pub old: &'a Config,
    /// What follows.
    pub new: &'a Config,
}

/// Options that differ and cannot be changed while a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedOptions(Vec<String>);

impl FixedOptions {
    /// The options by section and name.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl std::error::Error for FixedOptions {}

impl fmt::Display for FixedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot be changed while the node runs: {}; restart the node, or undo it", self.0.join(", "))
    }
}

impl<'a> Changes<'a> {
    /// Compares.
    ///
    /// # Errors
    /// All options that differ and cannot be changed.
    pub fn between(old: &'a Config, new: &'a Config) -> Result<Self, FixedOptions> {
        let mut fixed = Vec::new();
        node(&old.node, &new.node, &mut fixed);
        guest(old.identity.guest.as_ref(), new.identity.guest.as_ref(), &mut fixed);
        let files = |config: &Config| config.identity.guest.is_none().then(|| config.identity.files.clone());
        if let (Some(old), Some(new)) = (files(old), files(new)) {
            let names = differing!(&old, &new, certificate "certificate", key "key", trust_anchors "trust_anchors");
            push_all(&mut fixed, "[identity]", &names);
        }
        enroll(old.enroll.as_ref(), new.enroll.as_ref(), &mut fixed);
        renew(old.renew.as_ref(), new.renew.as_ref(), &mut fixed);
        telemetry(&old.telemetry, &new.telemetry, &mut fixed);
        push_all(&mut fixed, "[log]", &differing!(old, new, key_log_file "key_log_file"));
        admin(old.admin.as_ref(), new.admin.as_ref(), &mut fixed);
        listeners(&old.listeners, &new.listeners, &mut fixed);
        for (old, new) in kept_forwards(old, new).filter(|(old, new)| old.unix != new.unix) {
            push_all(&mut fixed, &format!("[[forward]] {}", new.listen), &unix_names(&old.unix, &new.unix));
        }
        if fixed.is_empty() { Ok(Self { old, new }) } else { Err(FixedOptions(fixed)) }
    }

    /// A line for each change, in the order of the sections; none if nothing changes.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let (old, new) = (self.old, self.new);
        let mut lines = Vec::new();
        if old.node.shutdown_timeout != new.node.shutdown_timeout {
            lines.push("node: shutdown_timeout changed".to_owned());
        }
        let names = differing!(&old.limits, &new.limits, bandwidth "bandwidth_limit",
            peer_bandwidth "peer_bandwidth_limit", peer_bandwidths "peer_bandwidth_limits",
            connections_per_peer_max "connections_per_peer_max");
        if !names.is_empty() {
            lines.push(format!("limits: {} changed", names.join(", ")));
        }
        if self.is_identity_other() {
            lines.push("identity: certificate and key replaced".to_owned());
        }
        if self.are_anchors_other() {
            lines.push("identity: trust anchors replaced".to_owned());
        }
        if old.log_filter != new.log_filter {
            lines.push(format!("log: filter is {}", new.log_filter.as_deref().unwrap_or("the usual one")));
        }
        if old.admin.as_ref().map(|admin| &admin.token) != new.admin.as_ref().map(|admin| &admin.token) {
            lines.push("admin: token replaced".to_owned());
        }
        let name = |link: &LinkConfig| format!("link {}", link.peer.name());
        tell(&old.links, &new.links, |a, b| a.peer == b.peer, name, link_names, &mut lines);
        let name = |service: &ServiceConfig| format!("service {}", service.name);
        tell(&old.services, &new.services, |a, b| a.name == b.name, name, service_names, &mut lines);
        let name = |forward: &ForwardConfig| format!("forward {}", forward.listen);
        tell(&old.forwards, &new.forwards, is_same_forward, name, forward_names, &mut lines);
        lines
    }

    /// Forwards that begin.
    pub(crate) fn added_forwards(&self) -> impl Iterator<Item = &'a ForwardConfig> {
        let old = &self.old.forwards;
        self.new.forwards.iter().filter(|new| !old.iter().any(|old| is_same_forward(old, new)))
    }

    /// What a forward of the old configuration is in the new one; `None` if it ends.
    pub(crate) fn successor_of(&self, old: &ForwardConfig) -> Option<&'a ForwardConfig> {
        self.new.forwards.iter().find(|new| is_same_forward(old, new))
    }

    /// Peers to which the link ends, or is followed by another one.
    pub(crate) fn ended_links(&self) -> impl Iterator<Item = &'a NodeId> {
        let new = &self.new.links;
        self.old.links.iter().filter(|old| !new.iter().any(|new| is_same_link(old, new))).map(|old| &old.peer)
    }

    /// Links that begin, or follow one that was different.
    pub(crate) fn begun_links(&self) -> impl Iterator<Item = &'a LinkConfig> {
        let old = &self.old.links;
        self.new.links.iter().filter(|new| !old.iter().any(|old| is_same_link(old, new)))
    }

    /// Whether the node gets another certificate or key.
    #[must_use]
    pub fn is_identity_other(&self) -> bool {
        if self.new.identity.guest.is_some() {
            return false;
        }
        let seen = |identity: &Identity| (identity.chain().to_vec(), identity.spki_sha256());
        seen(&self.old.identity.identity) != seen(&self.new.identity.identity)
    }

    /// Whether the node trusts other authorities.
    #[must_use]
    pub fn are_anchors_other(&self) -> bool {
        let seen = |anchors: &TrustAnchors| {
            anchors
                .roots()
                .roots
                .iter()
                .map(|root| (root.subject.to_vec(), root.subject_public_key_info.to_vec()))
                .collect::<Vec<_>>()
        };
        seen(&self.old.identity.anchors) != seen(&self.new.identity.anchors)
    }
}

/// Whether the sessions of two links are alike.
fn is_same_link(old: &LinkConfig, new: &LinkConfig) -> bool {
    let bare = |link: &LinkConfig| LinkConfig { required: true, bandwidth_limit: None, ..link.clone() };
    bare(old) == bare(new)
}

/// Whether two forwards are one: they listen at the same place. Port 0 is another port each time, so that what they
/// lead to has to be the same, too.
fn is_same_forward(old: &ForwardConfig, new: &ForwardConfig) -> bool {
    let is_any = match &old.listen {
        Endpoint::Stream(Address::Tcp { port, .. }) | Endpoint::Datagrams(UdpAddress { port, .. }) => *port == 0,
        Endpoint::Stream(_) => false,
    };
    old.listen == new.listen && (!is_any || (&old.peer, &old.service) == (&new.peer, &new.service))
}

fn kept_forwards<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = (&'a ForwardConfig, &'a ForwardConfig)> {
    new.forwards.iter().filter_map(|new| Some((old.forwards.iter().find(|old| is_same_forward(old, new))?, new)))
}

/// Tells what was added, removed, and changed.
fn tell<T: PartialEq>(
    old: &[T],
    new: &[T],
    is_same: impl Fn(&T, &T) -> bool,
    name: impl Fn(&T) -> String,
    differing: impl Fn(&T, &T) -> Vec<&'static str>,
    lines: &mut Vec<String>,
) {
    for gone in old.iter().filter(|old| !new.iter().any(|new| is_same(old, new))) {
        lines.push(format!("{}: removed", name(gone)));
    }
    for new in new {
        match old.iter().find(|old| is_same(old, new)) {
            None => lines.push(format!("{}: added", name(new))),
            Some(old) if old != new => lines.push(format!("{}: {} changed", name(new), differing(old, new).join(", "))),
            Some(_) => {}
        }
    }
}

fn link_names(old: &LinkConfig, new: &LinkConfig) -> Vec<&'static str> {
    differing!(old, new, addresses "addresses", required "required", prefer "prefer", entrances "entrances",
        scheduler "scheduler", padding "padding", survive "survive", seal "seal", early_data "early_data",
        bandwidth_limit "bandwidth_limit", dial.timeout "connect_timeout",
        dial.tcp "TCP options", dial.quic "QUIC options")
}

fn service_names(old: &ServiceConfig, new: &ServiceConfig) -> Vec<&'static str> {
    let targets = if old.targets.are_several() || new.targets.are_several() { "targets" } else { "target" };
    let mut names: Vec<_> = (old.targets != new.targets).then_some(targets).into_iter().collect();
    names.extend(differing!(old, new, balance.strategy "strategy", balance.attempts_max "connect_attempts",
        balance.ejection "options of ejection", balance.slow_start "slow_start", check "check", required "required",
        allow "allow", proxy_protocol "proxy_protocol",
        connections_max "connections_max", connections_per_peer_max "connections_per_peer_max",
        bandwidth_limit "bandwidth_limit", connect_timeout "connect_timeout",
        priority "priority", replay_safe "replay_safe",
        datagrams "options of datagrams"));
    names
}

fn forward_names(old: &ForwardConfig, new: &ForwardConfig) -> Vec<&'static str> {
    differing!(old, new, peer "peer", service "service", accepts_proxy_protocol "proxy_protocol",
        connections_max "connections_max", bandwidth_limit "bandwidth_limit", session_timeout "session_timeout",
        priority "priority", replay_safe "replay_safe",
        datagrams "options of datagrams")
}

fn unix_names(old: &crate::channel::UnixOptions, new: &crate::channel::UnixOptions) -> Vec<&'static str> {
    differing!(old, new, mode "mode", uid "uid", gid "gid", allow_uids "allow_uids", allow_gids "allow_gids")
}

fn push_all(fixed: &mut Vec<String>, section: &str, names: &[&str]) {
    fixed.extend(names.iter().map(|name| format!("{section} {name}")));
}

fn node(old: &NodeConfig, new: &NodeConfig, fixed: &mut Vec<String>) {
    let names = differing!(old, new, survive "survive", session_age_max "max_session_age",
        memory_bytes_max "memory_max");
    push_all(fixed, "[node]", &names);
    if old.id != new.id {
        fixed.push(format!("[identity] certificate (it names {}, the node is {})", new.id, old.id));
    }
}

/// A guest is who its token says.
fn guest(old: Option<&GuestIdentity>, new: Option<&GuestIdentity>, fixed: &mut Vec<String>) {
    let seen = |guest: &GuestIdentity| (guest.token.id(), guest.name.clone());
    if old.map(seen) != new.map(seen) {
        fixed.push("[identity] token_file".to_owned());
    }
}

fn enroll(old: Option<&EnrollConfig>, new: Option<&EnrollConfig>, fixed: &mut Vec<String>) {
    match (old, new) {
        (None, None) => {}
        (Some(old), Some(new)) => {
            let names = differing!(old, new, listen "listen", directory "directory",
                passphrase_file "passphrase_file",
                certificate_lifetime "certificate_lifetime", addresses "advertise");
            push_all(fixed, "[enroll]", &names);
            if old.authority.certificate_der() != new.authority.certificate_der() {
                fixed.push("[enroll] the authority in its directory".to_owned());
            }
        }
        _ => fixed.push("[enroll]".to_owned()),
    }
}

fn renew(old: Option<&RenewConfig>, new: Option<&RenewConfig>, fixed: &mut Vec<String>) {
    match (old, new) {
        (None, None) => {}
        (Some(old), Some(new)) => {
            let names = differing!(old, new, hub "hub", host "address", port "port of the address");
            push_all(fixed, "[renew]", &names);
        }
        _ => fixed.push("[renew]".to_owned()),
    }
}

fn telemetry(old: &Settings, new: &Settings, fixed: &mut Vec<String>) {
    let names = differing!(old, new, resource "resource", histograms "histograms or latency_boundaries_ms",
        trace_ratio "trace_ratio", logs "logs");
    push_all(fixed, "[telemetry]", &names);
    let usual = OtlpSettings::default();
    let (old, new) = (old.otlp.as_ref().unwrap_or(&usual), new.otlp.as_ref().unwrap_or(&usual));
    let names = differing!(old, new, endpoint "otlp_endpoint", protocol "otlp_protocol", headers "otlp_headers_file",
        certificate_authorities "otlp_ca", client_identity "otlp_certificate or otlp_key", interval "otlp_interval",
        timeout "otlp_timeout", temporality "otlp_temporality");
    push_all(fixed, "[telemetry]", &names);
}
fn admin(old: Option<&AdminConfig>, new: Option<&AdminConfig>, fixed: &mut Vec<String>) {
    match (old, new) {
        (None, None) => {}
        (Some(old), Some(new)) => {
            let names = differing!(old, new, listen "listen", unix.mode "mode", unix.uid "uid", unix.gid "gid");
            push_all(fixed, "[admin]", &names);
        }
        _ => fixed.push("[admin]".to_owned()),
    }
}

fn listeners(old: &[ListenConfig], new: &[ListenConfig], fixed: &mut Vec<String>) {
    let addresses = |list: &[ListenConfig]| list.iter().map(|listener| listener.address.clone()).collect::<Vec<_>>();
    let (before, after) = (addresses(old), addresses(new));
    if before != after {
        fixed.push("[[listen]] address".to_owned());
        return;
    }
    for (old, new) in old.iter().zip(new).filter(|(old, new)| old != new) {
        fixed.push(format!("[[listen]] options of {}", new.address));
        debug_assert_ne!(old.options, new.options, "the addresses are equal");
    }
}
