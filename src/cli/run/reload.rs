//! Takes a changed configuration while the node runs: all of it or nothing.
//!
//! What can fail comes first: reading, checking, comparing, new listeners of forwards. What comes then cannot fail.
//! Streams that are open go on, unless their service does not allow their peer any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, watch};

use super::manager::Manager;
use super::settings;
use crate::admin::{Control, ReloadError};
use crate::cli::log::LogFilter;
use crate::config::{Changes, Config};
use crate::crypto::identity::{TlsSettings, default_provider};
use crate::service::{Forward, Gateway};

/// A node that runs, with the configuration that it runs with.
pub(super) struct Running {
    path: PathBuf,
    gateway: Arc<Gateway>,
    tls: TlsSettings,
    filter: LogFilter,
    manager: Manager,
    config: watch::Sender<Arc<Config>>,
    is_stopping: AtomicBool,
    /// One reload at a time.
    reloading: Mutex<()>,
}

/// New listeners of forwards, which are given up unless they are taken.
struct Fresh(Vec<Arc<Forward>>);

impl Running {
    pub(super) fn new(
        config: Config,
        gateway: Arc<Gateway>,
        tls: TlsSettings,
        filter: LogFilter,
        manager: Manager,
    ) -> Arc<Self> {
        let path = config.path.clone();
        let (config, _) = watch::channel(Arc::new(config));
        Arc::new(Self {
            path,
            gateway,
            tls,
            filter,
            manager,
            config,
            is_stopping: AtomicBool::new(false),
            reloading: Mutex::default(),
        })
    }

    /// The node takes nothing new from now on.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.manager.stopping();
    }

    /// Reads the configuration again and applies it: a line for each change.
    async fn apply(&self) -> Result<Vec<String>, ReloadError> {
        let path = self.path.clone();
        let loading = tokio::task::spawn_blocking(move || Config::load(&path, &default_provider()));
        let loaded = loading.await.map_err(|error| ReloadError::Failed(error.to_string()))?;
        let new = Arc::new(loaded.map_err(|error| ReloadError::Refused(error.to_string()))?);
        let old = Arc::clone(&self.config.borrow());
        let changes = Changes::between(&old, &new).map_err(|error| ReloadError::Refused(error.to_string()))?;
        let lines = changes.lines();
        let fresh = self.listen(&changes).await?;
        self.replace_identity(&changes)?;
        self.filter.follow(new.log_filter.as_deref());
        let limits = &new.limits;
        self.gateway.node().set_bandwidth_limits(settings::bandwidth_limits(limits, &new.links));
        self.gateway.services().set_connections_per_peer_max(limits.connections_per_peer_max);
        self.gateway.services().replace(new.services.iter().cloned());
        self.replace_forwards(&changes, fresh).await;
        self.replace_links(&changes);
        for warning in &new.warnings {
            tracing::warn!(%warning, "configuration");
        }
        self.config.send_replace(new);
        Ok(lines)
    }

    /// Listens where only the new configuration does.
    async fn listen(&self, changes: &Changes<'_>) -> Result<Fresh, ReloadError> {
        let mut fresh = Fresh(Vec::new());
        for config in changes.added_forwards() {
            match Forward::start(config.clone(), self.gateway.peers().clone()).await {
                Ok(forward) => fresh.0.push(Arc::new(forward)),
                Err(error) => {
                    let reason = format!("forward {} cannot be started: {error}", config.listen);
                    fresh.give_up().await;
                    return Err(ReloadError::Refused(reason));
                }
            }
        }
        Ok(fresh)
    }

    /// Presents another certificate, and trusts other authorities, in handshakes from now on.
    fn replace_identity(&self, changes: &Changes<'_>) -> Result<(), ReloadError> {
        let loaded = &changes.new.identity;
        if changes.is_identity_other() || changes.are_anchors_other() {
            let exchanged = self.tls.exchange(loaded.identity.clone(), loaded.anchors.clone());
            exchanged.map_err(|error| ReloadError::Refused(error.to_string()))?;
        }
        Ok(())
    }

    async fn replace_forwards(&self, changes: &Changes<'_>, fresh: Fresh) {
        for forward in self.gateway.forwards() {
            match changes.successor_of(&forward.config()) {
                Some(config) => forward.reconfigure(config.clone()),
                None => self.gateway.remove_forward(&forward).await,
            }
        }
        for forward in fresh.0 {
            super::tell_forward(&forward);
            self.gateway.add_forward(forward);
        }
    }

    fn replace_links(&self, changes: &Changes<'_>) {
        for peer in changes.ended_links() {
            self.gateway.remove_link(peer);
        }
        for link in changes.begun_links() {
            self.gateway.add_link(self.gateway.node().link(settings::link(link.clone())));
        }
    }
}

impl Fresh {
    async fn give_up(self) {
        for forward in self.0 {
            forward.stop().await;
        }
    }
}

impl Control for Running {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    async fn reload(&self) -> Result<Vec<String>, ReloadError> {
        let _one = self.reloading.lock().await;
        self.manager.reloading();
        let outcome = self.apply().await;
        match &outcome {
            Ok(changes) => {
                changes.iter().for_each(|change| tracing::info!(change, "configuration"));
                tracing::info!(changes = changes.len(), "reloaded");
            }
            Err(error) => tracing::error!(%error, "not reloaded, everything stays as it was"),
        }
        self.manager.reloaded(outcome.as_ref().err());
        outcome
    }
}
