//! Targets of services as an operator sees them: ready or not, status, metrics, the table, reloads.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{Place, answers, connect, connect_to, echo, free_port, soon};

const LISTEN: &str = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n[admin]\nlisten = [\"tcp://127.0.0.1:0\"]\n";

async fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Asks until the answer is as it should be: it.
async fn until(port: u16, path: &str, holds: impl Fn(u16, &str) -> bool) -> String {
    soon(async {
        loop {
            let (code, body) = get(port, path).await;
            if holds(code, &body) {
                return body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
}

/// The targets of a node's first service.
fn targets(status: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(status).unwrap()["services"][0]["targets"].as_array().unwrap().clone()
}

/// What says the status of a page, over and over, at a port.
async fn page(listener: TcpListener, status: &'static str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn service(targets: &[(u16, u16)], more: &str) -> String {
    let target = |(port, check): &(u16, u16)| {
        format!("{{ url = \"tcp://127.0.0.1:{port}\", check_url = \"tcp://127.0.0.1:{check}\" }}")
    };
    let targets: Vec<_> = targets.iter().map(target).collect();
    format!(
        "[[service]]\nname = \"one\"\ntargets = [{}]\nrequired = true\n{more}\n\
         [service.check]\ntype = \"http\"\ninterval = \"20ms\"\ntimeout = \"20s\"\n",
        targets.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_a_target_that_works_is_told_everywhere() {
    let place = Place::new();
    let (x, y) = (echo("x").await, echo("y").await);
    let [(of_x, check_x), (of_y, check_y)] = [listener().await, listener().await];
    let mut b = place.start("b", &format!("{LISTEN}{}", service(&[(x, check_x), (y, check_y)], "")));
    let entrance = b.port("listening").await;
    let admin = b.port("admin listening").await;
    // Nobody answers yet: nothing is known of the targets, and the node is not ready.
    let (code, body) = get(admin, "/ready").await;
    assert_eq!((code, body.as_str()), (503, "service one: no target was checked yet\n"));
    let status = get(admin, "/status").await.1;
    assert!(targets(&status).iter().all(|target| target["state"] == "unchecked"), "{status}");
    let (serving_x, serving_y) = (tokio::spawn(page(of_x, "200 OK")), tokio::spawn(page(of_y, "500 Broken")));
    until(admin, "/ready", |code, _| code == 200).await;
    let holds = |_, body: &str| targets(body)[0]["state"] == "up" && targets(body)[1]["state"] == "down";
    let status = until(admin, "/status", holds).await;
    let down = &targets(&status)[1];
    assert_eq!(down["reason"], "answered with status 500, expected 200-399");
    assert!(down["checks"]["bad-answer"].as_u64() >= Some(1) && down["since_unix_ms"].as_u64() > Some(0), "{down}");
    let up = |port: u16, up: &'static str| {
        let target = format!("target=\"tcp://127.0.0.1:{port}\"");
        move |body: &str| {
            let mut lines = body.lines().filter(|line| line.starts_with("longhaul_backend_up{"));
            lines.any(|line| line.contains(&target) && line.contains("service=\"one\"") && line.ends_with(up))
        }
    };
    let metrics = until(admin, "/metrics", |_, body| up(x, " 1")(body) && up(y, " 0")(body)).await;
    assert!(metrics.contains("longhaul_backend_check_total{"), "{metrics}");
    // Clients get the one that works, and one of them stays.
    let front = free_port().await;
    let link = format!("[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{entrance}\"]\n");
    let forward = format!("[[forward]]\nlisten = \"tcp://127.0.0.1:{front}\"\npeer = \"b\"\nservice = \"one\"\n");
    let mut a = place.start("a", &format!("{link}{forward}"));
    a.logged("ready").await;
    let mut held = connect_to(front, b'x').await;
    assert_eq!(connect(front).await.unwrap().1, b'x');
    // Its check fails: no client is let in, the node is not ready, and what is open goes on.
    serving_x.abort();
    assert!(serving_x.await.unwrap_err().is_cancelled());
    let reason = until(admin, "/ready", |code, _| code == 503).await;
    assert!(reason.contains("service one: no target is up"), "{reason}");
    assert!(connect(front).await.is_none());
    assert_eq!(a.logged("connection refused").await["reason"], "target-unreachable");
    assert!(answers(&mut held).await);
    assert_eq!(b.logged("target is down").await["address"], format!("tcp://127.0.0.1:{y}"));
    assert_eq!(b.logged("target is down").await["reason"], "connection refused");
    let table = table(admin).await;
    let line = table.lines().find(|line| line.starts_with(&format!("tcp://127.0.0.1:{x} "))).unwrap_or_default();
    assert!(line.contains("one") && line.contains("down") && line.contains("connection refused"), "{table}");
    serving_y.abort();
    // Another target takes over by a reload.
    let z = echo("z").await;
    let (of_z, check_z) = listener().await;
    tokio::spawn(page(of_z, "200 OK"));
    place.configure(
        "b",
        &format!("{LISTEN}{}", service(&[(x, check_x), (z, check_z)], "strategy = \"least-connections\"")),
    );
    assert_eq!(b.reload().await, ["service one: targets, strategy changed"]);
    until(admin, "/ready", |code, _| code == 200).await;
    assert_eq!(connect(front).await.unwrap().1, b'z');
    assert!(answers(&mut held).await);
    // Without checks nothing is known, and everything is used.
    let plain = format!("[[service]]\nname = \"one\"\ntargets = [\"tcp://127.0.0.1:{x}\"]\n");
    place.configure("b", &format!("{LISTEN}{plain}"));
    assert_eq!(b.reload().await, ["service one: targets, strategy, check, required changed"]);
    assert_eq!(connect(front).await.unwrap().1, b'x');
    assert!(answers(&mut held).await);
}

/// What `longhaul status` prints of the node with this admin port.
async fn table(admin: u16) -> String {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_longhaul"))
        .args(["status", "--admin", &format!("tcp://127.0.0.1:{admin}")])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
