//! A flow at the service's side: between its stream and the target's socket.

use bytes::Bytes;
use tokio::net::UdpSocket;

use super::idle::Idle;
use super::{DatagramLoss, DatagramOptions, socket};
use crate::node::{DatagramError, DatagramFlow, DatagramSender, ReadError};
use crate::service::counters::Counters;
use crate::service::throttle::{Throttle, Way};

/// Carries datagrams both ways until the flow is idle or the peer ends it.
pub(in crate::service) async fn carry(
    mut flow: DatagramFlow,
    target: UdpSocket,
    options: &DatagramOptions,
    counters: &Counters,
    throttle: &Throttle,
) -> Result<(), ReadError> {
    flow.set_age_max(options.age_max);
    let (sender, idle) = (flow.sender(), Idle::new(options.idle_timeout));
    let passed = idle.passed();
    tokio::pin!(passed);
    loop {
        tokio::select! {
            received = flow.recv() => {
                let Some(data) = received? else { return Ok(()) };
                idle.on_used();
                if !throttle.pass(Way::FromPeer, data.len(), options.age_max) {
                    counters.on_lost(DatagramLoss::Limited);
                    continue;
                }
                let outcome = socket::send(&target, &data).await;
                if outcome.is_ok() || outcome == Err(DatagramLoss::TargetRefused) {
                    counters.on_datagram_from_peer(data.len());
                }
                outcome.unwrap_or_else(|loss| counters.on_lost(loss));
            }
            ready = target.readable() => {
                let outcome = ready.map_err(|_| DatagramLoss::Socket).and_then(|()| {
                    let take = |data: &[u8]| {
                        idle.on_used();
                        if throttle.pass(Way::ToPeer, data.len(), options.age_max) {
                            to_peer(&sender, data, counters);
                        } else {
                            counters.on_lost(DatagramLoss::Limited);
                        }
                    };
                    socket::receive(&target, take)
                });
                outcome.unwrap_or_else(|loss| counters.on_lost(loss));
            }
            () = &mut passed => {
                flow.finish();
                return Ok(());
            }
        }
    }
}

/// Sends a datagram of a local socket to the peer. Returns whether the flow's session is there still.
pub(super) fn to_peer(sender: &DatagramSender, data: &[u8], counters: &Counters) -> bool {
    match sender.send(Bytes::copy_from_slice(data)) {
        Ok(()) => counters.on_datagram_to_peer(data.len()),
        Err(DatagramError::TooLarge { .. }) => counters.on_lost(DatagramLoss::TooLarge),
        Err(error) => {
            counters.on_lost(DatagramLoss::FlowOver);
            return !matches!(error, DatagramError::Session(_));
        }
    }
    true
}
