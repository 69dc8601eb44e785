//! A clock that is set wrong by a year, ahead or behind: sessions go on, new handshakes fail with what is wrong, and everything
//! comes back with the right time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use longhaul::channel::ListenOptions;
use longhaul::crypto::identity::{TlsSettings, TrustAnchors, default_provider};
use longhaul::node::{LinkConfig, Node};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::common::{authority, dialling, id, settings};
use crate::transfer::{both_ways, soon};

/// A clock that can be set.
#[derive(Debug, Default)]
struct Clock(AtomicI64);

impl Clock {
    fn set_wrong_by(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = UnixTime::now().as_secs().checked_add_signed(self.0.load(Ordering::Relaxed))?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

/// The settings of a node that goes by `clock`.
fn by(clock: &Arc<Clock>, name: &str) -> TlsSettings {
    let anchors = TrustAnchors::from_pem(authority().certificate_pem().as_bytes()).unwrap();
    let time = Arc::clone(clock) as Arc<dyn TimeProvider>;
    TlsSettings::new(settings(name).identity(), anchors, default_provider(), time).unwrap()
}

const YEAR: i64 = 365 * 86_400;

const SCHEMES: [&str; 3] = ["tcp", "tls", "quic"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialler_with_a_wrong_clock_says_so_and_keeps_its_session() {
    for scheme in SCHEMES {
        let address = format!("{scheme}://127.0.0.1:0").parse().unwrap();
        let b = Node::builder(settings("b")).listen(address, ListenOptions::default()).build().await.unwrap();
        let clock = Arc::new(Clock::default());
        let a = Node::builder(by(&clock, "a")).build().await.unwrap();
        let link = || LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]);
        let (_kept, session) = soon(a.connect(link())).await.unwrap();
        let accepted = soon(b.accept()).await.unwrap();
        for (offset, said) in [(YEAR, "expired at"), (-YEAR, "is valid from")] {
            clock.set_wrong_by(offset);
            let error = soon(a.connect(link())).await.err().unwrap().to_string();
            assert!(error.contains(said) && error.contains("check the clocks"), "{scheme}: {error}");
            both_ways(&session, &accepted, 3, 50_000).await;
        }
        clock.set_wrong_by(0);
        let (_other, _) = soon(a.connect(link())).await.unwrap();
        both_ways(&session, &accepted, 5, 50_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_with_a_wrong_clock_refuses_and_takes_peers_again_when_it_is_right() {
    for scheme in SCHEMES {
        let address = format!("{scheme}://127.0.0.1:0").parse().unwrap();
        let clock = Arc::new(Clock::default());
        let b = Node::builder(by(&clock, "b")).listen(address, ListenOptions::default()).build().await.unwrap();
        let a = dialling("a").await;
        let link = || LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]);
        let (_kept, session) = soon(a.connect(link())).await.unwrap();
        let accepted = soon(b.accept()).await.unwrap();
        for offset in [YEAR, -YEAR] {
            clock.set_wrong_by(offset);
            let error = soon(a.connect(link())).await.err().unwrap().to_string();
            assert!(!error.contains("node/a"), "a stranger is not told why: {scheme}: {error}");
            both_ways(&session, &accepted, 3, 50_000).await;
        }
        clock.set_wrong_by(0);
        let (_other, _) = soon(a.connect(link())).await.unwrap();
        both_ways(&session, &accepted, 5, 50_000).await;
        assert!(b.session_count() >= 2);
    }
}
