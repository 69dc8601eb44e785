//! One service: a target that peers may reach by name.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::allow::Allow;
use super::connections::{ConnectionGuard, Connections, PeerConnections, PeerGuard};
use super::counters::Counters;
use super::datagrams::{self, DatagramOptions};
use super::endpoint::{Endpoint, UdpAddress};
use super::proxy_protocol::{ProxyHeader, ProxyVersion};
use super::refusal::Refusal;
use super::socket::{Socket, local_tcp_options};
use super::throttle::{Pace, Throttle, Way};
use crate::channel::{Address, AddressError, DialError, DialOptions, dial};
use crate::crypto::identity::PeerIdentity;
use crate::node::{Bandwidth, Priority};
use crate::wire::ServiceRequest;

/// What a service leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP or a Unix socket. A host name is resolved for each connection.
    Address(Address),
    /// UDP. A host name is resolved for each flow.
    Datagrams(UdpAddress),
    /// The node itself, which answers `longhaul bench` of a peer. Written `bench:`.
    Bench,
}

impl From<Address> for Target {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl From<UdpAddress> for Target {
    fn from(address: UdpAddress) -> Self {
        Self::Datagrams(address)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Datagrams(address) => address.fmt(f),
            Self::Bench => f.write_str(BENCH),
        }
    }
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == BENCH {
            return Ok(Self::Bench);
        }
        Ok(match text.parse()? {
            Endpoint::Stream(address) => Self::Address(address),
            Endpoint::Datagrams(address) => Self::Datagrams(address),
        })
    }
}

/// How the target of `longhaul bench` is written.
const BENCH: &str = "bench:";

/// What a service leads to, and who may use it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Its name, 1 to 64 bytes.
    pub name: String,
    /// Where connections are made to.
    pub target: Target,
    /// Who may use it.
    pub allow: Allow,
    /// The header that tells the target who the client is. What a peer says about its clients is believed.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Connections at once.
    pub connections_max: u32,
    /// Connections or flows of each peer at once.
    pub connections_per_peer_max: u32,
    /// Bytes of its connections or flows, in each direction.
    pub bandwidth_limit: Option<Bandwidth>,
    /// How datagrams are treated, if its target takes them.
    pub datagrams: DatagramOptions,
    /// Time to connect to the target.
    pub connect_timeout: Duration,
    /// How urgent its answers are.
    pub priority: Priority,
    /// Whether what is asked of it may happen twice without harm: then early data reaches it at once.
    pub replay_safe: bool,
}

impl ServiceConfig {
    /// A service with everything else as usual.
    #[must_use]
    pub fn new(name: &str, target: impl Into<Target>, allow: Allow) -> Self {
        Self {
            name: name.to_owned(),
            target: target.into(),
            allow,
            proxy_protocol: None,
            connections_max: CONNECTIONS_MAX,
            connections_per_peer_max: u32::MAX,
            bandwidth_limit: None,
            datagrams: DatagramOptions::default(),
            connect_timeout: CONNECT_TIMEOUT,
            priority: Priority::default(),
            replay_safe: false,
        }
    }
}

/// What a service has connected a peer with.
#[derive(Debug)]
pub(super) enum Connected {
    /// The target's connection.
    Stream(Socket),
    /// A socket that sends to the target, and gets what it answers.
    Datagrams(UdpSocket),
    /// The node itself.
    Bench,
}

/// A service that is offered.
#[derive(Debug)]
pub struct Service {
    config: ServiceConfig,
    dial: DialOptions,
    counters: Arc<Counters>,
    connections: Connections,
    of_peers: PeerConnections,
    throttle: Arc<Throttle>,
}

/// A connection that counts against the limits of its service.
pub(super) type ServiceGuard = (ConnectionGuard, PeerGuard);

impl Service {
    pub(super) fn new(config: ServiceConfig) -> Self {
        let throttle = Throttle::new(config.bandwidth_limit);
        let dial = dial_options(&config);
        let (connections, of_peers) = (Connections::new(), PeerConnections::default());
        Self { config, dial, counters: Arc::default(), connections, of_peers, throttle }
    }

