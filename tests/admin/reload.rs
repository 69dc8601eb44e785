//! Reloads by signal: what changes, what goes on, what is refused.

use rustix::process::Signal;
use tokio::io::AsyncReadExt;

use crate::common::{Place, answers, connect, connect_to, echo, free_port, soon};

const LISTEN: &str = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";

fn service(name: &str, port: u16, more: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\ntarget = \"tcp://127.0.0.1:{port}\"\n{more}\n")
}

fn link(port: u16, more: &str) -> String {
    format!("[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{port}\"]\n{more}\n")
}

fn forward(port: u16, service: &str) -> String {
    format!("[[forward]]\nlisten = \"tcp://127.0.0.1:{port}\"\npeer = \"b\"\nservice = \"{service}\"\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_forwards_and_links_change_and_open_connections_go_on() {
    let place = Place::new();
    let (x, y) = (echo("x").await, echo("y").await);
    let mut b = place.start("b", &format!("{LISTEN}{}", service("one", x, "")));
    let entrance = b.port("listening").await;
    let (front, second) = (free_port().await, free_port().await);
    let mut a = place.start("a", &(link(entrance, "") + &forward(front, "one")));
    a.logged("ready").await;
    let mut held = connect_to(front, b'x').await;
    assert!(answers(&mut held).await);
    // The service leads elsewhere, and there is one more.
    place.configure("b", &format!("{LISTEN}{}{}", service("one", y, ""), service("two", x, "")));
    assert_eq!(b.reload().await, ["service one: target changed", "service two: added"]);
    assert_eq!(connect(front).await.unwrap().1, b'y');
    assert!(answers(&mut held).await, "what is open goes on");
    // The forward leads to the other service, another one is there, and the link is another one.
    let more = "padding = \"none\"\n[log]\nfilter = \"debug\"\n";
    place.configure("a", &(link(entrance, more) + &forward(front, "two") + &forward(second, "one")));
    let forwards = [
        format!("forward tcp://127.0.0.1:{front}: service changed"),
        format!("forward tcp://127.0.0.1:{second}: added"),
    ];
    let expected = ["log: filter is debug", "link b: padding changed", &forwards[0], &forwards[1]];
    assert_eq!(a.reload().await, expected);
    // Both links' sessions are there until the last stream of the old one has ended.
    a.logged("session connected").await;
    drop(connect_to(front, b'x').await);
    drop(connect_to(second, b'y').await);
    assert!(answers(&mut held).await, "what is open goes on");
    drop(held);
    a.logged("session serves no more").await;
    drop(connect_to(front, b'x').await);
    // Without the forward its address is free.
    place.configure("a", &(link(entrance, "padding = \"none\"") + &forward(second, "one")));
    assert!(a.reload().await.contains(&format!("forward tcp://127.0.0.1:{front}: removed")));
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", front)).await.is_err());
    assert!(a.reload().await.is_empty(), "nothing has changed");
    a.signal(Signal::TERM);
    assert_eq!(a.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_not_allowed_any_more_are_reset() {
    let place = Place::new();
    let x = echo("x").await;
    let services = |allow: &str| format!("{LISTEN}{}{}", service("one", x, allow), service("two", x, ""));
    let mut b = place.start("b", &services(""));
    let entrance = b.port("listening").await;
    let fronts = [free_port().await, free_port().await];
    let mut a = place.start("a", &(link(entrance, "") + &forward(fronts[0], "one") + &forward(fronts[1], "two")));
    a.logged("ready").await;
    let (mut one, mut two) = (connect_to(fronts[0], b'x').await, connect_to(fronts[1], b'x').await);
    place.configure("b", &services("allow = [\"node:a\"]"));
    assert_eq!(b.reload().await, ["service one: allow changed"]);
    assert!(answers(&mut one).await && answers(&mut two).await, "it is allowed still");
    place.configure("b", &services("allow = []"));
    b.reload().await;
    assert!(soon(one.read_u8()).await.is_err(), "it is not allowed any more");
    assert!(connect(fronts[0]).await.is_none());
    assert!(answers(&mut two).await, "the other service is not concerned");
    assert_eq!(a.logged("connection refused").await["reason"], "not-allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_all_or_nothing() {
    let place = Place::new();
    let (x, y) = (echo("x").await, echo("y").await);
    let mut b = place.start("b", &format!("{LISTEN}{}", service("one", x, "")));
    let entrance = b.port("listening").await;
    let front = free_port().await;
    let mut a = place.start("a", &(link(entrance, "") + &forward(front, "one")));
    a.logged("ready").await;
    drop(connect_to(front, b'x').await);
    // What cannot be changed is named, and what could be is not.
    place
        .configure("b", &format!("[node]\nsurvive = \"1h\"\nmemory_max = \"2GiB\"\n{LISTEN}{}", service("one", y, "")));
    let reason = b.refuse().await;
    assert!(reason.contains("[node] survive, [node] memory_max"), "{reason}");
    // A mistake, told with its place.
    place.configure("b", &format!("{LISTEN}{}", service("one", y, "allow = [\"nobody\"]")));
    let reason = b.refuse().await;
    assert!(reason.contains("b.toml:") && reason.contains("\"nobody\" allows nobody"), "{reason}");
    place.write("b.toml", "no TOML");
    b.refuse().await;
    // An address that is taken: the other new one is free again.
    let (free, holder) = (free_port().await, tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let taken = holder.local_addr().unwrap().port();
    let with = forward(free, "two") + &forward(taken, "two");
    place.configure("a", &(link(entrance, "padding = \"none\"") + &forward(front, "two") + &with));
    let reason = a.refuse().await;
    assert!(reason.contains(&format!("forward tcp://127.0.0.1:{taken} cannot be started")), "{reason}");
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", free)).await.is_err());
    assert_eq!(connect(front).await.unwrap().1, b'x', "everything is as it was");
    // A good one works afterwards.
    place.configure("b", &format!("{LISTEN}{}", service("one", y, "")));
    assert_eq!(b.reload().await, ["service one: target changed"]);
    drop(connect_to(front, b'y').await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_is_told() {
    let place = Place::new();
    let path = place.path("notify.sock");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let told = async |words: &str| {
        soon(async {
            let mut buffer = [0; 4096];
            loop {
                let size = socket.recv(&mut buffer).await.unwrap();
                let text = String::from_utf8(buffer[..size].to_vec()).unwrap();
                if text.lines().any(|line| line == words) {
                    return text;
                }
            }
        })
        .await
    };
    place.configure("b", LISTEN);
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let mut b = crate::common::Program::start(&place.path("b.toml"), &environment);
    told("READY=1").await;
    told("WATCHDOG=1").await;
    b.signal(Signal::HUP);
    assert!(told("RELOADING=1").await.contains("MONOTONIC_USEC="));
    told("READY=1").await;
    place.write("b.toml", "no TOML");
    b.signal(Signal::HUP);
    told("RELOADING=1").await;
    assert!(told("READY=1").await.contains("STATUS=running; reload refused"));
    b.signal(Signal::TERM);
    told("STOPPING=1").await;
    assert_eq!(b.exit_code().await, Some(0));
}
