//! `[[link]]`: a peer that is dialled, and how.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use super::limits::bandwidth;
use super::problem::{Problem, Problems};
use super::resolve::{peer, value};
use super::tcp::TcpKeys;
use super::{NodeConfig, file, quic, values};
use crate::base::{Bandwidth, limits};
use crate::channel::{Address, ChannelKind, DialOptions};
use crate::crypto::identity::NodeId;
use crate::node::{Entrances, LaneRole, LinkAddress};
use crate::session::scheduler::Policy;
use crate::wire::PaddingPolicy;

/// A peer that is dialled.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// Who has to answer.
    pub peer: NodeId,
    /// Whether the node is ready only while this link is up.
    pub required: bool,
    /// Where; at least one.
    pub addresses: Vec<LinkAddress>,
    /// The kind of channel that carries data while one works.
    pub prefer: Option<ChannelKind>,
    /// How several addresses are used.
    pub entrances: Entrances,
    /// Which channel gets the next packet.
    pub scheduler: Policy,
    /// How packets are padded.
    pub padding: PaddingPolicy,
    /// How long streams wait without any channel.
    pub survive: Duration,
    /// When packets are sealed inside channels that are encrypted already.
    pub seal: Seal,
    /// The longest life of its sessions.
    pub session_age_max: Duration,
    /// How channels are dialled.
    pub dial: DialOptions,
    /// Whether replay-safe streams may send early data.
    pub early_data: bool,
    /// What this node sends over it.
    pub bandwidth_limit: Option<Bandwidth>,
}

/// When packets are sealed inside channels that are encrypted already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seal {
    /// Only where the channel does not encrypt up to the peer itself.
    #[default]
    Auto,
    /// On every channel.
    Always,
}

impl FromStr for Seal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            other => Err(format!("{other:?} is not known; expected auto or always")),
        }
    }
}

pub(super) fn resolve(section: &Spanned<file::Link>, node: &NodeConfig, problems: &mut Problems) -> Option<LinkConfig> {
    let section = section.get_ref();
    let tcp = TcpKeys {
        congestion: &section.congestion,
        keepalive: &section.keepalive,
        user_timeout: &section.user_timeout,
        notsent_lowat: &section.notsent_lowat,
        mark: &section.mark,
    };
    let mut dial = DialOptions { tcp: tcp.resolve(problems), ..DialOptions::default() };
    dial.tcp.bind = value(section.bind.as_ref(), |text| bind(text).map(Some), None, problems);
    dial.quic = quic::resolve(section.quic.as_ref(), problems);
    (dial.quic.bind, dial.quic.mark) = (dial.tcp.bind, dial.tcp.mark);
    dial.timeout = value(section.connect_timeout.as_ref(), values::duration_above_zero, dial.timeout, problems);
    let addresses = addresses(&section.addresses, dial.quic.lane_count, problems);
    let prefer = value(section.prefer.as_ref(), |text| prefer(text).map(Some), None, problems);
    if let (Some(kind), Some(typed)) = (prefer, &section.prefer)
        && !addresses.is_empty()
        && addresses.iter().all(|address| address.address.kind() != kind)
    {
        let message = format!("the link prefers {kind}, and none of its addresses is {kind}://");
        problems.push(Problem::new(message).at(typed.span()).help("add such an address, or remove the option"));
    }
    let entrances = value(section.entrances.as_ref(), entrances, Entrances::default(), problems);
    let padding = value(section.padding.as_ref(), str::parse, PaddingPolicy::default(), problems);
    let scheduler = value(section.scheduler.as_ref(), str::parse, Policy::default(), problems);
    let survive = value(section.survive.as_ref(), values::duration, node.survive, problems);
    let seal = value(section.seal.as_ref(), str::parse, Seal::default(), problems);
    let early_data = section.early_data.unwrap_or(false);
    let bandwidth_limit = bandwidth(section.bandwidth_limit.as_ref(), problems);
    let peer = peer(&section.peer, &node.id, problems)?;
    let required = section.required.unwrap_or(true);
    Some(LinkConfig {
        peer,
        required,
        addresses,
        prefer,
        entrances,
        scheduler,
        padding,
        survive,
        seal,
        session_age_max: node.session_age_max,
        dial,
        early_data,
        bandwidth_limit,
    })
}

