//! `longhaul dissect` on what a proxy recorded between two programs, with the key log that one of them wrote.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use longhaul::crypto::RecordedKeys;
use longhaul::crypto::identity::default_provider;
use longhaul::dissect::{Dissector, Outcome};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::common::{echo, exchange, pattern, soon};
use crate::program::{Program, folder, port};

/// Carries connections, and records them as a capture of raw IP has them.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recording>>);

#[derive(Default)]
struct Recording {
    packets: Vec<Vec<u8>>,
    /// The bytes of the first connection: the dialler's, the listener's.
    raw: [Vec<u8>; 2],
    first: Option<SocketAddr>,
}

/// One direction of a connection.
#[derive(Clone, Copy)]
struct Way {
    from: SocketAddr,
    to: SocketAddr,
    is_answer: bool,
}

impl Recorder {
    /// Listens in front of an address: where.
    async fn listen(&self, to: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let recorder = self.clone();
        tokio::spawn(async move {
            while let Ok((dialler, from)) = listener.accept().await {
                let target = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let to = target.peer_addr().unwrap();
                recorder.0.lock().unwrap().first.get_or_insert(from);
                let (dial_read, dial_write) = dialler.into_split();
                let (target_read, target_write) = target.into_split();
                let there = Way { from, to, is_answer: false };
                let back = Way { from: to, to: from, is_answer: true };
                // Numbers that begin again at 0 soon.
                recorder.packet(there, u32::MAX - 700, 0x02, &[]);
                recorder.packet(back, 7, 0x12, &[]);
                tokio::spawn(recorder.clone().carry(dial_read, target_write, there, u32::MAX - 699));
                tokio::spawn(recorder.clone().carry(target_read, dial_write, back, 8));
            }
        });
        port
    }

