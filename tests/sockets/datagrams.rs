//! Flows of datagrams between two programs that embed a node.

use bytes::Bytes;
use longhaul::base::StreamCode;
use longhaul::node::{DatagramDrop, DatagramError, DatagramFlow, ReadError};

use crate::common::{pair, pattern};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_carry_datagrams_both_ways_and_end() {
    for address in ["tcp://127.0.0.1:0", "tls://127.0.0.1:0"] {
        let pair = pair(address, 2).await;
        let mut flow = pair.session_a.open_datagrams().await.unwrap();
        // The first one overtakes nothing: it opens the stream, too.
        flow.send(Bytes::from_static(b"first")).unwrap();
        let (send, recv) = pair.session_b.accept_bi().await.unwrap();
        let mut other = DatagramFlow::new(send, recv);
        assert_eq!((other.id(), other.recv().await.unwrap().unwrap()), (flow.id(), Bytes::from_static(b"first")));
        let echo = tokio::spawn(async move {
            while let Some(datagram) = other.recv().await? {
                other.send(datagram).expect("the flow is open");
            }
            Ok::<_, ReadError>(())
        });
        let sender = flow.sender();
        assert_eq!(sender.size_max(), 65_507);
        for (seed, size) in [0, 1, 1500, 20_000, 65_507].into_iter().enumerate() {
            let data = Bytes::from(pattern(size, seed as u64));
            sender.send(data.clone()).unwrap();
            assert_eq!(flow.recv().await.unwrap(), Some(data), "{address} {size}");
        }
        let too_large = sender.send(Bytes::from(vec![0; 65_508]));
        assert_eq!(too_large, Err(DatagramError::TooLarge { size: 65_508, size_max: 65_507 }));
        flow.finish();
        assert_eq!(echo.await.unwrap(), Ok(()));
        while pair.session_a.stream_count() + pair.session_b.stream_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(sender.send(Bytes::new()), Err(DatagramError::Closed));
        let stats = pair.session_a.stats().datagrams;
        assert_eq!((stats.sent, stats.received), (6, 5));
        assert_eq!((stats.dropped(DatagramDrop::TooLarge), stats.dropped(DatagramDrop::FlowOver)), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_flow_and_closed_session_are_told_apart() {
    let pair = pair("tcp://127.0.0.1:0", 1).await;
    let mut flow = pair.session_a.open_datagrams().await.unwrap();
    let (mut send, mut recv) = pair.session_b.accept_bi().await.unwrap();
    // In this order: whoever hears of the reset has heard of the stop.
    recv.stop(StreamCode(0x123));
    send.reset(StreamCode(0x123));
    assert_eq!(flow.recv().await, Err(ReadError::Reset(StreamCode(0x123))));
    assert_eq!(flow.send(Bytes::new()), Err(DatagramError::Closed));

    let mut flow = pair.session_a.open_datagrams().await.unwrap();
    pair.session_b.close(longhaul::base::CloseCode(0x200), "over");
    assert!(matches!(flow.recv().await, Err(ReadError::Session(_))));
    assert!(matches!(flow.send(Bytes::new()), Err(DatagramError::Session(_))));
}
