//! Authenticated peers that break the protocol: the node closes that session with the right code, and the sessions of
//! other peers at the same node, with data under way, do not notice.

use std::time::Duration;

use longhaul::base::{CloseCode, Direction, LaneId, PacketNumber, Secret, Side, StreamCode, StreamId, limits};
use longhaul::node::{NodeConfig, Session};
use longhaul::session::CloseReason;
use longhaul::wire::{Ack, Frame, HandshakeData, HandshakeLevel, StreamData};

use crate::common::{Pair, listening_with, pair_to};
use crate::liar::Liar;
use crate::transfer::{Transfer, eventually, soon};

/// A node with an honest peer, whose data is under way.
struct Stage {
    pair: Pair,
    transfer: Transfer,
}

impl Stage {
    async fn new() -> Self {
        let mut config = NodeConfig::default();
        // A liar acknowledges nothing: on a machine that stands still, that alone would cost it its channel.
        config.session.dead_timeout = Duration::from_secs(3600);
        let pair = pair_to(listening_with("b", &["tcp://127.0.0.1:0"], config).await).await;
        let transfer = Transfer::start(&pair.session_a, &pair.session_b, 5, 1 << 20).await;
        Self { pair, transfer }
    }

    /// A peer that lies, and the node's end of its session.
    async fn liar(&self) -> (Liar, Session) {
        self.liar_called("liar").await
    }

    async fn liar_called(&self, name: &str) -> (Liar, Session) {
        let liar = soon(Liar::dial(name, &self.pair.b.local_addresses()[0])).await;
        loop {
            let session = soon(self.pair.b.accept()).await.expect("the node's end");
            assert_eq!(session.peer().node_id.name(), name);
            if session.id() == liar.id {
                return (liar, session);
            }
        }
    }

    /// A peer sends these packets: the node closes its session with `code`, and says so.
    async fn lie(&mut self, packets: &[Vec<Frame>], code: CloseCode) {
        let (mut liar, session) = self.liar().await;
        for frames in packets {
            soon(liar.send(frames)).await;
        }
        let text = format!("{packets:.300?}");
        assert_eq!(fault_code(&session).await, code, "{text}");
        assert_eq!(soon(liar.closed()).await, Some(code), "{text}");
        self.is_undisturbed().await;
    }

    /// A peer sends `packet` again and again, until the node has had enough of it.
    async fn flood(&mut self, packet: &[Frame], mut before_each: impl FnMut(&mut Liar)) {
        let (mut liar, session) = self.liar().await;
        // However slowly it goes, and however much is forgiven meanwhile.
        soon(async {
            while session.close_reason().is_none() {
                before_each(&mut liar);
                liar.send(packet).await;
            }
        })
        .await;
        assert_eq!(fault_code(&session).await, CloseCode::EXCESSIVE_LOAD, "{packet:.300?}");
        self.is_undisturbed().await;
    }

    async fn is_undisturbed(&mut self) {
        soon(self.transfer.advance(64 * 1024)).await;
        let Pair { session_a, session_b, .. } = &self.pair;
        assert!(session_a.close_reason().is_none() && session_b.close_reason().is_none());
    }

    async fn leave(self) {
        soon(self.transfer.finish()).await;
        eventually("only the honest peer is left", || self.pair.b.session_count() == 1).await;
    }
}

/// The code with which a node closes a session whose peer broke the protocol.
async fn fault_code(session: &Session) -> CloseCode {
    match soon(session.closed()).await {
        CloseReason::Fault(fault) => fault.close_code(),
        other => panic!("the peer broke the protocol: {other}"),
    }
}

fn uni(index: u64) -> StreamId {
    StreamId::new(Side::Client, Direction::Uni, index)
}

fn data(stream_id: StreamId, offset: u64, size: usize, fin: bool) -> Frame {
    Frame::Stream(StreamData { stream_id, offset, fin, data: vec![7; size].into() })
}

