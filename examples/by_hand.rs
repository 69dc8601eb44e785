//! Two sessions in one thread, without sockets, tasks or a clock that runs: a handshake, a second lane, a stream, and
//! the loss of a lane.
//!
//! The core is given bytes, randomness and the time, and gives bytes, deadlines and events. Whoever wants to carry a
//! session over something else than sockets does what this file does.
//!
//! Run with `cargo run --example by_hand`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod common;

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use longhaul::base::{Direction, Entropy, LaneId, SessionId, StreamId, SystemEntropy, limits};
use longhaul::crypto::LaneOpener;
use longhaul::crypto::identity::ALPN_SESSION;
use longhaul::session::{Establishing, LaneEnd, LaneKind, LaneSetup, Progress, Session, SessionConfig};
use longhaul::stream::{Priority, ReadOutcome};
use longhaul::wire::{self, Body, FrameMessage, decode_message, decode_packet};

/// The lanes are TCP connections that nobody dialled: what is sent on them is sealed.
const LANE: LaneSetup = LaneSetup::new(LaneKind::Tcp);

/// One side: the session, and for each lane what opens its packets.
struct Side {
    session: Session,
    openers: Vec<LaneOpener>,
}

impl Side {
    fn new(session: Session) -> Self {
        let opener = LaneOpener::new(LaneId::FIRST, session.opening_keys());
        Self { session, openers: vec![opener] }
    }

    fn add_lane(&mut self, id: LaneId) {
        self.openers.push(LaneOpener::new(id, self.session.opening_keys()));
    }

