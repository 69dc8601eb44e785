//! Early data as an operator switches it on: two processes of `longhaul run`, whose link comes back after an outage that was
//! longer than its sessions survive.

use std::sync::Arc;

use longhaul::channel::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::common::{soon, target};
use crate::program::{Program, folder, port};

/// How a way to a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections are cut, and none is taken.
    Cut,
    /// What the listener says does not arrive yet.
    AnswersHeld,
}

/// A port that leads to another one, as `way` says.
async fn way_to(port_of_b: u16, way: Arc<watch::Sender<Way>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (mut is_cut, mut answers) = (way.subscribe(), way.subscribe());
            if *is_cut.borrow_and_update() == Way::Cut {
                continue;
            }
            tokio::spawn(async move {
                let far = TcpStream::connect(("127.0.0.1", port_of_b)).await.unwrap();
                let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
                let there = async { drop(tokio::io::copy(&mut from_near, &mut to_far).await) };
                let back = async {
                    let mut buffer = vec![0; 65_536];
                    loop {
                        let size = from_far.read(&mut buffer).await.unwrap_or(0);
                        let is_open = answers.wait_for(|way| *way == Way::Open).await.is_ok();
                        if size == 0 || !is_open || to_near.write_all(&buffer[..size]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = there => {}
                    () = back => {}
                    _ = is_cut.wait_for(|way| *way == Way::Cut) => {}
                }
            });
        }
    });
    port
}

/// A target that tells what it hears, and answers.
async fn listening_target() -> (Address, mpsc::UnboundedReceiver<[u8; 5]>) {
    let (listener, address) = target().await;
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut request = [0; 5];
                stream.read_exact(&mut request).await.unwrap();
                tell.send(request).unwrap();
                stream.write_all(b"there").await.unwrap();
            });
        }
    });
    (address, heard)
}

async fn ask(front: u16, request: [u8; 5]) -> [u8; 5] {
    let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_replay_safe_hears_of_a_returning_peer_at_once() {
    let folder = folder(&["a", "b"]);
    let (safe_target, mut safe) = listening_target().await;
    let (held_target, mut held) = listening_target().await;
    let node = "[node]\nsurvive = \"1s\"\n";
    let services = format!(
        "[[service]]\nname = \"safe\"\ntarget = \"{safe_target}\"\nreplay_safe = true\n\
         [[service]]\nname = \"held\"\ntarget = \"{held_target}\"\n"
    );
    let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\nearly_data = true\n";
    let mut b = Program::start(folder.path(), "b", &format!("{node}{listen}{services}"));
    let port_of_b = port(&b.logged("listening").await);
    let way = Arc::new(watch::Sender::new(Way::Open));
    let port_of_way = way_to(port_of_b, Arc::clone(&way)).await;
    let forward = |service| {
        let listen = "[[forward]]\nlisten = \"tcp://127.0.0.1:0\"\npeer = \"b\"\nreplay_safe = true\n";
        format!("{listen}service = \"{service}\"\n")
    };
    let link = format!("[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{port_of_way}\"]\nearly_data = true\n");
    let sections = format!("{node}{link}{}{}", forward("safe"), forward("held"));
    let mut a = Program::start(folder.path(), "a", &sections);
    let fronts = [port(&a.logged("forwarding").await), port(&a.logged("forwarding").await)];
    // The answers say that the tickets are there.
    for (front, request) in fronts.into_iter().zip([b"safe1", b"held1"]) {
        assert_eq!(&soon(ask(front, *request)).await, b"there");
    }
    assert_eq!((soon(safe.recv()).await.unwrap(), soon(held.recv()).await.unwrap()), (*b"safe1", *b"held1"));

    // Each attempt to dial uses up a ticket. When a busy machine let too many of them fail before the way was open again,
    // the peer is a stranger, and the next outage has to show it.
    for _ in 0..ROUNDS_MAX {
        way.send_replace(Way::Cut);
        a.logged("session ended").await;
        way.send_replace(Way::AnswersHeld);
        let asked = [tokio::spawn(ask(fronts[0], *b"safe2")), tokio::spawn(ask(fronts[1], *b"held2"))];
        let heard = tokio::time::timeout(EARLY_MAX, safe.recv()).await;
        if heard.is_ok() {
            assert!(held.try_recv().is_err(), "it was not held");
        }
        way.send_replace(Way::Open);
        assert_eq!(&soon(held.recv()).await.unwrap(), b"held2");
        let safe_heard = if let Ok(heard) = &heard { *heard } else { soon(safe.recv()).await };
        assert_eq!(&safe_heard.unwrap(), b"safe2");
        for asked in asked {
            assert_eq!(&soon(asked).await.unwrap(), b"there");
        }
        assert!(safe.try_recv().is_err() && held.try_recv().is_err(), "something came twice");
        if heard.is_ok() {
            let is_early = |accepted: &serde_json::Value| accepted["early"] == true;
            while !is_early(&b.logged("session accepted").await) {}
            return;
        }
    }
    panic!("no early data arrived");
}

/// How long early data may take that waits for nothing.
const EARLY_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Outages of which one has to do.
const ROUNDS_MAX: usize = 5;