    async fn carry(
        self,
        mut read: tokio::net::tcp::OwnedReadHalf,
        mut write: tokio::net::tcp::OwnedWriteHalf,
        way: Way,
        mut sequence: u32,
    ) {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = read.read(&mut chunk).await {
            self.bytes(way, sequence, &chunk[..count]);
            sequence = sequence.wrapping_add(count as u32);
            if write.write_all(&chunk[..count]).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    }

    /// The second half before the first, and some of it twice, as networks do.
    fn bytes(&self, way: Way, sequence: u32, bytes: &[u8]) {
        let half = bytes.len() / 2;
        self.packet(way, sequence.wrapping_add(half as u32), 0x10, &bytes[half..]);
        self.packet(way, sequence, 0x10, &bytes[..half]);
        self.packet(way, sequence, 0x18, &bytes[..(half + 1).min(bytes.len())]);
        let mut recording = self.0.lock().unwrap();
        let dialler = if way.is_answer { way.to } else { way.from };
        if recording.first == Some(dialler) {
            recording.raw[usize::from(way.is_answer)].extend_from_slice(bytes);
        }
    }

    fn packet(&self, way: Way, sequence: u32, flags: u8, payload: &[u8]) {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (way.from, way.to) else { panic!("the test is on IPv4") };
        let total = (40 + payload.len()) as u16;
        let mut packet = [&[0x45, 0][..], &total.to_be_bytes(), &[0, 0, 0x40, 0, 64, 6, 0, 0]].concat();
        packet.extend([from.ip().octets(), to.ip().octets()].concat());
        packet.extend([from.port().to_be_bytes(), to.port().to_be_bytes()].concat());
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        self.0.lock().unwrap().packets.push(packet);
    }

    /// Writes down what was recorded.
    fn write(&self, folder: &Path) {
        let recording = self.0.lock().unwrap();
        let mut capture: Vec<u8> =
            [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 101].into_iter().flat_map(u32::to_le_bytes).collect();
        for (index, packet) in recording.packets.iter().enumerate() {
            let len = packet.len() as u32;
            capture.extend([1_800_000_000, index as u32, len, len].into_iter().flat_map(u32::to_le_bytes));
            capture.extend(packet);
        }
        fs::write(folder.join("link.pcap"), capture).unwrap();
        for (name, bytes) in ["client.bytes", "server.bytes"].into_iter().zip(&recording.raw) {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

async fn dissect(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    soon(command.arg("dissect").args(arguments).current_dir(folder).output()).await.unwrap()
}

/// The records, and the summary behind them.
async fn records(folder: &Path, arguments: &[&str]) -> (Vec<Value>, Value) {
    let output = dissect(folder, arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<Value> =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let summary = lines.pop().unwrap()["summary"].clone();
    (lines, summary)
}

/// The frames of a kind that a side sent.
fn frames<'a>(records: &'a [Value], side: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let of_side = records.iter().filter(move |record| record["side"] == side);
    of_side.filter_map(|record| record["frames"].as_array()).flatten().filter(move |frame| frame["frame"] == kind)
}

/// How far a side's bytes of the stream with the most go without a gap.
fn longest_stream(records: &[Value], side: &str) -> u64 {
    let mut streams: BTreeMap<u64, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for frame in frames(records, side, "stream_data") {
        let number = |name: &str| frame[name].as_u64().unwrap();
        streams.entry(number("stream_id")).or_default().insert((number("offset"), number("size")));
    }
    let end = |ranges: &BTreeSet<(u64, u64)>| {
        ranges.iter().fold(0, |end, (offset, size)| if *offset <= end { end.max(offset + size) } else { end })
    };
    streams.values().map(end).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_is_opened_with_the_key_log() {
    const BYTES: usize = 200_000;
    let folder = folder(&["a", "b"]);
    let folder = folder.path();
    let target = echo().await;
    let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
    let service = format!("[[service]]\nname = \"echo\"\ntarget = \"{target}\"\n");
    let mut b = Program::start(folder, "b", &format!("{listen}{service}"));
    let recorder = Recorder::default();
    let front = recorder.listen(port(&b.logged("listening").await)).await;
    let log = "[log]\nfilter = \"trace\"\nkey_log_file = \"keys\"\n";
    let link = format!("[[link]]\npeer = \"b\"\naddresses = [{{ url = \"tcp://127.0.0.1:{front}\", count = 2 }}]\n");
    let forward = "[[forward]]\nlisten = \"tcp://127.0.0.1:0\"\npeer = \"b\"\nservice = \"echo\"\n";
    let mut a = Program::start(folder, "a", &format!("{log}{link}{forward}"));
    let warning = "KEY LOG IS ON: whoever reads the file can read everything that sessions made from now on carry, recorded or not";
    a.logged(warning).await;
    let local = port(&a.logged("forwarding").await);
    a.logged("session connected").await;
    let a_id = a.id();
    let work = async {
        let client = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
        let data = pattern(BYTES, 7);
        assert!(soon(exchange(client, &data)).await.unwrap() == data);
        kill_process(a_id, Signal::TERM).unwrap();
    };
    // A program whose log nobody reads stops at some time.
    let (log, ()) = tokio::join!(a.rest_of_log(), work);
    assert_eq!(a.exit_code().await, Some(0));
    b.signal(Signal::TERM);
    assert_eq!(b.exit_code().await, Some(0));
    recorder.write(folder);
    let keys = fs::read_to_string(folder.join("keys")).unwrap();
    assert_eq!(fs::metadata(folder.join("keys")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!keys.contains("EXPORTER"), "what makes sessions stays secret");
    let log = log + &b.rest_of_log().await;
    assert!(log.len() > 1000, "everything was logged");
    for secret in keys.lines().filter_map(|line| line.split(' ').nth(2)).filter(|secret| secret.len() >= 32) {
        assert!(!log.contains(secret), "keys are in the key log alone");
    }

    let (found, summary) = records(folder, &["--keys", "keys", "--json", "link.pcap"]).await;
    assert_eq!(
        (&summary["closed"], &summary["damaged"], &summary["directions_with_gaps"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(summary["opened"].as_u64().unwrap() > 10, "{summary}");
    let (there, back) = (longest_stream(&found, "client"), longest_stream(&found, "server"));
    assert!(there >= BYTES as u64 && there < BYTES as u64 + 200, "{there}: the request, and what was written");
    assert_eq!(back, BYTES as u64);
    assert_eq!(frames(&found, "server", "accepted").count(), 1);
    assert!(frames(&found, "server", "ack").count() > 0 && frames(&found, "client", "stream_data").count() > 0);
    assert!(found.iter().any(|record| record["kind"] == "sealed_handshake" && record["frames"].is_array()));
    assert!(found.iter().any(|record| record["padding"].as_u64().is_some_and(|padding| padding > 0)));
    // Another one may have been begun, where the first one was slow.
    let carrying = found.iter().filter(|record| record["kind"] == "sealed");
    let sessions: BTreeSet<_> = carrying.map(|record| record["session"].as_str().unwrap()).collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert!(
        found.iter().all(|record| record["side"]
            == if record["to"].as_str() == found[0]["to"].as_str() { "client" } else { "server" })
    );

    let (found, summary) = records(folder, &["--json", "link.pcap"]).await;
    assert_eq!(summary["opened"], 0, "nothing is opened without keys");
    assert!(summary["closed"].as_u64().unwrap() > 10 && found.iter().all(|record| record["frames"].is_null()));

    let (_, summary) = records(folder, &["--keys", "keys", "--json", "--raw", "client.bytes", "server.bytes"]).await;
    assert_eq!((&summary["closed"], &summary["damaged"]), (&0.into(), &0.into()), "{summary}");
    assert!(summary["opened"].as_u64().unwrap() > 4, "{summary}");

    nothing_else_is_shown_of_changed_captures(&fs::read(folder.join("link.pcap")).unwrap(), &keys);

    let text = String::from_utf8(dissect(folder, &["--keys", "keys", "link.pcap"]).await.stdout).unwrap();
    assert!(text.contains("    stream_data  ") && text.contains("packets opened, 0 closed"), "{text}");
}

/// Frames that a capture shows, as the client's or the server's, and whether it was read to its end.
fn shown(capture: &[u8], keys: &str) -> (HashSet<String>, bool) {
    let (mut frames, mut message_bytes) = (HashSet::new(), 0);
    let mut dissector = Dissector::new(RecordedKeys::parse(keys, &default_provider()));
    let outcome = dissector.capture(capture, &mut |_, record| {
        message_bytes += record.message_bytes;
        if let Outcome::Opened { frames: opened, .. } = &record.outcome {
            frames.extend(opened.iter().map(|frame| format!("{:?} {frame:?}", record.side)));
        }
        Ok(())
    });
    assert!(message_bytes <= capture.len(), "no message is shown twice");
    let summary = dissector.finish();
    assert!(summary.opened_count + summary.closed_count <= summary.message_count);
    (frames, outcome.is_ok())
}

/// Bytes that were changed, cut out, or come twice, anywhere in the capture, never panic, and never show a frame that
/// nobody has sent.
fn nothing_else_is_shown_of_changed_captures(capture: &[u8], keys: &str) {
    const SEED: u64 = 7;
    const CHANGED_CAPTURES: u64 = 60;
    let (sent, is_whole) = shown(capture, keys);
    assert!(is_whole && sent.len() > 10);
    let mut still_shown = 0;
    for seed in SEED..SEED + CHANGED_CAPTURES {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |end: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % end
        };
        let mut changed = capture.to_vec();
        for _ in 0..1 + below(8) {
            // What makes it a capture stays as it is, so that the rest is looked at.
            let at = 24 + below(changed.len() - 24);
            let end = (at + 1 + below(3000)).min(changed.len());
            match below(4) {
                0 => changed[at] ^= 1 << below(8),
                1 => drop(changed.drain(at..end)),
                2 => drop(changed.splice(at..at, capture[at.min(capture.len())..end.min(capture.len())].to_vec())),
                _ => changed.truncate(at.max(capture.len() / 2)),
            }
        }
        let (found, _) = shown(&changed, keys);
        let others: Vec<_> = found.difference(&sent).collect();
        assert!(others.is_empty(), "seed {seed}: {others:?}");
        still_shown += found.len();
    }
    assert!(still_shown > sent.len(), "most of them show what came before the change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_capture_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text"), "this is no capture").unwrap();
    let output = dissect(folder.path(), &["text"]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("text: it is neither pcap nor pcapng"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_log_that_others_may_read_is_refused() {
    let folder = folder(&["a"]);
    let keys = folder.path().join("keys");
    fs::write(&keys, "").unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
    let mut a = Program::start(folder.path(), "a", &format!("[log]\nkey_log_file = \"keys\"\n{listen}"));
    assert_eq!(a.exit_code().await, Some(1));
}
