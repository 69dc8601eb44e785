//! Options of QUIC channels, and what quinn is told of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::congestion::QuicCongestion;
use super::observed::PathObserver;
use super::unsent::Metered;
use crate::base::limits;

/// Options of QUIC channels, dialled and accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct QuicOptions {
    /// The congestion control of what this side sends.
    pub congestion: QuicCongestion,
    /// Bytes that may be in flight before anything is known about the path.
    pub initial_window_bytes: u64,
    /// The round trip that is assumed before one is measured.
    pub initial_rtt: Duration,
    /// UDP payload of the first datagrams, in bytes: what every path is believed to carry. At least 1,200.
    pub mtu_initial_bytes: u16,
    /// The largest UDP payload that is looked for; `None` looks for 65,000 bytes on loopback and for 8,952, a jumbo
    /// frame of 9,000 over IPv6, elsewhere.
    pub mtu_max_bytes: Option<u16>,
    /// Silence after which the peer is asked for a sign of life; `None` asks never.
    pub keepalive: Option<Duration>,
    /// Silence after which the connection is over.
    pub idle_timeout: Duration,
    /// Lanes of a dialled channel, 1 to 16; a listener takes what its peers open.
    pub lane_count: u32,
    /// Size of the socket's send buffer, in bytes.
    pub send_buffer_bytes: u32,
    /// Size of the socket's receive buffer, in bytes: what arrives while the process does something else.
    pub receive_buffer_bytes: u32,
    /// Several datagrams a system call (GSO), where the system has it.
    pub segmentation_offload: bool,
    /// Sockets of a listener on the same port (`SO_REUSEPORT`), among which the system spreads the peers.
    pub endpoint_count: u32,
    /// When a listener asks peers to prove their address, which costs them a round trip.
    pub retry: RetryPolicy,
    /// Mark for routing and filtering (`SO_MARK`); needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// Local address of dialled channels. Listeners ignore it.
    pub bind: Option<SocketAddr>,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            congestion: QuicCongestion::Auto,
            initial_window_bytes: INITIAL_WINDOW_BYTES,
            initial_rtt: INITIAL_RTT,
            mtu_initial_bytes: MTU_MIN_BYTES,
            mtu_max_bytes: None,
            keepalive: Some(KEEPALIVE),
            idle_timeout: IDLE_TIMEOUT,
            lane_count: LANE_COUNT,
            send_buffer_bytes: SOCKET_BUFFER_BYTES,
            receive_buffer_bytes: SOCKET_BUFFER_BYTES,
            segmentation_offload: true,
            endpoint_count: 1,
            retry: RetryPolicy::Auto,
            mark: None,
            bind: None,
        }
    }
}

impl QuicOptions {
    /// What quinn is told for a channel whose local end or peer is at `ip`. `observer` hears what its path does.
    pub(super) fn transport(&self, ip: IpAddr, observer: Option<Arc<dyn PathObserver>>) -> TransportConfig {
        let mut transport = TransportConfig::default();
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_max(ip));
        let idle = IdleTimeout::try_from(self.idle_timeout).unwrap_or(IdleTimeout::from(VarInt::MAX));
        transport
            .congestion_controller_factory(Arc::new(Metered(
                self.congestion.factory(self.initial_window_bytes, observer),
            )))
            .initial_rtt(self.initial_rtt)
            .initial_mtu(self.mtu_initial_bytes)
            .mtu_discovery_config(Some(discovery))
            .keep_alive_interval(self.keepalive)
            .max_idle_timeout(Some(idle))
            .max_concurrent_bidi_streams(VarInt::from_u32(LANES_MAX))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
            .receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES * LANES_MAX))
            .send_window(SEND_WINDOW_BYTES)
            .send_fairness(false)
            .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
            .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER_BYTES)
            .enable_segmentation_offload(self.segmentation_offload && self.mtu_max(ip) <= self.mtu_offloaded());
        transport
    }

    /// The largest UDP payload that is looked for, towards `ip`.
    pub(super) fn mtu_max(&self, ip: IpAddr) -> u16 {
        let found = if ip.to_canonical().is_loopback() { MTU_LOOPBACK_BYTES } else { MTU_JUMBO_BYTES };
        self.mtu_max_bytes.unwrap_or(found).max(self.mtu_initial_bytes)
    }

    /// The largest UDP payload of which several go to the system at once. Those of loopback are as large as that is
    /// allowed to be.
    pub(super) fn mtu_offloaded(&self) -> u16 {
        self.mtu_max_bytes.unwrap_or(MTU_JUMBO_BYTES).max(self.mtu_initial_bytes)
    }
}

/// When a listener answers a first datagram by Retry (RFC 9000 §8.1.2): the peer has to show that it receives at its
/// address before anything is kept for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryPolicy {
    /// While many handshakes are pending.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Forty datagrams, which are spread over a round trip: what the four TCP connections of a link begin with, of which one QUIC
/// channel takes the place. RFC 9002 §7.2 recommends ten for what stands for one. A line of 300 kbit/s loses most of
/// them, and carries the rest of a transfer at its rate nevertheless, as the channel is not given up meanwhile.
const INITIAL_WINDOW_BYTES: u64 = 4 * 14_720;

/// RFC 9002 §6.2.2.
const INITIAL_RTT: Duration = Duration::from_millis(333);

/// RFC 9000 §14: the smallest that carries QUIC.
pub(super) const MTU_MIN_BYTES: u16 = 1200;

/// A 9,000-byte frame less the heads of IPv6 and UDP.
const MTU_JUMBO_BYTES: u16 = 9000 - 40 - 8;

/// Loopback frames hold 65,536 bytes; segmentation offload and QUIC's own heads stay below that.
const MTU_LOOPBACK_BYTES: u16 = 65_000;

/// Below the shortest time for which common firewalls remember a UDP flow (30 s).
const KEEPALIVE: Duration = Duration::from_secs(5);

/// As long as unacknowledged TCP bytes are waited for.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Four lanes: a lost datagram holds up a quarter of what arrives.
const LANE_COUNT: u32 = 4;

/// Lanes that one connection may have.
pub(super) const LANES_MAX: u32 = 16;

/// A quarter of a second at 250 Mbit/s; more than any default, which loses bursts on long paths.
const SOCKET_BUFFER_BYTES: u32 = 8 << 20;

/// What may arrive on a lane and not be read, and so also what it carries in a round trip: four lanes fill 1 Gbit/s at
/// 250 ms. Lanes are read as bytes come, in whatever order, so that there is no need for more.
///
/// A connection ends when quinn holds more than 1,024 pieces of a stream with gaps between them, which in this window
/// takes a loss of one datagram in seven, and a reader that has stood still for a whole window.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// What is held until it was acknowledged in order: all that a session has in flight on one connection, and padding.
const SEND_WINDOW_BYTES: u64 = limits::QUIC_REORDER_BYTES_MAX as u64;

/// Datagrams that wait to be read: a tenth of a second at 80 Mbit/s.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;

/// Datagrams that wait to be sent, two of the largest: what waits longer does so where it can still expire.
const DATAGRAM_SEND_BUFFER_BYTES: usize = 128 << 10;
