//! A link's first channel: the addresses are tried best first, each a little after the one before or at its failure, and
//! whichever makes a session first is taken. One that swallows everything so costs the link no more than the head start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::dial::Dialler;
use super::error::ConnectError;
use super::places::{Place, best_first};
use super::session::Session;
use super::shared::LaneEvent;
use crate::base::limits;

/// How long an address is tried before the next one is, too (RFC 8305 §5 recommends a quarter of a second).
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// Once an attempt has failed and all others are under way, how long those are waited for at first; twice as long each
/// time. What failed may be back, and should not wait for an address that swallows everything.
const PATIENCE: Duration = Duration::from_secs(2);

/// The attempt that was the first.
pub(super) struct Won {
    pub(super) address: usize,
    pub(super) session: Session,
    pub(super) events: mpsc::UnboundedReceiver<LaneEvent>,
}

/// The attempt that failed last.
pub(super) struct Lost {
    pub(super) address: usize,
    pub(super) error: ConnectError,
}

/// Makes a session over one of the addresses.
pub(super) async fn establish(dialler: &Arc<Dialler>, places: &[Place], failure_count: u32) -> Result<Won, Lost> {
    let patience = PATIENCE.saturating_mul(1 << failure_count.min(8)).min(limits::HANDSHAKE_TIMEOUT);
    let (outcomes, mut arriving) = mpsc::unbounded_channel();
    let mut waiting = best_first(places).into_iter();
    let mut attempts = JoinSet::new();
    let mut running_count = 0;
    let mut lost: Option<Lost> = None;
    let mut next_start = Instant::now();
    let mut give_up_at = next_start;
    loop {
        if running_count == 0
            && waiting.len() == 0
            && let Some(lost) = lost.take()
        {
            return Err(lost);
        }
        tokio::select! {
            biased;
            Some(outcome) = arriving.recv() => {
                running_count -= 1;
                match outcome {
                    // The others end here: what they have begun is closed, and so is a session that came second.
                    Ok(won) => return Ok(won),
                    Err(failed) => {
                        let Lost { address, error } = &failed;
                        let address = &dialler.config.addresses[*address].address;
                        tracing::debug!(peer = %dialler.config.peer, %address, %error, "address cannot be reached");
                        next_start = Instant::now();
                        if lost.replace(failed).is_none() {
                            give_up_at = next_start + patience;
                        }
                    }
                }
            }
            () = sleep_until(next_start), if waiting.len() > 0 => {
                let Some(address) = waiting.next() else { continue };
                running_count += 1;
                attempts.spawn(attempt(Arc::clone(dialler), address, places[address], outcomes.clone()));
                next_start = Instant::now() + HEAD_START;
            }
            () = sleep_until(give_up_at), if lost.is_some() && waiting.len() == 0 => {
                if let Some(lost) = lost.take() {
                    return Err(lost);
                }
            }
        }
    }
}

/// One attempt. A session that nobody waits for any more is dropped, which closes it.
async fn attempt(
    dialler: Arc<Dialler>,
    address: usize,
    place: Place,
    outcomes: mpsc::UnboundedSender<Result<Won, Lost>>,
) {
    let (listener, events) = mpsc::unbounded_channel();
    let made = dialler.establish(&dialler.config.addresses[address].address, place.usage, listener).await;
    let outcome = match made {
        Ok(shared) => Ok(Won { address, session: Session::new(shared), events }),
        Err(error) => Err(Lost { address, error }),
    };
    let _ = outcomes.send(outcome);
}
