//! Congestion control for quinn: which controllers there are, and our BBR behind its traits.
//!
//! quinn has its own pacer, which knows no rate: it lets a window and a quarter through in a smoothed round trip, and at
//! most a window be in flight. [`PacedWindow`] makes one window out of BBR's window and rate; this file only translates
//! calls. quinn tells of each acknowledged packet, then of the end of the acknowledgement, then of losses; marks of
//! congestion come as a loss of nothing. It never tells of a loss that was none, so nothing is undone.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig};
use quinn_proto::RttEstimator;

use super::observed::{Observed, PathObserver};
use crate::base::{Entropy, SystemEntropy};
use crate::congestion::{Bbr, BbrConfig, PacedWindow};

/// Which controller a QUIC channel gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuicCongestion {
    /// What suits most paths: BBR.
    #[default]
    Auto,
    /// CUBIC (RFC 9438), quinn's.
    Cubic,
    /// BBR version 3, ours.
    Bbr,
    /// NewReno (RFC 9002), quinn's.
    NewReno,
}

impl QuicCongestion {
    /// A factory for `quinn::TransportConfig`: connections begin with `initial_window_bytes` and tell `observer`.
    #[must_use]
    pub fn factory(
        self,
        initial_window_bytes: u64,
        observer: Option<Arc<dyn PathObserver>>,
    ) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Auto | Self::Bbr => observed(BbrFactory { initial_window_bytes }, observer),
            Self::Cubic => {
                let mut config = CubicConfig::default();
                config.initial_window(initial_window_bytes);
                observed(config, observer)
            }
            Self::NewReno => {
                let mut config = NewRenoConfig::default();
                config.initial_window(initial_window_bytes);
                observed(config, observer)
            }
        }
    }
}

/// Puts an observer around a factory, if there is one.
fn observed<F>(inner: F, observer: Option<Arc<dyn PathObserver>>) -> Arc<dyn ControllerFactory + Send + Sync>
where
    F: ControllerFactory + Send + Sync + 'static,
{
    match observer {
        Some(observer) => Arc::new(Observed::new(Arc::new(inner), observer)),
        None => Arc::new(inner),
    }
}

/// Builds [`BbrController`]s.
struct BbrFactory {
    initial_window_bytes: u64,
}

impl ControllerFactory for BbrFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let config = BbrConfig {
            initial_window_bytes: self.initial_window_bytes,
            segment_bytes: current_mtu.into(),
            seed: SystemEntropy::default().next_u64(),
        };
        Box::new(BbrController::new(config, now))
    }
}

/// BBR behind quinn's trait.
#[derive(Clone)]
struct BbrController {
    bbr: Bbr,
    paced: PacedWindow,
    initial_window_bytes: u64,
}

impl BbrController {
    fn new(config: BbrConfig, now: Instant) -> Self {
        let bbr = Bbr::new(config, now);
        let paced = PacedWindow::new(&bbr, now);
        Self { bbr, paced, initial_window_bytes: config.initial_window_bytes }
    }
}

impl Controller for BbrController {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.bbr.on_sent(now, bytes);
        self.paced.on_sent(bytes);
    }

    fn on_ack(&mut self, _now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        self.bbr.on_acked(sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        self.bbr.on_ack_end(now, in_flight, app_limited);
        self.paced.update(now, &self.bbr);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        if lost_bytes == 0 {
            self.bbr.on_congestion_mark(now, sent);
        } else {
            self.bbr.on_lost(now, sent, lost_bytes);
        }
        if is_persistent_congestion {
            self.bbr.on_persistent_congestion(now);
        }
        self.paced.update(now, &self.bbr);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.bbr.on_segment_size(new_mtu.into());
    }

    fn window(&self) -> u64 {
        self.paced.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.bbr.window();
        metrics.pacing_rate = Some(self.bbr.pacing_rate().bytes_per_second().saturating_mul(8));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window_bytes
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(feature = "issue")]
#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
    use quinn::{ClientConfig, Endpoint, ServerConfig, TransportConfig};

    use super::super::PathObserver;
    use super::*;

    #[derive(Default)]
    struct Counts {
        rtts: AtomicU64,
        acked: AtomicU64,
        lost: AtomicU64,
    }

    impl PathObserver for Counts {
        fn on_rtt(&self, _rtt: Duration) {
            self.rtts.fetch_add(1, Ordering::Relaxed);
        }

        fn on_acked(&self, bytes: u64) {
            self.acked.fetch_add(bytes, Ordering::Relaxed);
        }

        fn on_lost(&self, bytes: u64) {
            self.lost.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    const MEGABYTES: usize = 4;

    fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        #[cfg(feature = "aws-lc-rs")]
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        #[cfg(not(feature = "aws-lc-rs"))]
        let provider = rustls::crypto::ring::default_provider();
        Arc::new(provider)
    }

    /// Two endpoints on this machine; the client has the transport.
    fn endpoints(transport: TransportConfig) -> (Endpoint, Endpoint) {
        let certified = rcgen::generate_simple_self_signed(vec!["test".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let versions = [&rustls::version::TLS13];
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
        config.transport_config(Arc::new(transport));
        let mut client = Endpoint::client(address).unwrap();
        client.set_default_client_config(config);
        (client, Endpoint::server(server, address).unwrap())
    }

    #[tokio::test]
    async fn every_controller_carries_data_and_the_observer_hears_of_it() {
        for kind in [QuicCongestion::Auto, QuicCongestion::Bbr, QuicCongestion::Cubic, QuicCongestion::NewReno] {
            let counts = Arc::<Counts>::default();
            let mut transport = TransportConfig::default();
            transport.congestion_controller_factory(kind.factory(20_000, Some(Arc::clone(&counts) as _)));
            let (client, server) = endpoints(transport);
            let sending = async {
                let address = server.local_addr().unwrap();
                let connection = client.connect(address, "test").unwrap().await.unwrap();
                let mut stream = connection.open_uni().await.unwrap();
                stream.write_all(&vec![7; MEGABYTES << 20]).await.unwrap();
                stream.finish().unwrap();
                stream.stopped().await.unwrap();
            };
            let receiving = async {
                let connection = server.accept().await.unwrap().await.unwrap();
                let mut stream = connection.accept_uni().await.unwrap();
                let data = stream.read_to_end(MEGABYTES << 20).await.unwrap();
                // Gone with the connection, so it has to stay until the sender has heard.
                (data.len(), connection)
            };
            let ((), (received, _connection)) = tokio::join!(sending, receiving);
            assert_eq!(received, MEGABYTES << 20, "{kind:?}");
            assert!(counts.acked.load(Ordering::Relaxed) >= (MEGABYTES as u64) << 20, "{kind:?}");
            assert!(counts.rtts.load(Ordering::Relaxed) > 0, "{kind:?}");
        }
    }

    #[test]
    fn losses_and_marks_reach_the_model_and_the_observer() {
        let counts = Arc::<Counts>::default();
        let now = Instant::now();
        let mut controller = QuicCongestion::Bbr.factory(20_000, Some(Arc::clone(&counts) as _)).build(now, 1200);
        assert_eq!((controller.window(), controller.initial_window()), (20_000, 20_000));
        controller.on_sent(now, 12_000, 10);
        controller.on_congestion_event(now, now, false, 2400);
        controller.on_congestion_event(now, now, false, 0);
        assert_eq!(counts.lost.load(Ordering::Relaxed), 2400);
        controller.on_congestion_event(now, now, true, 1200);
        assert_eq!(controller.window(), 4 * 1200, "persistent congestion");
        assert!(controller.metrics().pacing_rate.is_some());
    }
}
