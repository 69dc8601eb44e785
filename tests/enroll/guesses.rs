//! Ten thousand wrong guesses, and fifty at once: what an attacker with time gets, and what others notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use longhaul::base::Secret;
use longhaul::crypto::identity::{NodeId, TlsSettings, default_provider};
use longhaul::crypto::token::{EnrollProof, JoinToken};
use longhaul::enroll::{AuditLog, Registrar, RegistrarSettings, Visit, files};
use longhaul::issue::{CertificateAuthority, CertificateRequest, KeyType, NodeKey};
use longhaul::node::{ConnectError, LinkConfig, Node};
use longhaul::wire::{EnrollAnswer, EnrollRequest};
use rustls::time_provider::DefaultTimeProvider;

use crate::attacks::{answer, connect, request};
use crate::common::{Hub, ended};
use crate::guests;

const EXPORTER: [u8; 32] = [9; 32];

fn asked(token: &JoinToken, csr: &[u8]) -> EnrollRequest {
    let parsed = CertificateRequest::from_der(csr).unwrap();
    let exporter = Secret::new(EXPORTER);
    let asked = EnrollProof { exporter: &exporter, token_id: token.id(), request_sha256: parsed.sha256(), name: "" };
    EnrollRequest {
        token_id: *token.id().as_bytes(),
        name: String::new(),
        certificate_request: csr.to_vec(),
        proof: token.prove(&asked),
    }
}

fn ask(registrar: &Registrar, request: &EnrollRequest) -> EnrollAnswer {
    let exporter = Secret::new(EXPORTER);
    let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let address = "192.0.2.7".parse().unwrap();
    registrar.enroll(&Visit { request, exporter: &exporter, address, now: Instant::now(), now_unix })
}

/// Against the authority itself, as fast as it answers: no network and no limits on connections are in between.
#[test]
fn ten_thousand_guesses_lock_one_token_and_keep_nobody_else_out() {
    const GUESSES: u32 = 10_000;
    const OTHERS: usize = 5;
    let mut hub = Hub::start();
    let token = hub.token(&["--name", "dc-b"]);
    let others: Vec<_> = (0..OTHERS).map(|number| hub.token(&["--name", &format!("other-{number}")])).collect();
    hub.kill();
    let read = |name: &str| std::fs::read_to_string(hub.path("hub").join(name)).unwrap();
    let authority = CertificateAuthority::from_pem(&read("ca.crt"), &read("ca.key")).unwrap();
    let settings = RegistrarSettings { certificate_lifetime: Duration::from_secs(86_400), addresses: Vec::new() };
    let audit = AuditLog::new(&hub.path("hub").join(files::AUDIT));
    let registrar = Registrar::new(Box::new(hub.store()), Arc::new(authority), audit, settings);
    let csr = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
    let guesses = AtomicU32::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let guessing = scope.spawn(|| {
            let mut wrong = asked(&token, &csr);
            for number in 0..GUESSES {
                wrong.proof[..4].copy_from_slice(&number.to_be_bytes());
                assert_eq!(ask(&registrar, &wrong), EnrollAnswer::Refused);
                guesses.fetch_add(1, Ordering::Relaxed);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        // Each at another moment of the siege; all of them get what they came for.
        for (number, other) in others.iter().enumerate() {
            let moment = GUESSES / OTHERS as u32 * number as u32;
            while guesses.load(Ordering::Relaxed) < moment && !is_over.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let csr = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
            assert!(matches!(ask(&registrar, &asked(other, &csr)), EnrollAnswer::Issued { .. }), "{number}");
        }
        guessing.join().unwrap();
    });
    // The right proof is refused now, and nothing was used up.
    assert_eq!(ask(&registrar, &asked(&token, &csr)), EnrollAnswer::Refused);
    assert_eq!(hub.record(&token).use_count, 0);
    let audit = hub.audit();
    assert_eq!(audit.matches("\"event\":\"token-locked\"").count(), 1);
    // Every refusal is told or counted, and strangers do not fill the disk.
    let lines: Vec<serde_json::Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refusals: Vec<_> = lines.iter().filter(|line| line["event"] == "enrolment-refused").collect();
    let suppressed: u64 = refusals.iter().filter_map(|line| line["suppressed"].as_u64()).sum();
    let told = refusals.len() as u64;
    assert!(told >= 20 && told + suppressed <= u64::from(GUESSES) + 1, "{told} + {suppressed}");
    assert!(told < u64::from(GUESSES) / 4, "{told} lines");
    assert!(refusals.iter().any(|line| line["reason"] == "locked"), "{refusals:?}");
}

/// The same over the network, with a joining machine in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guesses_over_the_network_do_not_keep_a_machine_from_joining() {
    let hub = Arc::new(Hub::start());
    let token = Arc::new(hub.token(&["--name", "dc-b"]));
    let csr = Arc::new(NodeKey::generate(KeyType::P256).unwrap().request().unwrap());
    let guessing: Vec<_> = (0..4u8)
        .map(|guesser| {
            let (hub, token, csr) = (Arc::clone(&hub), Arc::clone(&token), Arc::clone(&csr));
            tokio::spawn(async move {
                for number in 0..25 {
                    let stream = connect(hub.enroll_port, &token).await;
                    let mut wrong = request(&stream, &token, &csr);
                    wrong.proof[..2].copy_from_slice(&[guesser, number]);
                    assert_eq!(answer(stream, &wrong.encode()).await, EnrollAnswer::Refused);
                }
            })
        })
        .collect();
    hub.token(&["--name", "dc-c"]);
    let joining = Arc::clone(&hub);
    let output = tokio::task::spawn_blocking(move || joining.join("node", &[])).await.unwrap();
    ended(&output, 0);
    for one in guessing {
        one.await.unwrap();
    }
    assert!(hub.audit().contains("token-locked"), "{}", hub.audit());
    assert_eq!(hub.record(&token).use_count, 0);
}

/// Each use is one session, whoever comes at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_guests_at_once_as_many_come_in_as_there_are_uses() {
    const USES: u32 = 7;
    let hub = guests::hub();
    let token = hub.token(&["--guest", "--name", "guest-*", "--uses", &USES.to_string()]);
    let hub_id = NodeId::new("example", "hub").unwrap();
    let coming: Vec<_> = (0..50)
        .map(|number| {
            let (token, hub_id) = (token.clone(), hub_id.clone());
            let address = format!("tcp://127.0.0.1:{}", hub.channel_port).parse().unwrap();
            tokio::spawn(async move {
                let (name, time) = (format!("guest-{number}"), Arc::new(DefaultTimeProvider));
                let tls = TlsSettings::guest(token, "example", Some(&name), default_provider(), time).unwrap();
                let node = Node::builder(tls).build().await.unwrap();
                let mut config = LinkConfig::new(hub_id, [address]);
                config.addresses[0].count = 1;
                match node.connect(config).await {
                    Ok(connected) => Some((node, connected)),
                    Err(error) if matches!(*error, ConnectError::GuestRefused) => None,
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    let mut inside = Vec::new();
    for one in coming {
        inside.extend(one.await.unwrap());
    }
    assert_eq!(inside.len(), USES as usize);
    assert_eq!(hub.record(&token).use_count, USES);
    let audit = hub.audit();
    assert_eq!(audit.matches("\"event\":\"guest-admitted\"").count(), USES as usize, "{audit}");
}
