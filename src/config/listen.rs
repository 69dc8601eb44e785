//! `[[listen]]`: where peers may dial in.

use toml::Spanned;

use super::problem::{Problem, Problems};
use super::resolve::number;
use super::tcp::TcpKeys;
use super::unix::{UnixKeys, refuse};
use super::{file, quic};
use crate::channel::{Address, AddressRange, AdmissionLimits, ListenOptions, SourceRate, TcpOptions};

/// An address where channels are accepted.
#[derive(Clone, Debug, PartialEq)]
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
    let unix = UnixKeys {
        mode: &section.mode,
        uid: &section.uid,
        gid: &section.gid,
        allow_uids: &section.allow_uids,
        allow_gids: &section.allow_gids,
    };
    let mut tcp_options = tcp.resolve(problems);
    tcp_options.backlog = number(section.backlog.as_ref(), 1..=65_535, TcpOptions::default().backlog, problems);
    let mut quic_options = quic::resolve(section.quic.as_ref(), problems);
    quic_options.mark = tcp_options.mark;
    let options = ListenOptions {
        tcp: tcp_options,
        unix: unix.resolve(problems),
        quic: quic_options,
        admission: admission(section, problems),
        takes_guests: section.guests.as_ref().is_some_and(|guests| *guests.get_ref()),
        early_data: section.early_data.unwrap_or(false),
        // `[enroll]` says it for all.
        enrolls: false,
    };
    let address = address?;
    check_kind(section, &address, &tcp, &unix, problems);
    Some(ListenConfig { address, options })
}

fn admission(section: &file::Listen, problems: &mut Problems) -> AdmissionLimits {
    let mut limits =
        AdmissionLimits { allow_addresses: ranges(section.allow_addresses.as_ref(), problems), ..Default::default() };
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

/// Where peers may come from. An empty list would mean everywhere to the listener, and nobody to whoever wrote it.
fn ranges(list: Option<&Spanned<Vec<Spanned<String>>>>, problems: &mut Problems) -> Vec<AddressRange> {
    let Some(list) = list else { return Vec::new() };
    if list.get_ref().is_empty() {
        let problem = Problem::new("allow_addresses is empty, so that nobody could dial in");
        problems.push(problem.at(list.span()).help("list ranges such as \"10.0.0.0/8\", or remove the option"));
    }
    let mut ranges = Vec::new();
    for text in list.get_ref() {
        let Some(range) = problems.check(text.span(), text.get_ref().parse::<AddressRange>()) else { continue };
        if ranges.contains(&range) {
            let problem = Problem::new(format!("{range} is allowed already")).at(text.span());
            problems.push(problem.help("remove one of the two"));
        }
        ranges.push(range);
    }
    ranges
}

/// Zero is no bound.
fn bound(max: u32) -> Option<u32> {
    (max > 0).then_some(max)
}

/// A Unix socket has no source addresses, and everything else none of a file's options.
fn check_kind(
    section: &file::Listen,
    address: &Address,
    tcp: &TcpKeys<'_>,
    unix: &UnixKeys<'_>,
    problems: &mut Problems,
) {
    if !matches!(address, Address::Unix { .. }) {
        return refuse(unix.given(), "unix", "tcp and tls", problems);
    }
    let ip = [("handshakes_per_ip_max", &section.handshakes_per_ip_max), ("rate_per_ip", &section.rate_per_ip)];
    let ip = ip.into_iter().filter_map(|(name, key)| Some((name, key.as_ref()?.span())));
    let ip = ip.chain(section.allow_addresses.as_ref().map(|list| ("allow_addresses", list.span())));
    refuse(tcp.given().chain(ip), "tcp and tls", "unix", problems);
}

/// A source may begin this many seconds' worth of handshakes at once, as a link that comes back does.
const BURST_SECONDS: u32 = 2;
