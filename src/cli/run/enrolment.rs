//! The enrolment point of a node that has one.

use std::sync::Arc;

use anyhow::Context;

use crate::cli::CliError;
use crate::config::EnrollConfig;
use crate::crypto::identity::TlsSettings;
use crate::enroll::store::RedbStore;
use crate::enroll::{AuditLog, EnrollPoint, Registrar, RegistrarSettings, files};

/// Who judges tokens. Without its state there is nobody, and the node runs all the same: its links need no new machines.
pub(super) fn registrar(config: &EnrollConfig) -> Option<Arc<Registrar>> {
    let store = match RedbStore::open(&config.directory.join(files::STATE)) {
        Ok(store) => store,
        Err(error) => {
            tracing::error!(%error, "enrolment is off until the next start");
            return None;
        }
    };
    let audit = AuditLog::new(&config.directory.join(files::AUDIT));
    let settings =
        RegistrarSettings { certificate_lifetime: config.certificate_lifetime, addresses: config.addresses.clone() };
    Some(Arc::new(Registrar::new(Box::new(store), Arc::clone(&config.authority), audit, settings)))
}

/// Starts the enrolment point.
pub(super) async fn start(
    config: EnrollConfig,
    registrar: Arc<Registrar>,
    tls: &TlsSettings,
) -> Result<EnrollPoint, CliError> {
    let tls = tls.enroll_server_config(config.authority.certificate_der().clone());
    let tls = tls.context("TLS of the enrolment point cannot be set up")?;
    let point = EnrollPoint::start(&config.listen, tls, registrar).await;
    let point = point.context("enrolment point cannot be started")?;
    tracing::info!(address = %point.local_address(), directory = %config.directory.display(), "enrolling");
    Ok(point)
}
