//! Health checks against small servers: what they ask, what takes a target out and back, and that nothing is asked when
//! nobody wants to know.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use longhaul::service::proxy_protocol::{ProxyHeader, decode};
use longhaul::service::{CheckOutcome, Endpoint, Forward, ForwardConfig, Refusal, TargetState, UdpAddress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::AbortHandle;

use crate::common::{Net, client, exchange, id, next_is_reset, soon, until};
use crate::mortal::{mortals, report, services, states};

/// A server that gives one answer to whatever it is asked, and remembers how it was asked.
struct Fake {
    port: u16,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
    task: AbortHandle,
}

impl Fake {
    /// `None`: it never answers.
    async fn start(answer: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(answer.map(str::to_owned)));
        let asked = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (answers, questions) = (Arc::clone(&answer), Arc::clone(&asked));
        let serving = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answers, questions) = (Arc::clone(&answers), Arc::clone(&questions));
                tokio::spawn(async move {
                    let mut question = vec![0; 4096];
                    let size = stream.read(&mut question).await.unwrap_or(0);
                    question.truncate(size);
                    questions.lock().unwrap().push(question);
                    let answer = answers.lock().unwrap().clone();
                    match answer {
                        Some(answer) => stream.write_all(answer.as_bytes()).await,
                        None => stream.read_to_end(&mut Vec::new()).await.map(drop),
                    }
                });
            }
        };
        Self { port, answer, asked, task: tokio::spawn(serving).abort_handle() }
    }

    fn say(&self, answer: Option<&str>) {
        *self.answer.lock().unwrap() = answer.map(str::to_owned);
    }

    fn url(&self) -> String {
        format!("'tcp://127.0.0.1:{}'", self.port)
    }

    fn questions(&self) -> Vec<Vec<u8>> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Checks in quick succession, which a busy machine has time for.
fn check(kind: &str, more: &str) -> String {
    format!("[service.check]\ntype = '{kind}'\ninterval = '20ms'\ntimeout = '20s'\n{more}\n")
}

