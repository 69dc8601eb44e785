//! `[[listen]]`: where peers may dial in.

use std::ops::Range;

use toml::Spanned;

use super::problem::{Problem, Problems};
use super::resolve::{number, value};
use super::tcp::TcpKeys;
use super::{file, values};
use crate::channel::{Address, AdmissionLimits, ListenOptions, SourceRate, TcpOptions, UnixOptions};

/// An address where channels are accepted.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// What to bind.
    pub address: Address,
    /// How.
    pub options: ListenOptions,
}

pub(super) fn resolve(section: &Spanned<file::Listen>, problems: &mut Problems) -> Option<ListenConfig> {
    let section = section.get_ref();
    let address = problems.check(section.address.span(), section.address.get_ref().parse::<Address>());
    let tcp = TcpKeys {
        congestion: &section.congestion,
        keepalive: &section.keepalive,
        user_timeout: &section.user_timeout,
        notsent_lowat: &section.notsent_lowat,
        mark: &section.mark,
    };
    let mut tcp_options = tcp.resolve(problems);
    tcp_options.backlog = number(section.backlog.as_ref(), 1..=65_535, TcpOptions::default().backlog, problems);
    let options = ListenOptions { tcp: tcp_options, unix: unix(section, problems), admission: admission(section) };
    let address = address?;
    check_kind(section, &address, &tcp, problems);
    Some(ListenConfig { address, options })
}

fn unix(section: &file::Listen, problems: &mut Problems) -> UnixOptions {
    let default = UnixOptions::default();
    let list = |numbers: &Option<Spanned<Vec<u32>>>| {
        numbers.as_ref().map(|numbers| numbers.get_ref().clone()).unwrap_or_default()
    };
    UnixOptions {
        mode: value(section.mode.as_ref(), values::mode, default.mode, problems),
        uid: section.uid.as_ref().map(|uid| *uid.get_ref()),
        gid: section.gid.as_ref().map(|gid| *gid.get_ref()),
        allow_uids: list(&section.allow_uids),
        allow_gids: list(&section.allow_gids),
    }
}

fn admission(section: &file::Listen) -> AdmissionLimits {
    let mut limits = AdmissionLimits::default();
    if let Some(max) = &section.handshakes_max {
        limits.pending_max = bound(*max.get_ref());
    }
    if let Some(max) = &section.handshakes_per_ip_max {
        limits.pending_per_source_max = bound(*max.get_ref());
    }
    if let Some(rate) = &section.rate_per_ip {
        limits.rate_per_source = bound(*rate.get_ref())
            .map(|per_second| SourceRate { per_second, burst: per_second.saturating_mul(BURST_SECONDS) });
    }
    limits
}

/// Zero is no bound.
fn bound(max: u32) -> Option<u32> {
    (max > 0).then_some(max)
}

/// Options that the kind of address does not have are mistakes, not wishes to be ignored.
fn check_kind(section: &file::Listen, address: &Address, tcp: &TcpKeys<'_>, problems: &mut Problems) {
    let is_unix = matches!(address, Address::Unix { .. });
    let unix_keys = [
        ("mode", section.mode.as_ref().map(Spanned::span)),
        ("uid", section.uid.as_ref().map(Spanned::span)),
        ("gid", section.gid.as_ref().map(Spanned::span)),
        ("allow_uids", section.allow_uids.as_ref().map(Spanned::span)),
        ("allow_gids", section.allow_gids.as_ref().map(Spanned::span)),
    ];
    let ip_keys = [
        ("handshakes_per_ip_max", section.handshakes_per_ip_max.as_ref().map(Spanned::span)),
        ("rate_per_ip", section.rate_per_ip.as_ref().map(Spanned::span)),
    ];
    let present = |(name, span): (&'static str, Option<Range<usize>>)| span.map(|span| (name, span));
    let misplaced: Vec<_> = if is_unix {
        tcp.given().chain(ip_keys.into_iter().filter_map(present)).collect()
    } else {
        unix_keys.into_iter().filter_map(present).collect()
    };
    let (wrong, right) = if is_unix { ("unix", "tcp and tls") } else { ("tcp and tls", "unix") };
    for (name, span) in misplaced {
        let message = format!("{name} is an option of {right} addresses; {wrong} addresses have none");
        problems.push(Problem::new(message).at(span).help("remove it"));
    }
}

/// A source may begin this many seconds' worth of handshakes at once, as a link that comes back does.
const BURST_SECONDS: u32 = 2;