    /// The same service with another configuration: counters go on, and open connections count.
    pub(super) fn reconfigured(&self, config: ServiceConfig) -> Self {
        self.throttle.set(config.bandwidth_limit);
        Self {
            dial: dial_options(&config),
            config,
            counters: Arc::clone(&self.counters),
            connections: self.connections.clone(),
            of_peers: self.of_peers.clone(),
            throttle: Arc::clone(&self.throttle),
        }
    }

    /// What it leads to.
    #[must_use]
    pub fn config(&self) -> &ServiceConfig {
        &self.config
    }

    /// What it counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// How long connections waited for the bandwidth limit, all together: towards peers, and towards the target.
    #[must_use]
    pub fn throttled(&self) -> [Duration; 2] {
        [Way::ToPeer, Way::FromPeer].map(|way| self.throttle.waited(way))
    }

    /// What keeps it to its bandwidth.
    pub(super) fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// The same, for one connection.
    pub(super) fn pace(&self) -> Pace {
        Pace::new(Arc::clone(&self.throttle))
    }

    /// Connections that are open.
    #[must_use]
    pub fn open_connections(&self) -> u32 {
        self.connections.open()
    }

    /// Connects to the target for a peer, which asks for a flow of datagrams or for a connection.
    pub(super) async fn connect(
        &self,
        peer: &PeerIdentity,
        wants_datagrams: bool,
    ) -> Result<(Connected, ServiceGuard), Refusal> {
        if !self.config.allow.allows(peer) {
            return Err(Refusal::NotAllowed);
        }
        if wants_datagrams != matches!(self.config.target, Target::Datagrams(_)) {
            return Err(Refusal::WrongKind);
        }
        let max = if wants_datagrams { self.config.datagrams.flow_count_max } else { self.config.connections_max };
        let of_peer = self.of_peers.begin(&peer.node_id, self.config.connections_per_peer_max);
        let of_peer = of_peer.ok_or(Refusal::TooManyOfPeer)?;
        let guard = (self.connections.begin(max).ok_or(Refusal::TooManyConnections)?, of_peer);
        match &self.config.target {
            Target::Bench => Ok((Connected::Bench, guard)),
            Target::Address(target) => Ok((Connected::Stream(self.dial(target).await?), guard)),
            Target::Datagrams(target) => {
                let connecting = tokio::time::timeout(self.config.connect_timeout, datagrams::connect(target));
                let socket = connecting.await.map_err(|_| Refusal::TargetUnreachable)?.map_err(|error| {
                    tracing::debug!(service = %self.config.name, %error, "target cannot be sent to");
                    Refusal::TargetUnreachable
                })?;
                Ok((Connected::Datagrams(socket), guard))
            }
        }
    }

    async fn dial(&self, target: &Address) -> Result<Socket, Refusal> {
        let connection = dial(target, &self.dial).await.map_err(|error| {
            tracing::debug!(service = %self.config.name, %error, "target cannot be dialled");
            match error {
                DialError::Refused { .. } => Refusal::TargetRefused,
                _ => Refusal::TargetUnreachable,
            }
        })?;
        Socket::from_connection(connection).ok_or(Refusal::TargetUnreachable)
    }

    /// The bytes that go to the target before those of the client.
    pub(super) fn greeting(&self, request: &ServiceRequest) -> Option<Vec<u8>> {
        let address = |text: &str| text.parse::<SocketAddr>().ok();
        let header = || ProxyHeader::between(address(&request.source), address(&request.destination));
        self.config.proxy_protocol.map(|version| header().encode(version))
    }
}

fn dial_options(config: &ServiceConfig) -> DialOptions {
    DialOptions { tcp: local_tcp_options(), timeout: config.connect_timeout, ..DialOptions::default() }
}

/// Enough for a pool of each of many clients, few enough that their streams fit one session's count.
const CONNECTIONS_MAX: u32 = 1024;

/// A target is near: one that takes longer is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
