//! The two tasks of a QUIC channel's carrier: datagrams of the expirable class, beside the channel's lanes.
//!
//! What is lost on the way stays lost; what does not fit goes over lanes, which the session sees to. QUIC protects the
//! packets, and the channel's first lane stands for the trust in it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::BytesMut;

use super::shared::{LaneControl, Shared};
use crate::base::LaneId;
use crate::channel::QuicConnection;
use crate::session::LaneEnd;
use crate::wire::decode_packet;

/// Starts the tasks, for the channel whose first lane is `lane`. Nothing is started when the lane is over already.
pub(super) fn spawn_carrier(shared: &Arc<Shared>, lane: LaneId, quic: QuicConnection) {
    let Some(control) = shared.look(|inner| inner.lane_control(lane)) else { return };
    tokio::spawn(send(Arc::clone(shared), lane, quic.clone(), control));
    tokio::spawn(receive(Arc::clone(shared), lane, quic));
}

async fn send(shared: Arc<Shared>, lane: LaneId, quic: QuicConnection, control: LaneControl) {
    // The end of the connection is found by its lanes.
    let _ = send_packets(&shared, lane, &quic, &control).await;
    shared.with_timer(|inner| inner.session.remove_datagram_carrier(lane));
}

async fn send_packets(shared: &Shared, lane: LaneId, quic: &QuicConnection, control: &LaneControl) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while !control.is_closed.load(Ordering::Acquire) {
        // It grows while the path is explored. A peer without datagrams has none at all.
        let Some(size_max) = quic.datagram_bytes_max() else { return Ok(()) };
        let packet = shared.with_timer(|inner| inner.session.poll_datagram_transmit(Instant::now(), lane, size_max));
        match packet {
            Some(packet) => {
                packet.encode(&mut buffer);
                quic.send_datagram(buffer.split().freeze()).await?;
            }
            None => control.datagram_wake.notified().await,
        }
    }
    Ok(())
}

async fn receive(shared: Arc<Shared>, lane: LaneId, quic: QuicConnection) {
    let mut frames = Vec::new();
    while let Ok(packet) = quic.read_datagram().await {
        let decoded = decode_packet(&packet, &mut frames);
        shared.with_timer(|inner| match &decoded {
            Ok(()) => inner.session.handle_datagram_packet(Instant::now(), lane, &mut frames, packet.len()),
            Err(error) => inner.session.remove_lane(lane, LaneEnd::Closed(error.close_code()), Instant::now()),
        });
        if decoded.is_err() {
            return;
        }
    }
}
