//! Messages and packets: bytes ↔ values, without sealing.

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use longhaul::base::{Direction, LaneId, PacketNumber, Side, StreamId, limits};
use longhaul::wire::{
    Ack, Frame, Head, PaddingPolicy, SealedKind, StreamData, decode_message, decode_packet, encode_packet_message,
};

const SIZE_MAX: usize = limits::FRAME_MESSAGE_BYTES_MAX;

fn data(index: u64, size: usize) -> Frame {
    let stream_id = StreamId::new(Side::Client, Direction::Bi, index);
    Frame::Stream(StreamData { stream_id, offset: 1 << 30, fin: false, data: vec![7; size].into() })
}

fn ack() -> Frame {
    Frame::Ack(Ack {
        lane_id: LaneId(3),
        next_packet_number: PacketNumber(1_000_000),
        delay_us: 900,
        ranges: Vec::new(),
    })
}

/// One full piece of a stream; many small ones; an acknowledgement alone.
fn packets() -> [(&'static str, Vec<Frame>); 3] {
    let small = (0..100).map(|index| data(index, 100)).chain([ack()]).collect();
    [("bulk-64k", vec![data(0, 65_000)]), ("small-100x100", small), ("ack", vec![ack()])]
}

fn head() -> Head {
    Head { lane_id: LaneId(3), packet_number: PacketNumber(1_000_000), ..Head::default() }
}

fn codec(criterion: &mut Criterion) {
    for (name, frames) in packets() {
        let mut encoded = BytesMut::new();
        let layout =
            encode_packet_message(&mut encoded, &head(), SealedKind::Plain, &frames, PaddingPolicy::Block32, SIZE_MAX);
        let mut group = criterion.benchmark_group("codec");
        group.throughput(Throughput::Bytes(layout.message.len() as u64));
        group.bench_function(format!("encode/{name}"), |bencher| {
            let mut out = BytesMut::with_capacity(2 * SIZE_MAX);
            bencher.iter(|| {
                out.clear();
                encode_packet_message(&mut out, &head(), SealedKind::Plain, &frames, PaddingPolicy::Block32, SIZE_MAX)
            });
        });
        group.bench_function(format!("decode/{name}"), |bencher| {
            let mut decoded = Vec::new();
            bencher.iter_batched(
                || encoded.clone(),
                |mut bytes| {
                    let message = decode_message(&mut bytes, SIZE_MAX).expect("valid").expect("whole");
                    let longhaul::wire::Body::Plain(content) = message.body else { unreachable!("it is plain") };
                    decode_packet(&content, &mut decoded).expect("valid");
                    decoded.len()
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
