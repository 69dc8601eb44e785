//! Clocks that are wrong by a year, in either direction: machines that join and nodes that renew are told what is wrong, use
//! nothing up, and go on as soon as the clock is right.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use longhaul::crypto::identity::{Identity, NodeId, TlsSettings, TrustAnchors, default_provider};
use longhaul::enroll::{Join, JoinError, RenewError, Renewal};
use longhaul::issue::{KeyType, NodeKey};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::common::{Hub, ended};

/// Ahead of the system's clock, or behind it.
#[derive(Debug)]
struct Off(i64);

impl TimeProvider for Off {
    fn current_time(&self) -> Option<UnixTime> {
        let now = UnixTime::now().as_secs().checked_add_signed(self.0)?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

/// A day more than the hub's own certificate holds.
const YEAR: i64 = 366 * 86_400;

const WRONG: [(i64, &str); 2] = [(YEAR, "expired at"), (-YEAR, "is valid from")];

#[tokio::test]
async fn a_machine_with_a_wrong_clock_is_told_and_joins_when_it_is_right() {
    let hub = Hub::start();
    let token = hub.token(&["--name", "dc-b"]);
    let request = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
    let join = |offset| Join {
        host: "127.0.0.1",
        port: hub.enroll_port,
        token: &token,
        name: "",
        certificate_request: &request,
        provider: default_provider(),
        time: Arc::new(Off(offset)),
    };
    for (offset, said) in WRONG {
        let error = join(offset).run().await.unwrap_err();
        assert!(matches!(error, JoinError::NotTheHub { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(said) && text.contains("check the clocks"), "{text}");
    }
    assert_eq!(hub.record(&token).use_count, 0);
    let joined = join(0).run().await.unwrap();
    assert_eq!(joined.node_id.name(), "dc-b");
}

#[tokio::test]
async fn a_node_with_a_wrong_clock_keeps_its_certificate_and_renews_when_it_is_right() {
    let hub = Hub::start();
    hub.token(&["--name", "dc-b"]);
    ended(&hub.join("node", &[]), 0);
    let read = |name: &str| fs::read(hub.path("node").join(name)).unwrap();
    let hub_id = NodeId::new("example", "hub").unwrap();
    let settings = |offset| {
        let identity = Identity::from_pem(&read("node.crt"), &read("node.key"), &default_provider()).unwrap();
        let anchors = TrustAnchors::from_pem(&read("ca.crt")).unwrap();
        TlsSettings::new(identity, anchors, default_provider(), Arc::new(Off(offset))).unwrap()
    };
    let request = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
    for (offset, said) in WRONG {
        let tls = settings(offset);
        let renewal = Renewal {
            host: "127.0.0.1",
            port: hub.enroll_port,
            hub: &hub_id,
            tls: &tls,
            certificate_request: &request,
        };
        let error = renewal.run().await.unwrap_err();
        assert!(matches!(error, RenewError::NotTheHub { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(said) && text.contains("check the clocks"), "{text}");
    }
    assert!(!hub.audit().contains("certificate-renewed"), "{}", hub.audit());
    let tls = settings(0);
    let renewal =
        Renewal { host: "127.0.0.1", port: hub.enroll_port, hub: &hub_id, tls: &tls, certificate_request: &request };
    renewal.run().await.unwrap();
    assert!(hub.audit().contains("certificate-renewed"), "{}", hub.audit());
}
