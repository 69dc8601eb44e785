//! A link's first channel: the addresses are tried best first, each a little after the one before or at its failure, and
//! whichever makes a session first is taken. One that swallows everything so costs the link no more than the head start.
//!
//! A session that may send before its peer has accepted it is handed out at once, and favoured from then on: for a while
//! no other address is begun, and a session that another one makes has to wait. Else what an application has begun on it
//! would break off whenever two addresses are about equally quick.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::dial::Dialler;
use super::error::ConnectError;
use super::places::{Place, best_first};
use super::session::{Session, Unclaimed};
use super::shared::LaneEvent;
use crate::base::limits;

/// How long an address is tried before the next one is, too (RFC 8305 §5 recommends a quarter of a second).
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// Once an attempt has failed and all others are under way, how long those are waited for at first; twice as long each
/// time. What failed may be back, and should not wait for an address that swallows everything.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an early session is favoured. Its answer takes one round trip, and none on earth is longer than this.
const FAVOUR: Duration = Duration::from_secs(1);

/// The attempt that was the first. Its session is closed unless it is claimed.
pub(super) struct Won {
    pub(super) address: usize,
    pub(super) session: Unclaimed,
    pub(super) events: mpsc::UnboundedReceiver<LaneEvent>,
}

/// The attempt that failed last.
pub(super) struct Lost {
    pub(super) address: usize,
    pub(super) error: ConnectError,
}

/// What an attempt has to say.
enum Report {
    /// The session that it makes may send, or that one is over and another will be made.
    Early(usize, Option<Session>),
    Over(Result<Won, Lost>),
}

/// Makes a session over one of the addresses. `show_early` gets the session that may send already, or `None` when there
/// is none any more; what it got last is over when this returns, or is the one that is returned.
pub(super) async fn establish(
    dialler: &Arc<Dialler>,
    places: &[Place],
    failure_count: u32,
    show_early: impl Fn(Option<Session>),
) -> Result<Won, Lost> {
    let patience = PATIENCE.saturating_mul(1 << failure_count.min(8)).min(limits::HANDSHAKE_TIMEOUT);
    let (reports, mut arriving) = mpsc::unbounded_channel();
    let mut waiting = best_first(places).into_iter();
    let mut attempts = JoinSet::new();
    let mut running_count = 0;
    let mut earlies = Earlies::default();
    let mut second: Option<Won> = None;
    let mut lost: Option<Lost> = None;
    let mut next_start = Instant::now();
    let mut give_up_at = next_start;
    loop {
        let favoured_until = earlies.favoured_until(Instant::now());
        let is_free = favoured_until.is_none();
        if let Some(won) = second.take_if(|_| is_free) {
            return Ok(won);
        }
        if running_count == 0
            && waiting.len() == 0
            && let Some(lost) = lost.take()
        {
            return Err(lost);
        }
        tokio::select! {
            biased;
            Some(report) = arriving.recv() => match report {
                Report::Early(address, session) => {
                    if earlies.on_report(address, session, Instant::now()) {
                        show_early(earlies.first());
                    }
                }
                // The others end here: what they have begun is closed, and so is a session that came second.
                Report::Over(Ok(won)) if is_free || earlies.is_first(won.address) => return Ok(won),
                Report::Over(Ok(won)) => {
                    running_count -= 1;
                    second.get_or_insert(won);
                }
                Report::Over(Err(failed)) => {
                    running_count -= 1;
                    if earlies.on_report(failed.address, None, Instant::now()) {
                        show_early(earlies.first());
                    }
                    let Lost { address, error } = &failed;
                    let address = &dialler.config.addresses[*address].address;
                    tracing::debug!(peer = %dialler.config.peer, %address, %error, "address cannot be reached");
                    next_start = Instant::now();
                    if lost.replace(failed).is_none() {
                        give_up_at = next_start + patience;
                    }
                }
            },
            // What waits for this is looked at above.
            () = sleep_until(favoured_until.unwrap_or(next_start)), if !is_free => {}
            () = sleep_until(next_start), if is_free && waiting.len() > 0 => {
                let Some(address) = waiting.next() else { continue };
                running_count += 1;
                attempts.spawn(attempt(Arc::clone(dialler), address, places[address], reports.clone()));
                next_start = Instant::now() + HEAD_START;
            }
            () = sleep_until(give_up_at), if is_free && lost.is_some() && waiting.len() == 0 => {
                if let Some(lost) = lost.take() {
                    return Err(lost);
                }
            }
        }
    }
}