fn ack(lane: u32, next: u64) -> Frame {
    let (lane_id, next_packet_number) = (LaneId(lane), PacketNumber(next));
    Frame::Ack(Ack { lane_id, next_packet_number, delay_us: 0, ranges: Vec::new() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_exceeds_its_credit_loses_its_session() {
    let mut stage = Stage::new().await;
    let (window, code) = (limits::STREAM_WINDOW_BYTES, CloseCode::FLOW_CONTROL_ERROR);
    // All of a window, piece by piece: for what is missing in front of something it would grow.
    const PIECE: usize = 32 * 1024;
    let whole = |index| (0..window).step_by(PIECE).map(move |offset| vec![data(uni(index), offset, PIECE, false)]);
    // The last byte of the window may come, and the one behind it may not.
    stage.lie(&whole(0).chain([vec![data(uni(0), window, 1, false)]]).collect::<Vec<_>>(), code).await;
    let streams = limits::SESSION_WINDOW_BYTES / window;
    let past = vec![data(uni(streams), 0, 1, false)];
    stage.lie(&(0..streams).flat_map(whole).chain([past]).collect::<Vec<_>>(), code).await;
    stage.lie(&[vec![data(uni(limits::STREAMS_MAX), 0, 1, false)]], code).await;
    let reset = Frame::StreamReset { stream_id: uni(0), code: StreamCode(0), final_size: window + 1 };
    stage.lie(&[vec![reset]], code).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_acknowledges_what_was_never_sent_loses_its_session() {
    let mut stage = Stage::new().await;
    for lie in [ack(0, 1_000_000), ack(7, 0)] {
        stage.lie(&[vec![lie]], CloseCode::PROTOCOL_VIOLATION).await;
    }
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_uses_streams_which_are_not_its_own_loses_its_session() {
    let mut stage = Stage::new().await;
    for direction in [Direction::Uni, Direction::Bi] {
        let id = StreamId::new(Side::Server, direction, 0);
        stage.lie(&[vec![data(id, 0, 100, false)]], CloseCode::STREAM_STATE_ERROR).await;
    }
    let stop = Frame::StreamStop { stream_id: uni(0), code: StreamCode(1) };
    stage.lie(&[vec![data(uni(0), 0, 1, false)], vec![stop]], CloseCode::STREAM_STATE_ERROR).await;
    let shorter = vec![data(uni(0), 0, 5, true)];
    stage.lie(&[vec![data(uni(0), 0, 10, false)], shorter], CloseCode::FINAL_SIZE_ERROR).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_frames_have_no_place_loses_its_session() {
    let mut stage = Stage::new().await;
    let handshake = HandshakeData { level: HandshakeLevel::Traffic, offset: 0, data: vec![4, 0, 0, 0].into() };
    let lies = [
        Frame::Accepted { reset_token: Secret::new([0; 16]) },
        Frame::MaxLanes { maximum: 100 },
        Frame::JoinConfirm { nonce: [0; 16] },
        Frame::Handshake(handshake),
    ];
    for lie in lies {
        stage.lie(&[vec![lie]], CloseCode::PROTOCOL_VIOLATION).await;
    }
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_sends_work_without_end_loses_its_session() {
    let mut stage = Stage::new().await;
    let reset = Frame::StreamReset { stream_id: uni(0), code: StreamCode(0), final_size: 0 };
    let floods =
        [Frame::Ping { sequence: 1 }, reset, data(uni(0), 0, 0, false), Frame::MaxData { maximum: 1 }, ack(0, 0)];
    for flood in floods {
        let packet = vec![flood; limits::FRAMES_PER_PACKET_MAX];
        stage.flood(&packet, |_| {}).await;
    }
    // A packet under new keys each: the node may have us derive keys for ever.
    stage.flood(&[Frame::Pong { sequence: 1, delay_us: 0 }], Liar::step_keys).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_with_too_many_frames_costs_the_channel() {
    let mut stage = Stage::new().await;
    let (mut liar, session) = stage.liar().await;
    soon(liar.send(&vec![Frame::Ping { sequence: 1 }; limits::FRAMES_PER_PACKET_MAX + 1])).await;
    assert_eq!(soon(liar.closed()).await, None);
    eventually("the channel is given up", || session.stats().lanes.is_empty()).await;
    assert_eq!(session.close_reason(), None, "the next channel may do better");
    stage.is_undisturbed().await;
    drop(session);
    stage.leave().await;
}

/// Such a client cannot come back to the session. One that has begun no other session may have the accept, and is awaited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_its_client_may_not_know_of_ends_soon_after_the_next_one_begins() {
    let mut stage = Stage::new().await;
    let (lost, abandoned) = stage.liar().await;
    let (quiet, awaited) = stage.liar_called("quiet").await;
    drop((lost, quiet));
    eventually("both channels are gone", || abandoned.stats().lanes.is_empty() && awaited.stats().lanes.is_empty())
        .await;
    let (_liar, next) = stage.liar().await;
    let CloseReason::ChannelsLost { after } = soon(abandoned.closed()).await else { panic!("another reason") };
    assert!(after >= limits::SURVIVE_UNCONFIRMED && after < limits::SURVIVE, "{after:?}");
    assert_eq!((awaited.close_reason(), next.close_reason()), (None, None));
    stage.is_undisturbed().await;
    drop((abandoned, awaited, next));
    stage.leave().await;
}
