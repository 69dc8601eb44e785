//! Sockets that somebody bound before the program began, and handed over as systemd does (`sd_listen_fds(3)`).

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::common::{Place, answers, connect_to, echo, soon};

fn tcp() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Connects to a Unix socket, and waits for what the target says first.
async fn greeted(path: &std::path::Path) -> UnixStream {
    let mut stream = soon(UnixStream::connect(path)).await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_and_forwards_take_the_sockets_that_are_handed_over() {
    let place = Place::new();
    let target = echo("x").await;
    let (peers, entrance) = tcp();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let quic = datagrams.local_addr().unwrap().port();
    // One by its name, one by its address.
    let sections = format!(
        "[[listen]]\naddress = \"tls://systemd:peers\"\n[[listen]]\naddress = \"quic://127.0.0.1:{quic}\"\n\
         [[service]]\nname = \"one\"\ntarget = \"tcp://127.0.0.1:{target}\"\n"
    );
    let mut b = place.start_with("b", &sections, [peers.into(), datagrams.into()], "peers:other");
    assert_eq!(b.logged("ready").await["level"], "INFO");

    let path = place.path("front.sock");
    let front = UnixListener::bind(&path).unwrap();
    let (admin, admin_port) = tcp();
    let again = || -> [OwnedFd; 2] { [front.try_clone().unwrap().into(), admin.try_clone().unwrap().into()] };
    let link = format!(
        "[[link]]\npeer = \"b\"\naddresses = [{{ url = \"tls://127.0.0.1:{entrance}\", count = 1 }}, \
         {{ url = \"quic://127.0.0.1:{quic}\", count = 1 }}]\n"
    );
    let forward = "[[forward]]\nlisten = \"unix://systemd:front\"\npeer = \"b\"\nservice = \"one\"\n";
    let head = format!("[admin]\nlisten = [\"tcp://systemd:admin\"]\n{link}");
    // Whoever connects before there is a node waits for it.
    let early = tokio::spawn({
        let path = path.clone();
        async move { greeted(&path).await }
    });
    let mut a = place.start_with("a", &format!("{head}{forward}"), again(), "front:admin");
    let mut client = soon(early).await.unwrap();
    client.write_all(b"?").await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'?');
    assert_eq!(a.logged("admin listening").await["address"], format!("tcp://127.0.0.1:{admin_port}"));
    a.logged("ready").await;
    soon(async {
        while kinds(admin_port).await != ["quic", "tls"] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;

    // A forward that ends gives its socket back, and one that begins has it again.
    place.configure("a", &head);
    let gone = a.reload().await;
    assert_eq!(gone, [format!("forward unix://{}: removed", path.display())]);
    place.configure("a", &format!("{head}{forward}"));
    assert_eq!(a.reload().await, [format!("forward unix://{}: added", path.display())]);
    drop(greeted(&path).await);

    // The file stays the service manager's, and the next process goes on with it.
    a.signal(rustix::process::Signal::TERM);
    drop(client);
    assert_eq!(a.exit_code().await, Some(0));
    assert!(fs::symlink_metadata(&path).is_ok(), "the socket's file is not the node's to remove");
    let waiting = tokio::spawn(async move { greeted(&path).await });
    let _a = place.start_with("a", &format!("{head}{forward}"), again(), "front:admin");
    drop(soon(waiting).await.unwrap());
}

/// Which kinds of channels a node has.
async fn kinds(port: u16) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let status: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let channels = status["sessions"][0]["channels"].as_array().cloned().unwrap_or_default();
    let active = channels.iter().filter(|channel| channel["state"] == "active");
    let mut kinds: Vec<_> = active.map(|channel| channel["kind"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_of_datagrams_take_sockets_too() {
    let place = Place::new();
    let target = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target_port = target.local_addr().unwrap().port();
    let (peers, entrance) = tcp();
    let service = format!("[[service]]\nname = \"dns\"\ntarget = \"udp://127.0.0.1:{target_port}\"\n");
    let listen = format!("[[listen]]\naddress = \"tcp://127.0.0.1:{entrance}\"\n{service}");
    let _b = place.start_with("b", &listen, [peers.into()], "");
    let front = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = front.local_addr().unwrap();
    let sections = format!(
        "[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{entrance}\"]\n\
         [[forward]]\nlisten = \"udp://systemd:dns\"\npeer = \"b\"\nservice = \"dns\"\n"
    );
    let _a = place.start_with("a", &sections, [front.into()], "dns");
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 16];
    let asked = soon(async {
        // Datagrams may be lost.
        loop {
            client.send_to(b"question", address).await.unwrap();
            let wait = tokio::time::timeout(std::time::Duration::from_millis(200), target.recv_from(&mut buffer));
            if let Ok(Ok((size, from))) = wait.await {
                return (size, from);
            }
        }
    })
    .await;
    assert_eq!(&buffer[..asked.0], b"question");
    target.send_to(b"answer", asked.1).await.unwrap();
    let (size, from) = soon(client.recv_from(&mut buffer)).await.unwrap();
    assert_eq!((&buffer[..size], from), (&b"answer"[..], address));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_was_not_handed_over_is_an_error() {
    let place = Place::new();
    let listen = "[[listen]]\naddress = \"tcp://systemd:peers\"\n";
    let (other, port) = tcp();
    let mut a = place.start_with("a", listen, [other.into()], "other");
    let told = a.told().await;
    assert!(told.contains("handed over no socket of the name \"peers\""), "{told}");
    assert!(told.contains(&format!("\"other\" (TCP at 127.0.0.1:{port})")), "{told}");
    assert_eq!(a.exit_code().await, Some(3));
    let mut a = place.start_with("a", listen, [], "");
    let told = a.told().await;
    assert!(told.contains("LISTEN_FDS") && told.contains(".socket unit"), "{told}");
    assert_eq!(a.exit_code().await, Some(3));
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut a = place.start_with("a", listen, [datagrams.into()], "peers");
    let told = a.told().await;
    assert!(told.contains("the socket \"peers\" is UDP at ") && told.contains("ListenDatagram="), "{told}");
    assert_eq!(a.exit_code().await, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_nothing_names_is_told() {
    let place = Place::new();
    let (peers, entrance) = tcp();
    let (other, _) = tcp();
    let listen = "[[listen]]\naddress = \"tcp://systemd:peers\"\n";
    let mut b = place.start_with("b", listen, [peers.into(), other.into()], "peers:other");
    let told = b.logged("socket of the service manager that the configuration does not name").await;
    assert_eq!((&told["level"], &told["name"]), (&"WARN".into(), &"other".into()));
    drop(TcpStream::connect(("127.0.0.1", entrance)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_with_names_is_checked_without_sockets() {
    let place = Place::new();
    let sections = "[admin]\nlisten = [\"unix://systemd:admin\"]\n[[listen]]\naddress = \"tls://systemd:peers\"\n\
                    [[forward]]\nlisten = \"udp://systemd:dns\"\npeer = \"b\"\nservice = \"dns\"\n";
    place.configure("a", sections);
    let (code, stdout, stderr) = place.check("a").await;
    assert_eq!(code, Some(0), "{stderr}");
    for name in ["unix://systemd:admin", "tls://systemd:peers", "udp://systemd:dns"] {
        assert!(stdout.contains(&format!("warning: {name}: ")), "{stdout}");
    }
    for (wrong, reason) in [
        ("[[listen]]\naddress = \"systemd:peers\"\n", "write tcp://systemd:peers"),
        ("[[listen]]\naddress = \"tcp://systemd:peers\"\nbacklog = 9\n", "Backlog="),
        ("[[listen]]\naddress = \"unix://systemd:peers\"\nmode = \"0600\"\n", "SocketMode="),
        ("[[listen]]\naddress = \"tcp://systemd:peers\"\nallow_uids = [1]\n", "allow_uids is an option of unix"),
    ] {
        place.configure("a", wrong);
        let (code, _, stderr) = place.check("a").await;
        assert!(code == Some(3) && stderr.contains(reason), "{wrong}\n{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_another_process_are_left_alone() {
    let place = Place::new();
    let target = echo("x").await;
    // What a shell inherits and hands on by mistake: the variables name another process.
    let environment = [("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "peers")];
    let service = format!("[[service]]\nname = \"one\"\ntarget = \"tcp://127.0.0.1:{target}\"\n");
    place.configure("b", &format!("[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n{service}"));
    let mut b = crate::common::Program::start(&place.path("b.toml"), &environment);
    let entrance = b.port("listening").await;
    let front = crate::common::free_port().await;
    let link = format!("[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{entrance}\"]\n");
    let forward = format!("[[forward]]\nlisten = \"tcp://127.0.0.1:{front}\"\npeer = \"b\"\nservice = \"one\"\n");
    let _a = place.start("a", &format!("{link}{forward}"));
    assert!(answers(&mut connect_to(front, b'x').await).await);
}