/// One attempt. A session that nobody waits for any more is dropped, which closes it.
async fn attempt(dialler: Arc<Dialler>, address: usize, place: Place, reports: mpsc::UnboundedSender<Report>) {
    let show_early = |session| drop(reports.send(Report::Early(address, session)));
    let made = dialler.establish(&dialler.config.addresses[address].address, place.usage, show_early).await;
    let outcome = match made {
        Ok((session, events)) => Ok(Won { address, session, events }),
        Err(error) => Err(Lost { address, error }),
    };
    let _ = reports.send(Report::Over(outcome));
}

/// The sessions that may send and are not accepted yet, by address, oldest first. The first one is handed out.
struct Earlies<S = Session> {
    sessions: Vec<(usize, S)>,
    /// How long the first one is favoured.
    until: Option<Instant>,
}

impl<S> Default for Earlies<S> {
    fn default() -> Self {
        Self { sessions: Vec::new(), until: None }
    }
}

impl<S: Clone> Earlies<S> {
    /// Notes which session an address has now. Returns whether the first one is another one than before.
    fn on_report(&mut self, address: usize, session: Option<S>, now: Instant) -> bool {
        let is_news = self.is_first(address) || (self.sessions.is_empty() && session.is_some());
        self.sessions.retain(|(of, _)| *of != address);
        self.sessions.extend(session.map(|session| (address, session)));
        if is_news {
            self.until = (!self.sessions.is_empty()).then(|| now + FAVOUR);
        }
        is_news
    }

    fn first(&self) -> Option<S> {
        self.sessions.first().map(|(_, session)| session.clone())
    }

    fn is_first(&self, address: usize) -> bool {
        self.sessions.first().is_some_and(|(of, _)| *of == address)
    }

    /// Until when the first one is favoured, if it still is.
    fn favoured_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_early_session_is_handed_out_until_it_is_over() {
        let (mut earlies, now) = (Earlies::default(), Instant::now());
        assert!(earlies.on_report(1, Some("one"), now));
        assert!(!earlies.on_report(0, Some("zero"), now), "there is one");
        assert_eq!(earlies.first(), Some("one"));
        assert!(!earlies.on_report(2, None, now), "nobody had it");
        assert!(earlies.on_report(1, None, now));
        assert_eq!(earlies.first(), Some("zero"));
        assert!(earlies.is_first(0) && !earlies.is_first(1));
        assert!(earlies.on_report(0, None, now));
        assert_eq!((earlies.first(), earlies.favoured_until(now)), (None, None));
    }

    #[test]
    fn each_is_favoured_for_a_while_once_it_is_handed_out() {
        let (mut earlies, start) = (Earlies::default(), Instant::now());
        assert_eq!(earlies.favoured_until(start), None);
        earlies.on_report(0, Some("zero"), start);
        let later = start + FAVOUR / 2;
        earlies.on_report(1, Some("one"), later);
        assert_eq!(earlies.favoured_until(later), Some(start + FAVOUR), "another one prolongs nothing");
        assert_eq!(earlies.favoured_until(start + FAVOUR), None);
        assert!(earlies.is_first(0), "it may still win");
        let end = start + 2 * FAVOUR;
        earlies.on_report(0, None, end);
        assert_eq!(earlies.favoured_until(end), Some(end + FAVOUR));
    }

    #[test]
    fn another_version_of_the_same_address_goes_behind_the_others() {
        let (mut earlies, now) = (Earlies::default(), Instant::now());
        earlies.on_report(0, Some("version 2"), now);
        earlies.on_report(1, Some("one"), now);
        assert!(earlies.on_report(0, Some("version 1"), now));
        assert_eq!(earlies.first(), Some("one"));
    }
}
