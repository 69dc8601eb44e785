//! The enrolment point of a node that has one.

use std::sync::Arc;

use anyhow::Context;

use crate::cli::CliError;
use crate::config::EnrollConfig;
use crate::crypto::identity::TlsSettings;
use crate::enroll::store::RedbStore;
use crate::enroll::{AuditLog, EnrollPoint, Registrar, RegistrarSettings, files};

/// Starts it. Without its state there is none, and the node runs all the same: its links need no new machines.
pub(super) async fn start(config: EnrollConfig, tls: &TlsSettings) -> Result<Option<EnrollPoint>, CliError> {
    let store = match RedbStore::open(&config.directory.join(files::STATE)) {
        Ok(store) => store,
        Err(error) => {
            tracing::error!(%error, "enrolment is off until the next start");
            return Ok(None);
        }
    };
    let audit = AuditLog::new(&config.directory.join(files::AUDIT));
    let tls = tls.enroll_server_config(config.authority.certificate_der().clone());
    let tls = tls.context("TLS of the enrolment point cannot be set up")?;
    let settings = RegistrarSettings { certificate_lifetime: config.certificate_lifetime, addresses: config.addresses };
    let registrar = Registrar::new(Box::new(store), config.authority, audit, settings);
    let point = EnrollPoint::start(&config.listen, tls, Arc::new(registrar)).await;
    let point = point.context("enrolment point cannot be started")?;
    tracing::info!(address = %point.local_address(), directory = %config.directory.display(), "enrolling");
    Ok(Some(point))
}
