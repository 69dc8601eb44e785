//! The enrolment point of a node that has one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use tokio::sync::broadcast::{self, error::RecvError};

use super::identity::file_stamp;
use super::renewal::{Due, Failures};
use crate::channel::Address;
use crate::cli::CliError;
use crate::cli::clock::now_unix;
use crate::cli::renewal::{Failure, install, stage};
use crate::config::{EnrollConfig, IdentityFiles, text};
use crate::crypto::identity::{Identity, PeerIdentity, TicketStore, TlsSettings, TrustAnchors};
use crate::enroll::store::{RedbStore, StoreError};
use crate::enroll::{
    AuditEvent, AuditLog, EnrollPoint, Enrolment, Registrar, RegistrarSettings, RenewError, RenewVisit, Renewed, files,
};
use crate::node::Revoker;
use crate::service::{Denylists, Gateway, PeerEvent};
use crate::wire::{RenewAnswer, RenewRequest};

/// Who judges tokens. Without its state there is nobody, and the node runs all the same: its links need no new machines.
pub(super) fn registrar(config: &EnrollConfig, tls: &TlsSettings) -> Option<Arc<Registrar>> {
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
    let registrar = Registrar::new(Box::new(store), Arc::clone(&config.authority), audit, settings);
    Some(Arc::new(registrar.with_trust(Arc::clone(tls.trust()))))
}

/// What answers machines, wherever they come in.
pub(super) fn door(
    config: &EnrollConfig,
    registrar: &Arc<Registrar>,
    tls: &TlsSettings,
) -> Result<Enrolment, CliError> {
    let tls = tls.enroll_server_config(config.authority.certificate_der().clone());
    let tls = tls.context("TLS of the enrolment point cannot be set up")?;
    Ok(Enrolment::new(tls, Arc::clone(registrar)))
}

/// Has the node do what the state says, and the audit log what the node does; renews its certificate.
pub(super) fn keep(
    config: &EnrollConfig,
    registrar: Arc<Registrar>,
    identity: IdentityFiles,
    tls: &TlsSettings,
    gateway: &Gateway,
) {
    let state = config.directory.join(files::STATE);
    let (denylists, revoker) = (gateway.denylists().clone(), gateway.node().revoker());
    tokio::spawn(watch_denials(Arc::clone(&registrar), state, denylists, revoker));
    tokio::spawn(write_down(AuditLog::new(&config.directory.join(files::AUDIT)), gateway.peers().events()));
    tokio::spawn(write_down_tickets(AuditLog::new(&config.directory.join(files::AUDIT)), Arc::clone(tls.tickets())));
    tokio::spawn(keep_own(registrar, identity, tls.clone()));
}

/// Opens the enrolment point's own port, if it has one; otherwise machines come in at the listeners of the node.
pub(super) async fn open(
    config: &EnrollConfig,
    door: Enrolment,
    gateway: &Gateway,
) -> Result<Option<EnrollPoint>, CliError> {
    let directory = config.directory.display();
    let Some(listen) = &config.listen else {
        for address in gateway.node().local_addresses() {
            if matches!(address, Address::Tcp { .. } | Address::Tls { .. }) {
                tracing::info!(%address, %directory, "enrolling beside channels");
            }
        }
        return Ok(None);
    };
    let point = EnrollPoint::start(listen, door).await.context("enrolment point cannot be started")?;
    tracing::info!(address = %point.local_address(), %directory, "enrolling");
    Ok(Some(point))
}

/// Puts the denylist of the state into effect at once, and ends the sessions of guests whose token was revoked; and again
/// whenever a command has changed them: the state is in a file that is opened for a transaction at a time, so that its
/// changes show in its time of writing.
async fn watch_denials(registrar: Arc<Registrar>, state: PathBuf, denylists: Denylists, revoker: Revoker) {
    let mut interval = tokio::time::interval(DENIALS_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        interval.tick().await;
        let stamp = file_stamp(&state).ok();
        if stamp.is_none() || stamp == seen {
            continue;
        }
        let (registrar, known) = (Arc::clone(&registrar), denylists.current().map_or(0, |list| list.version()));
        let reading = tokio::task::spawn_blocking(move || {
            Ok::<_, StoreError>((registrar.denylist_after(known)?, registrar.revoked_guest_tokens(now_unix())?))
        });
        match reading.await.map_err(anyhow::Error::new).and_then(|read| read.map_err(anyhow::Error::new)) {
            Ok((list, tokens)) => {
                revoker.deny_guests(tokens);
                match list.map(|list| denylists.take(list)) {
                    Some(Err(error)) => tracing::error!(%error, "the denylist of the state cannot be put into effect"),
                    Some(Ok(_)) | None => seen = stamp,
                }
            }
            // What was seen stays, so that another look tries again.
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the denylist and the revoked tokens cannot be read");
                tokio::time::sleep(DENIALS_PAUSE).await;
            }
        }
    }
}