async fn become_states(net: &Net, expected: &[TargetState]) {
    until(|| states(net, "pool") == expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_takes_targets_out_and_back() {
    const OK: Option<&str> = Some("HTTP/1.1 204 No Content\r\n\r\n");
    const BUSY: Option<&str> = Some("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let [x, y] = mortals(["x", "y"]).await;
    let (of_x, of_y) = (Fake::start(OK).await, Fake::start(OK).await);
    let targets =
        format!("targets = [{{ url = {x}, check_url = {} }}, {{ url = {y}, check_url = {} }}]", of_x.url(), of_y.url());
    let check =
        check("http", "path = '/healthz?deep=1'\nhost = 'pool.internal'\nstatus = '200-299'\nrise = 2\nfall = 2");
    let net = Net::new(services(&format!("{targets}\n{check}"))).await;
    let forward = net.forward("pool").await;
    become_states(&net, &[TargetState::Up, TargetState::Up]).await;
    let question = String::from_utf8(of_x.questions().remove(0)).unwrap();
    assert!(question.starts_with("GET /healthz?deep=1 HTTP/1.1\r\nHost: pool.internal\r\n"), "{question}");
    assert!(question.ends_with("\r\nConnection: close\r\n\r\n"), "{question}");
    of_x.say(BUSY);
    become_states(&net, &[TargetState::Down, TargetState::Up]).await;
    let of_it = report(&net, "pool", 0);
    assert_eq!(of_it.reason.as_deref(), Some("answered with status 503, expected 200-299"));
    assert!(of_it.checks[0] >= 1 && of_it.checks[4] >= 2, "{:?}: {:?}", CheckOutcome::WORDS, of_it.checks);
    for _ in 0..6 {
        assert_eq!(exchange(client(&forward).await, b"").await.unwrap(), b"y");
    }
    // Both: clients are refused at once, and neither is connected to.
    of_y.say(Some("no HTTP\r\n"));
    become_states(&net, &[TargetState::Down, TargetState::Down]).await;
    let before = [0, 1].map(|index| (report(&net, "pool", index).connections, report(&net, "pool", index).failures));
    assert!(next_is_reset(&forward).await);
    until(|| forward.counters().refused(Refusal::TargetUnreachable) == 1).await;
    let after = [0, 1].map(|index| (report(&net, "pool", index).connections, report(&net, "pool", index).failures));
    assert_eq!(before, after);
    of_x.say(OK);
    become_states(&net, &[TargetState::Up, TargetState::Down]).await;
    assert_eq!(report(&net, "pool", 0).reason, None);
    assert_eq!(exchange(client(&forward).await, b"").await.unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_answers_or_is_down() {
    let server = Fake::start(Some("+PONG\r\n")).await;
    let service = |check: &str| services(&format!("target = {}\n{check}", server.url()));
    let net = Net::new(service(&check("redis", "rise = 1\nfall = 1"))).await;
    let forward = net.forward("pool").await;
    become_states(&net, &[TargetState::Up]).await;
    assert_eq!(server.questions()[0], b"*1\r\n$4\r\nPING\r\n");
    for (answer, reason) in [
        ("-LOADING Redis is loading the dataset in memory\r\n", "expected +PONG, got \"-LOADING Redis is loading"),
        ("", "closed the connection before it had answered"),
        ("220 mail.example ESMTP\n", "expected +PONG, got \"220 mail.example ESMTP\""),
    ] {
        server.say(Some(answer));
        until(|| report(&net, "pool", 0).reason.is_some_and(|found| found.starts_with(reason))).await;
        become_states(&net, &[TargetState::Down]).await;
    }
    assert!(next_is_reset(&forward).await, "also the only target of a service");
    server.say(Some("-NOAUTH Authentication required.\r\n"));
    become_states(&net, &[TargetState::Up]).await;
    // One that takes connections and says nothing.
    server.say(None);
    net.b.services().replace(service("check = { type = 'redis', interval = '20ms', timeout = '50ms', fall = 1 }"));
    become_states(&net, &[TargetState::Down]).await;
    let report = report(&net, "pool", 0);
    assert_eq!(report.reason.as_deref(), Some("no answer in time"));
    assert!(report.checks[3] > 0, "{:?}: {:?}", CheckOutcome::WORDS, report.checks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_killed_is_down_and_comes_back() {
    let [mut x, y] = mortals(["x", "y"]).await;
    let net = Net::new(services(&format!("targets = [{x}, {y}]\n{}", check("connect", "")))).await;
    let forward = net.forward("pool").await;
    become_states(&net, &[TargetState::Up; 2]).await;
    x.kill().await;
    become_states(&net, &[TargetState::Down, TargetState::Up]).await;
    assert_eq!(report(&net, "pool", 0).reason.as_deref(), Some("connection refused"));
    for _ in 0..4 {
        assert_eq!(exchange(client(&forward).await, b"").await.unwrap(), b"y");
    }
    assert_eq!(report(&net, "pool", 0).failures, 0, "no client was led there");
    x.revive().await;
    become_states(&net, &[TargetState::Up; 2]).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.extend(exchange(client(&forward).await, b"").await.unwrap());
    }
    assert_eq!(seen.iter().filter(|name| **name == b'x').count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_without_checks_and_nothing_after_them() {
    let [with, without] = [Fake::start(Some("+PONG\r\n")).await, Fake::start(Some("+PONG\r\n")).await];
    let net = Net::new(services(&format!(
        "target = {}\n{}[[service]]\nname = 'other'\ntargets = [{}]\n",
        with.url(),
        check("redis", ""),
        without.url()
    )))
    .await;
    until(|| with.questions().len() >= 5).await;
    assert_eq!(without.questions(), Vec::<Vec<u8>>::new());
    assert_eq!(states(&net, "other"), [TargetState::Unchecked]);
    // The other way round after a reload.
    net.b.services().replace(services(&format!(
        "target = {}\n[[service]]\nname = 'other'\ntargets = [{}]\n{}",
        with.url(),
        without.url(),
        check("redis", "")
    )));
    until(|| without.questions().len() >= 2).await;
    assert_eq!(states(&net, "pool"), [TargetState::Unchecked], "what is not checked is not known");
    // A check that was under way may still have been seen; none comes after.
    let before = with.questions().len();
    until(|| without.questions().len() >= 10).await;
    assert!(with.questions().len() <= before + 1);
    net.b.services().close();
    let before = without.questions().len();
    let [again] = [Fake::start(Some("+PONG\r\n")).await];
    let probe = Net::new(services(&format!("target = {}\n{}", again.url(), check("redis", "")))).await;
    until(|| again.questions().len() >= 10).await;
    drop(probe);
    assert!(without.questions().len() <= before + 1, "a node that ends checks nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_stays_goes_on_over_a_reload() {
    let server = Fake::start(Some("+PONG\r\n")).await;
    // The next one would be in an hour.
    let section = |more: &str| {
        services(&format!("target = {}\n{more}\n[service.check]\ntype = 'redis'\ninterval = '1h'", server.url()))
    };
    let net = Net::new(section("")).await;
    become_states(&net, &[TargetState::Up]).await;
    net.b.services().replace(section("connections_max = 7"));
    assert_eq!(states(&net, "pool"), [TargetState::Up]);
    let other = services(&format!("target = {}\n{}", server.url(), check("redis", "")));
    net.b.services().replace(other);
    until(|| server.questions().len() >= 3).await;
    assert_eq!(states(&net, "pool"), [TargetState::Up]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_of_targets_that_expect_a_header_send_one_without_a_client() {
    let server = Fake::start(Some("HTTP/1.1 200 OK\r\n\r\n")).await;
    let lines = format!("target = {}\nproxy_protocol = 'v2'\n{}", server.url(), check("http", ""));
    let net = Net::new(services(&lines)).await;
    become_states(&net, &[TargetState::Up]).await;
    let question = server.questions().remove(0);
    let (header, size) = decode(&question).unwrap().unwrap();
    assert_eq!(header, ProxyHeader::Unknown);
    let host = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", server.port);
    assert!(question[size..].starts_with(host.as_bytes()));
}

/// What a new client of a UDP forward is answered.
async fn asked(forward: &Forward) -> u8 {
    let Endpoint::Datagrams(UdpAddress { port, .. }) = forward.local_address() else { panic!("UDP") };
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", *port)).await.unwrap();
    let mut answer = [0];
    soon(async {
        loop {
            socket.send(b"?").await.unwrap();
            let answered = tokio::time::timeout(std::time::Duration::from_millis(500), socket.recv(&mut answer)).await;
            if matches!(answered, Ok(Ok(1))) {
                return answer[0];
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_of_datagrams_are_spread_and_avoid_what_is_down() {
    let flows = Arc::new(AtomicUsize::new(0));
    let mut ports = Vec::new();
    for name in [b'x', b'y'] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        ports.push(socket.local_addr().unwrap().port());
        let flows = Arc::clone(&flows);
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                flows.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&[name], from).await;
            }
        });
    }
    let (of_x, of_y) = (Fake::start(Some("+PONG\r\n")).await, Fake::start(Some("+PONG\r\n")).await);
    let targets: Vec<_> = ports
        .iter()
        .zip([&of_x, &of_y])
        .map(|(port, fake)| format!("{{ url = 'udp://127.0.0.1:{port}', check_url = {} }}", fake.url()))
        .collect();
    let net = Net::new(services(&format!("targets = [{}]\n{}", targets.join(", "), check("redis", "")))).await;
    become_states(&net, &[TargetState::Up; 2]).await;
    let listen = UdpAddress { host: "127.0.0.1".to_owned(), port: 0 };
    let forward = net.a.forward(ForwardConfig::new(listen, id("b"), "pool")).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(asked(&forward).await);
    }
    seen.sort_unstable();
    assert_eq!(seen, b"xxyy");
    assert_eq!((report(&net, "pool", 0).open, report(&net, "pool", 1).open), (2, 2));
    of_x.say(Some("-MASTERDOWN\r\n"));
    become_states(&net, &[TargetState::Down, TargetState::Up]).await;
    for _ in 0..3 {
        assert_eq!(asked(&forward).await, b'y');
    }
    assert!(flows.load(Ordering::Relaxed) >= 7);
}
