//! The plain case: a session begins, carries streams both ways, and ends.

use std::time::Duration;

use longhaul::base::{CloseCode, Direction, LaneId};
use longhaul::session::{CloseReason, LaneKind};
use longhaul::stream::Priority;
use longhaul::wire::Frame;

use crate::app::Answer;
use crate::link::Path;
use crate::world::{CLIENT, SERVER, World};

const MEGABYTE: u64 = 1_000_000;

fn open(world: &mut World, side: usize, direction: Direction, bytes: u64) {
    let node = &mut world.nodes[side];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, direction, Priority::Normal, bytes).unwrap();
}

fn transfer_and_close(world: &mut World) {
    world.nodes[SERVER].app.answer = Answer { bytes: 2 * MEGABYTE, chunk_bytes: 50_000 };
    for _ in 0..3 {
        open(world, CLIENT, Direction::Bi, 2 * MEGABYTE + 1);
        open(world, CLIENT, Direction::Uni, MEGABYTE);
        open(world, SERVER, Direction::Uni, 2 * MEGABYTE);
    }
    world.run_until_all_read(Duration::from_secs(10));
    assert!(world.oracle.read_bytes() > 20 * MEGABYTE);
    world.run_for(Duration::from_secs(1));
    for node in &mut world.nodes {
        assert_eq!(node.session().held_bytes(), 0);
        assert_eq!(node.session().stream_count(), 0);
        assert!(!node.session().has_outstanding_data());
        assert_eq!(node.session().stats().lanes_lost, 0);
        assert_eq!(node.session().stats().reinjected_bytes, 0);
    }
    let now = world.now;
    world.nodes[CLIENT].session().close(CloseCode(0x123), "enough", now);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.nodes[CLIENT].closed(), Some(&CloseReason::Local { code: CloseCode(0x123) }));
    let expected = CloseReason::Peer { code: CloseCode(0x123), reason: "enough".to_owned() };
    assert_eq!(world.nodes[SERVER].closed(), Some(&expected));
    assert!(world.links.iter().all(crate::link::Link::is_closed));
}

#[test]
fn ten_megabytes_both_ways_over_one_lane() {
    transfer_and_close(&mut World::connected(1, 1, Path::default()));
}

#[test]
fn ten_megabytes_both_ways_over_four_lanes() {
    transfer_and_close(&mut World::connected(1, 4, Path::default()));
}

#[test]
fn a_channel_that_is_tls_needs_no_seal() {
    let mut world = World::new(1, Default::default(), Default::default());
    world.connect(LaneKind::Tls, Path::default());
    world.join(LaneKind::Tls, Path::default()).unwrap();
    world.join(LaneKind::Tcp, Path::default()).unwrap();
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.nodes[SERVER].session().lane_count(), 3);
    transfer_and_close(&mut world);
}

#[test]
fn what_was_written_in_pieces_leaves_in_one_frame() {
    let mut world = World::connected(1, 1, Path::default());
    let now = world.now;
    let session = world.nodes[CLIENT].session();
    let id = session.open(Direction::Uni, Priority::Normal).unwrap();
    let written: Vec<u8> = (0..60_000_u32).map(|index| (index % 251) as u8).collect();
    // Sizes that neither fit packets nor one another.
    let mut pieces = written.chunks(1_777);
    let mut sent = Vec::new();
    loop {
        for piece in pieces.by_ref().take(9) {
            session.write_chunk(id, piece.to_vec().into()).unwrap();
        }
        let Some(transmission) = session.poll_transmit(now, LaneId::FIRST) else { break };
        let streams: Vec<_> = transmission
            .frames()
            .iter()
            .filter_map(|frame| match frame {
                Frame::Stream(data) => Some(data),
                _ => None,
            })
            .collect();
        assert_eq!(streams.len(), 1, "a packet carries one frame of the stream");
        assert_eq!(streams[0].offset, sent.len() as u64);
        sent.extend_from_slice(&streams[0].data.to_bytes());
    }
    assert_eq!(sent, written);
}
