//! Questions over HTTP: answers, refusals, events, bounds.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::common::{Pair, Place, Program, answers, connect_to, soon};

/// Asks in one's own words, and reads to the end.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A refusal may come before all of a request is read, and end in a reset.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

async fn tcp(port: u16, method: &str, path: &str, headers: &str) -> (u16, String) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    ask(stream, &format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n")).await
}

async fn get(port: u16, path: &str) -> (u16, String) {
    tcp(port, "GET", path, "Host: localhost\r\n").await
}

fn json(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn status(port: u16) -> Value {
    let (status, answer) = get(port, "/status").await;
    assert_eq!(status, 200, "{answer}");
    json(&answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_has_links_channels_services_and_counters() {
    let place = Place::new();
    let mut pair = Pair::start(&place).await;
    let mut client = connect_to(pair.front, b'x').await;
    assert!(answers(&mut client).await);
    let [of_a, of_b] = [status(pair.admin_of_a).await, status(pair.admin_of_b).await];
    assert_eq!((&of_a["version"], &of_a["node"]["name"], &of_a["ready"]), (&1.into(), &"a".into(), &true.into()));
    let link = &of_a["links"][0];
    assert_eq!((&link["peer"], &link["state"], &link["channels_wanted"]), (&"b".into(), &"up".into(), &4.into()));
    let session = &of_a["sessions"][0];
    assert_eq!(session["side"], "dialled");
    assert!(session["streams"].as_u64().unwrap() > 0);
    assert_eq!(session["id"], of_b["sessions"][0]["id"], "both ends name it alike");
    let channel = &session["channels"][0];
    assert_eq!((&channel["kind"], &channel["state"]), (&"tcp".into(), &"active".into()));
    assert!(channel["bytes_sent"].as_u64().unwrap() > 0);
    // The connection before may not have ended everywhere yet.
    let (forward, service) = (&of_a["forwards"][0], &of_b["services"][0]);
    assert!(forward["open"].as_u64().unwrap() > 0 && service["open"].as_u64().unwrap() > 0);
    assert_eq!((&forward["bytes_to_peer"], &service["bytes_from_peer"]), (&1.into(), &1.into()));
    assert_eq!(service["name"], "one");
    assert!(of_b["certificate"]["not_after_unix"].as_u64().unwrap() > 1_700_000_000);
    // Without the peer the node is alive and not ready, and says why.
    assert_eq!(get(pair.admin_of_a, "/ready").await.0, 200);
    pair.b.kill().await;
    let reason = soon(async {
        loop {
            let (status, answer) = get(pair.admin_of_a, "/ready").await;
            if status == 503 {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(reason.await.contains("link b"));
    assert_eq!(get(pair.admin_of_a, "/health").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_not_required_may_be_down() {
    let place = Place::new();
    let link = "[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:1\"]\n";
    let admin = "[admin]\nlisten = [\"tcp://127.0.0.1:0\"]\n";
    let mut a = place.start("a", &format!("{admin}{link}"));
    let port = a.port("admin listening").await;
    assert_eq!(get(port, "/ready").await.0, 503);
    place.configure("a", &format!("{admin}{link}required = false\n"));
    assert_eq!(a.reload().await, ["link b: required changed"]);
    assert_eq!(get(port, "/ready").await.0, 200);
    assert_eq!(status(port).await["links"][0]["state"], "down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_need_the_token_or_the_socket() {
    let place = Place::new();
    let token = "0123456789abcdef0123456789abcdef";
    place.write("token", token);
    let admin = "[admin]\nlisten = [\"tcp://127.0.0.1:0\", \"unix:admin.sock\"]\ntoken_file = \"token\"\n";
    let admin = admin.replace("unix:admin.sock", &format!("unix://{}", place.path("admin.sock").display()));
    let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
    let mut b = place.start("b", &format!("{admin}{listen}"));
    let port = b.port("admin listening").await;
    b.logged("ready").await;
    let host = "Host: 127.0.0.1\r\n";
    assert_eq!(tcp(port, "POST", "/reload", host).await.0, 401);
    assert_eq!(tcp(port, "POST", "/reload", &format!("{host}Authorization: Bearer wrong\r\n")).await.0, 401);
    let right = format!("{host}Authorization: Bearer {token}\r\n");
    place.configure("b", &format!("[log]\nfilter = \"debug\"\n{admin}{listen}"));
    let (code, answer) = tcp(port, "POST", "/reload", &right).await;
    assert_eq!((code, &json(&answer)["changes"]), (200, &serde_json::json!(["log: filter is debug"])));
    // The socket's permissions are enough; a refused reload says why.
    place.configure("b", &format!("[node]\nsurvive = \"1h\"\n{admin}{listen}"));
    let socket = UnixStream::connect(place.path("admin.sock")).await.unwrap();
    let (code, answer) = ask(socket, "POST /reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(code, 422);
    assert!(json(&answer)["error"].as_str().unwrap().contains("[node] survive"), "{answer}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(place.path("admin.sock")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Neither names of others nor pages of others get anything, and nothing secret is told.
    assert_eq!(tcp(port, "GET", "/status", "Host: evil.example\r\n").await.0, 421);
    assert_eq!(tcp(port, "GET", "/status", "").await.0, 421);
    let foreign = format!("{host}Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n");
    assert_eq!(tcp(port, "GET", "/status", &foreign).await.0, 403);
    let (code, answer) = tcp(port, "GET", "/config", host).await;
    assert!(code == 200 && !answer.contains(token) && !answer.contains("PRIVATE KEY"), "{answer}");
    assert_eq!(json(&answer)["admin"]["mode"], "0600");
    assert!(!answer.to_lowercase().contains("access-control-allow"), "{answer}");
    assert!(answer.contains("default-src 'none'"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measurements_are_served() {
    let place = Place::new();
    let mut b =
        place.start("b", "[admin]\nlisten = [\"tcp://127.0.0.1:0\"]\n[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n");
    let port = b.port("admin listening").await;
    let (code, answer) = get(port, "/metrics").await;
    assert!(code == 200 && answer.contains("\n# TYPE longhaul_"), "{answer}");
    let (code, answer) = get(port, "/status").await;
    assert_eq!((code, json(&answer)["measurements"]["version"].as_u64()), (200, Some(1)), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_bounded() {
    let place = Place::new();
    let mut b =
        place.start("b", "[admin]\nlisten = [\"tcp://127.0.0.1:0\"]\n[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n");
    let port = b.port("admin listening").await;
    let host = "Host: localhost\r\n";
    assert_eq!(tcp(port, "GET", "/status", &format!("{host}Content-Length: 1000000\r\n")).await.0, 413);
    assert_eq!(tcp(port, "GET", "/status", &format!("{host}X: {}\r\n", "x".repeat(100_000))).await.0, 431);
    let many: String = (0..200).map(|index| format!("X-{index}: y\r\n")).collect();
    assert_eq!(tcp(port, "GET", "/status", &format!("{host}{many}")).await.0, 431);
    assert_eq!(tcp(port, "GET", "/nothing", host).await.0, 404);
    assert_eq!(tcp(port, "GET", "/reload", host).await.0, 405);
    assert_eq!(tcp(port, "POST", "/reload", host).await.0, 403, "without a token nothing changes over TCP");
    // Connections beyond the bound are closed, and others served again once some are gone.
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut head = [0; 8];
        soon(stream.read_exact(&mut head)).await.unwrap();
        held.push(stream);
    }
    assert_eq!(get(port, "/health").await.0, 0);
    drop(held);
    soon(async {
        while get(port, "/health").await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_what_happens() {
    let place = Place::new();
    let mut pair = Pair::start(&place).await;
    let mut stream = TcpStream::connect(("127.0.0.1", pair.admin_of_a)).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut seen = Vec::new();
    let mut wait = async |kind: &str| {
        soon(async {
            loop {
                let line = lines.next_line().await.unwrap().unwrap();
                if line == format!("event: {kind}") {
                    return;
                }
                seen.push(line);
            }
        })
        .await;
    };
    wait("ready").await;
    place.configure("a", &format!("{}[log]\nfilter = \"debug\"\n", pair.sections_of_a));
    pair.a.reload().await;
    wait("reloaded").await;
    pair.b.kill().await;
    wait("channel-down").await;
    wait("not-ready").await;
    let of_a = status(pair.admin_of_a).await;
    assert_eq!(of_a["dead_channels"][0]["state"], "dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_comes_from_the_program_alone() {
    let place = Place::new();
    let mut b: Program =
        place.start("b", "[admin]\nlisten = [\"tcp://127.0.0.1:0\"]\n[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n");
    let port = b.port("admin listening").await;
    for (path, kind) in [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")] {
        let (code, answer) = get(port, path).await;
        assert!(code == 200 && answer.contains(&format!("content-type: {kind}")), "{path}: {answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1.replace("http://www.w3.org/2000/svg", "");
        assert!(!body.contains("//") || !body.contains("http"), "{path} names another place");
        assert!(!body.contains("style=\"") && !body.contains("onclick"), "{path} needs a weaker policy");
    }
}
