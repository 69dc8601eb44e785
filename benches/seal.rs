//! Sealing and opening packets, by size and suite.

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use longhaul::base::{Direction, LaneId, SessionId, Side, StreamId, limits};
use longhaul::crypto::identity::default_provider;
use longhaul::crypto::{KeySchedule, LaneOpener, SealedKeys, SessionSecrets};
use longhaul::wire::{Body, Frame, Head, PaddingPolicy, SealedKind, StreamData, decode_message, encode_packet_message};

const SIZE_MAX: usize = limits::FRAME_MESSAGE_BYTES_MAX;

fn schedules(suite: rustls::quic::Suite) -> [KeySchedule; 2] {
    // What the bytes are makes no difference to the time.
    let secrets = SessionSecrets::from_exporter(SessionId([1; 16]), |out, _, context| {
        out.fill(context[context.len() - 1] + 1);
        Ok::<_, ()>(())
    })
    .expect("it does not fail");
    [Side::Client, Side::Server].map(|side| KeySchedule::new(suite, side, &secrets))
}

fn message(size: usize) -> (BytesMut, usize) {
    let stream_id = StreamId::new(Side::Client, Direction::Bi, 0);
    let data = StreamData { stream_id, offset: 0, fin: false, data: vec![7; size].into() };
    let (mut out, frames) = (BytesMut::new(), [Frame::Stream(data)]);
    let padding = PaddingPolicy::Block32;
    let layout = encode_packet_message(&mut out, &Head::default(), SealedKind::Traffic, &frames, padding, SIZE_MAX);
    (out, layout.header_len)
}

fn seal(criterion: &mut Criterion) {
    for suite in &default_provider().cipher_suites {
        let Some(packets) = suite.tls13().and_then(rustls::Tls13CipherSuite::quic_suite) else { continue };
        let [client, server] = schedules(packets);
        let keys = SealedKeys(client.current().local.clone());
        let mut group = criterion.benchmark_group(format!("seal/{:?}", suite.suite()));
        for size in [64, 1400, 16_000, 65_000] {
            let (plain, header_len) = message(size);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(format!("seal/{size}"), |bencher| {
                let mut out = plain.clone();
                // Sealing what is sealed already takes the same time.
                bencher.iter(|| keys.seal(&Head::default(), &mut out, header_len).expect("of an allowed size"));
            });
            let mut sealed = plain.clone();
            keys.seal(&Head::default(), &mut sealed, header_len).expect("of an allowed size");
            group.bench_function(format!("open/{size}"), |bencher| {
                bencher.iter_batched(
                    || (sealed.clone(), LaneOpener::new(LaneId::FIRST, server.opening_keys())),
                    |(mut bytes, mut opener)| {
                        let message = decode_message(&mut bytes, SIZE_MAX).expect("valid").expect("whole");
                        let Body::Sealed(sealed) = message.body else { unreachable!("it is sealed") };
                        opener.open(&message.head, sealed).expect("it is genuine")
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, seal);
criterion_main!(benches);
