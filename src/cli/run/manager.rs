//! What the service manager (systemd, `sd_notify(3)`) is told. Without one nothing is.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::admin::ReloadError;

/// Tells the service manager.
#[derive(Clone, Debug)]
pub(super) struct Manager(());

impl Manager {
    /// Begins to answer the watchdog, if there is one.
    pub(super) fn new() -> Self {
        if let Some(patience) = sd_notify::watchdog_enabled() {
            tokio::spawn(answer_watchdog(patience));
        }
        Self(())
    }

    /// Everything that the configuration names was started.
    pub(super) fn ready(&self) {
        tell(&[NotifyState::Ready, NotifyState::Status("running")]);
    }

    /// The configuration is read again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the time is unknown, and the service manager not told of the reload"),
        }
    }

    /// It was applied, or was not: the manager knows but one end of a reload, and reads the rest.
    pub(super) fn reloaded(&self, error: Option<&ReloadError>) {
        let status = error.map_or("running".to_owned(), |error| {
            format!("running; reload refused: {}", error.to_string().lines().next().unwrap_or_default())
        });
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// The node ends.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("shutting down")]);
    }
}

/// Shows that tasks run.
async fn answer_watchdog(patience: Duration) {
    // Half of it, as sd_watchdog_enabled(3) recommends.
    let mut interval = tokio::time::interval(patience / 2);
    loop {
        interval.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "service manager cannot be told");
    }
}