    /// The next packet of a lane as it would go onto the wire.
    fn take(&mut self, lane: LaneId, now: Instant) -> Result<Option<BytesMut>, Box<dyn Error>> {
        let Some(packet) = self.session.poll_transmit(now, lane) else { return Ok(None) };
        let mut bytes = BytesMut::new();
        // Sealed here, outside the session: in a node, other lanes use it meanwhile.
        packet.encode(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Takes what came from the wire.
    fn give(&mut self, mut bytes: BytesMut, now: Instant) -> Result<(), Box<dyn Error>> {
        let size = bytes.len();
        let FrameMessage { head, body } = read(&mut bytes)?;
        let Body::Sealed(sealed) = body else { return Err("a packet is sealed".into()) };
        let opener = &mut self.openers[head.lane_id.0 as usize];
        if !opener.has_key(head.epoch) {
            opener.set_keys(self.session.opening_keys());
        }
        let content = opener.open(&head, sealed)?;
        let mut frames = Vec::new();
        decode_packet(&content, &mut frames)?;
        self.session.handle_packet(now, &head, true, &mut frames, size);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // The only look at a clock: from here on time passes when this file says so.
    let mut now = Instant::now();
    let [mut client, mut server] = handshake(now)?.map(Side::new);
    carry(&mut client, &mut server, now)?;
    println!("session {} is connected: {}", client.session.id(), client.session.is_connected());

    let lane = join(&mut client, &mut server, now)?;
    carry(&mut client, &mut server, now)?;
    println!("lane {lane} has joined: {} lanes", client.session.lane_count());

    let stream = client.session.open(Direction::Bi, Priority::default())?;
    client.session.write(stream, b"first the one lane, ")?;
    carry(&mut client, &mut server, now)?;
    let accepted = server.session.accept(Direction::Bi).ok_or("the stream has arrived")?;
    let mut text = read_all(&mut server.session, accepted, now)?;

    // A packet leaves on the lane that the scheduler chooses, and is lost with it. Both sides learn that the lane is gone,
    // as from a broken connection; what it had not acknowledged goes out again on the other one.
    client.session.write(stream, b"then the other")?;
    client.session.finish(stream)?;
    let mut lost = None;
    for id in [LaneId::FIRST, lane] {
        if client.take(id, now)?.is_some() {
            lost = Some(id);
        }
    }
    let lost = lost.ok_or("a packet has left")?;
    for side in [&mut client, &mut server] {
        side.session.remove_lane(lost, LaneEnd::ChannelClosed, now);
    }
    println!("lane {lost} died with a packet on its way: {} lane is left", client.session.lane_count());
    carry(&mut client, &mut server, now)?;
    text += &read_all(&mut server.session, accepted, now)?;
    println!("the server read {text:?}");

    // Acknowledgements are held back for a while; the deadline says until when.
    while let Some(deadline) = server.session.next_timeout().filter(|at| *at <= now + Duration::from_millis(50)) {
        now = deadline;
        server.session.handle_timeout(now);
        carry(&mut client, &mut server, now)?;
    }
    println!("the client knows that it arrived: {}", client.session.streams().is_finished(stream));
    if text == "first the one lane, then the other" { Ok(()) } else { Err("the text differs".into()) }
}

/// A TLS 1.3 handshake with certificates on both sides, its messages moved by hand.
fn handshake(now: Instant) -> Result<[Session; 2], Box<dyn Error>> {
    let authority = common::authority()?;
    let (near, far) = (common::settings(&authority, "near")?, common::settings(&authority, "far")?);
    let far_id = "spiffe://example/node/far".parse()?;
    let config = SessionConfig::default();

    let mut session_id = SessionId([0; SessionId::LEN]);
    SystemEntropy::new().fill(&mut session_id.0);
    let tls = near.client_config(Some(&far_id), ALPN_SESSION)?;
    let mut client = Establishing::client(tls, &config, session_id, wire::VERSION)?;
    // The server begins with the first message: it says which version and session are meant.
    let mut first = read(&mut client.poll_output().ok_or("the client begins")?)?;
    let mut server = Establishing::server(far.server_config(ALPN_SESSION)?, &config, &first.head)?;
    loop {
        let server_is_done = server.handle_message(first)? == Progress::Complete;
        while let Some(mut answer) = server.poll_output() {
            client.handle_message(read(&mut answer)?)?;
        }
        match client.poll_output() {
            Some(mut message) => first = read(&mut message)?,
            None if server_is_done => break,
            None => return Err("the handshake got stuck".into()),
        }
    }
    // A node gives each session a token of its own, by which it can later prove that it has forgotten the session.
    let client = client.finish(config.clone(), LANE, [0; 16], now)?;
    let server = server.finish(config, LANE, [7; 16], now)?;
    Ok([client.session, server.session])
}

/// Adds a lane. Its message goes first on the new channel; its proof is an HMAC under a key that only the two know.
fn join(client: &mut Side, server: &mut Side, now: Instant) -> Result<LaneId, Box<dyn Error>> {
    let mut random = SystemEntropy::new();
    let request = client.session.begin_join(LANE, &[], &mut random, now).ok_or("the session takes a lane")?;
    let joined = server.session.handle_join(&request.head, &request.join, LANE, &[], &mut random, now)?;
    if !client.session.complete_join(&request, &joined) {
        return Err("the server's proof is wrong".into());
    }
    client.add_lane(request.head.lane_id);
    server.add_lane(request.head.lane_id);
    Ok(request.head.lane_id)
}

/// Moves packets until neither side has one, and drains what else the sessions say.
fn carry(client: &mut Side, server: &mut Side, now: Instant) -> Result<(), Box<dyn Error>> {
    loop {
        let mut has_moved = false;
        for lane in (0..client.openers.len() as u32).map(LaneId) {
            if let Some(packet) = client.take(lane, now)? {
                server.give(packet, now)?;
                has_moved = true;
            }
            if let Some(packet) = server.take(lane, now)? {
                client.give(packet, now)?;
                has_moved = true;
            }
        }
        for side in [&mut *client, &mut *server] {
            // With sockets, these say which lane's task has to be woken, and which reader or writer may go on.
            while side.session.poll_wake().is_some() || side.session.poll_event().is_some() {}
        }
        if !has_moved {
            return Ok(());
        }
    }
}

fn read_all(session: &mut Session, stream: StreamId, now: Instant) -> Result<String, Box<dyn Error>> {
    let mut text = Vec::new();
    while let Ok(ReadOutcome::Data(data)) = session.read(stream, 1024, now) {
        text.extend_from_slice(&data);
    }
    Ok(String::from_utf8(text)?)
}

/// The message in some bytes. On a real channel it may still be incomplete.
fn read(bytes: &mut BytesMut) -> Result<FrameMessage, Box<dyn Error>> {
    Ok(decode_message(bytes, limits::FRAME_MESSAGE_BYTES_MAX)?.ok_or("a whole message")?)
}