fn addresses(
    list: &Spanned<Vec<Spanned<file::LinkAddress>>>,
    lanes_of_quic: u32,
    problems: &mut Problems,
) -> Vec<LinkAddress> {
    if list.get_ref().is_empty() {
        problems.push(Problem::new("the link has no address; expected at least one").at(list.span()));
    }
    let addresses: Vec<_> = list.get_ref().iter().filter_map(|item| address(item, problems)).collect();
    let lanes = |address: &LinkAddress| match address.address {
        Address::Quic { .. } => address.count.saturating_mul(lanes_of_quic),
        _ => address.count,
    };
    let count = addresses.iter().fold(0_u32, |sum, address| sum.saturating_add(lanes(address)));
    if count > limits::LINK_LANES_MAX {
        let message = format!("the link asks for {count} lanes; a link keeps at most {}", limits::LINK_LANES_MAX);
        problems.push(Problem::new(message).at(list.span()).help("give some addresses a smaller count"));
    }
    addresses
}

fn address(item: &Spanned<file::LinkAddress>, problems: &mut Problems) -> Option<LinkAddress> {
    let typed = item.get_ref();
    let address = problems.check(item.span(), typed.url.parse::<Address>())?;
    if matches!(&address, Address::Tcp { port: 0, .. } | Address::Tls { port: 0, .. } | Address::Quic { port: 0, .. }) {
        problems.push(Problem::new(format!("{address} cannot be dialled: port 0")).at(item.span()));
    }
    let usual = LinkAddress::new(address);
    let (count, weight) = (typed.count.unwrap_or(usual.count), typed.weight.unwrap_or(usual.weight));
    if count == 0 || weight == 0 {
        problems.push(Problem::new("count and weight are at least 1").at(item.span()).help("remove the address"));
    }
    if weight > limits::LANE_WEIGHT_MAX {
        let message = format!("a weight is at most {}", limits::LANE_WEIGHT_MAX);
        problems.push(Problem::new(message).at(item.span()));
    }
    let priority = typed.priority.unwrap_or(0);
    if priority > limits::LANE_PRIORITY_MAX {
        let message = format!("a priority is at most {}", limits::LANE_PRIORITY_MAX);
        problems.push(Problem::new(message).at(item.span()));
    }
    let role = typed.role.as_deref().map_or(Ok(LaneRole::Active), role);
    let role = problems.check(item.span(), role)?;
    Some(LinkAddress { count, weight, priority, role, ..usual })
}

fn role(text: &str) -> Result<LaneRole, String> {
    match text {
        "active" => Ok(LaneRole::Active),
        "standby" => Ok(LaneRole::Standby),
        other => Err(format!("{other:?} is no role; expected active or standby")),
    }
}

fn prefer(text: &str) -> Result<ChannelKind, String> {
    let kinds = [ChannelKind::Tcp, ChannelKind::Tls, ChannelKind::Quic, ChannelKind::Unix];
    let kind = kinds.into_iter().find(|kind| kind.as_str() == text);
    kind.ok_or_else(|| format!("{text:?} is no kind of channel; expected tcp, tls, quic or unix"))
}

fn entrances(text: &str) -> Result<Entrances, String> {
    match text {
        "spread" => Ok(Entrances::Spread),
        "failover" => Ok(Entrances::Failover),
        other => Err(format!("{other:?} is not known; expected spread or failover")),
    }
}

/// A local address, with or without a port.
fn bind(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0)))
        .map_err(|_| format!("\"{text}\" is no local address; expected such as \"10.0.0.1\" or \"[fd00::1]:0\""))
}
