//! What the pages show of the hub's authority: read when its state has changed, and not for every answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::identity::file_stamp;
use crate::admin::Source;
use crate::cli::clock::now_unix;
use crate::enroll::{AuthorityCounts, Overview, Registrar};
use crate::telemetry::Authority;

/// The state of an authority as it was read last, and what it has done.
#[derive(Clone)]
pub(super) struct Followed {
    read: watch::Receiver<Read>,
    registrar: Arc<Registrar>,
}

/// Begins to follow the state at `path`.
pub(super) fn follow(registrar: Arc<Registrar>, path: PathBuf) -> Followed {
    let (sender, read) = watch::channel(None);
    tokio::spawn(read_changes(Arc::clone(&registrar), path, sender));
    Followed { read, registrar }
}

impl Followed {
    /// What it has, whenever it is asked for. `error` stands beside what was read last.
    pub(super) fn shown(&self) -> Source<serde_json::Value> {
        let receiver = self.read.clone();
        Arc::new(move || match &*receiver.borrow() {
            None => serde_json::Value::Null,
            Some((overview, error)) => {
                let mut shown = serde_json::json!(Overview::at(overview, now_unix()));
                shown["error"] = serde_json::json!(error);
                shown
            }
        })
    }

    /// How much it has, once that is known.
    pub(super) fn counts(&self) -> Option<Authority> {
        let read = self.read.borrow();
        let AuthorityCounts { tokens, nodes, certificates_issued, denied } = read.as_ref()?.0.counts(now_unix());
        Some(Authority { tokens, nodes, certificates_issued, denied, events: self.registrar.event_counts() })
    }
}

type Read = Option<(Overview, Option<String>)>;

async fn read_changes(registrar: Arc<Registrar>, path: PathBuf, sender: watch::Sender<Read>) {
    let mut seen = None;
    while !sender.is_closed() {
        let begun = Instant::now();
        let stamp = file_stamp(&path).ok();
        if stamp != seen || stamp.is_none() {
            let registrar = Arc::clone(&registrar);
            let reading = tokio::task::spawn_blocking(move || registrar.overview());
            let read = reading.await.map_err(|error| error.to_string());
            match read.and_then(|read| read.map_err(|error| error.to_string())) {
                Ok(overview) => {
                    sender.send_replace(Some((overview, None)));
                    seen = stamp;
                }
                Err(error) => sender.send_modify(|read| {
                    // What was seen stays, so that another look tries again.
                    read.get_or_insert_default().1 = Some(error);
                }),
            }
        }
        tokio::time::sleep((begun.elapsed() * SHARE).max(INTERVAL)).await;
    }
}

/// How often it is looked for a change.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reading takes at most one part of so many of the time, however large the state is.
const SHARE: u32 = 50;