/// Writes down which sessions the hub has and had. Those go on without it: a log that cannot be written keeps machines from
/// joining, and nothing else.
async fn write_down(audit: AuditLog, mut events: broadcast::Receiver<PeerEvent>) {
    let audit = Arc::new(audit);
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(count)) => {
                tracing::warn!(count, "sessions began and ended faster than the audit log takes");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let audit = Arc::clone(&audit);
        let writing = tokio::task::spawn_blocking(move || {
            let (name, session) = (event.peer.name(), event.session.to_string());
            let line = match event.ended {
                None => AuditEvent::SessionUp { name, session, began_early: event.began_early },
                Some(reason) => AuditEvent::SessionDown { name, session, reason },
            };
            audit.append(now_unix(), &line)
        });
        if let Ok(Err(error)) = writing.await {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }
}

/// Writes down which tickets were declined. Strangers can cause that as often as they connect, so that each reason has a line
/// a minute, with the number of them.
async fn write_down_tickets(audit: AuditLog, tickets: Arc<TicketStore>) {
    let audit = Arc::new(audit);
    let mut interval = tokio::time::interval(TICKETS_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told: [(&'static str, u64, Option<Instant>); 3] =
        [("unknown", 0, None), ("expired", 0, None), ("untrusted", 0, None)];
    loop {
        let now = interval.tick().await.into_std();
        let counters = tickets.counters();
        let counts = [&counters.unknown, &counters.expired, &counters.untrusted];
        for ((reason, told, last), count) in told.iter_mut().zip(counts) {
            let count = count.load(Ordering::Relaxed);
            if count == *told || last.is_some_and(|last| now.duration_since(last) < TICKETS_PAUSE) {
                continue;
            }
            let line: AuditEvent<'static> = AuditEvent::TicketsDeclined { reason, count: count - *told };
            (*told, *last) = (count, Some(now));
            let audit = Arc::clone(&audit);
            let writing = tokio::task::spawn_blocking(move || audit.append(now_unix(), &line)).await;
            if let Ok(Err(error)) = writing {
                tracing::error!(%error, "the audit log cannot be written");
            }
        }
    }
}

/// Renews the hub's own certificate, for as long as the one before was made. It asks itself, as it would be asked.
async fn keep_own(registrar: Arc<Registrar>, files: IdentityFiles, tls: TlsSettings) {
    let mut failures = Failures::default();
    let mut due = Due::draw(&tls.identity());
    loop {
        due.arrives(&tls).await;
        match renew_own(&registrar, &files, &tls).await {
            Ok(identity) => {
                tracing::info!(until = text::date(identity.not_after_unix()), "certificate renewed");
                failures = Failures::default();
                due = Due::draw(&identity);
            }
            Err(failure) => tokio::time::sleep(failures.on_failure(&failure, &tls.identity())).await,
        }
    }
}

async fn renew_own(registrar: &Arc<Registrar>, files: &IdentityFiles, tls: &TlsSettings) -> Result<Identity, Failure> {
    let staged = stage(files).await?;
    let request = RenewRequest { certificate_request: staged.request().to_vec(), denylist_version: u64::MAX };
    let (registrar, own) = (Arc::clone(registrar), tls.identity());
    let deciding = tokio::task::spawn_blocking(move || {
        let peer = PeerIdentity::from_chain(own.chain())?;
        let life = own.not_after_unix().saturating_sub(own.not_before_unix());
        let (now, now_unix) = (Instant::now(), now_unix());
        let lifetime = Some(Duration::from_secs(life));
        let visit = RenewVisit { request: &request, peer: &peer, address: None, lifetime, now, now_unix };
        Ok::<_, anyhow::Error>(registrar.renew(&visit))
    });
    match deciding.await.map_err(anyhow::Error::new)?? {
        RenewAnswer::Issued { certificate, anchors, .. } => {
            let anchors = TrustAnchors::from_certificates(anchors.into_iter().map(CertificateDer::from).collect());
            let anchors = anchors.map_err(anyhow::Error::new)?;
            install(staged, Renewed { certificate: certificate.into(), anchors, denylist: None }, tls).await
        }
        RenewAnswer::Refused => Err(RenewError::Refused.into()),
        RenewAnswer::Unavailable => Err(RenewError::Unavailable.into()),
    }
}

/// After a state that could not be read: it may be away for long, and the log is for other things too.
const DENIALS_PAUSE: Duration = Duration::from_secs(10);

/// Between looks at the numbers of declined tickets.
const TICKETS_INTERVAL: Duration = Duration::from_secs(1);

/// Between lines of the audit log about tickets that were declined for one reason.
const TICKETS_PAUSE: Duration = Duration::from_secs(60);

/// A revocation is in effect within this time and a transaction.
const DENIALS_INTERVAL: Duration = Duration::from_millis(500);
