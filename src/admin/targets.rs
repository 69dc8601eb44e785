//! The targets of services: how they are doing, for `/status`, `/ready` and `/events`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::monitor::now_unix_ms;
use crate::service::{CheckOutcome, Service, Services, TargetReport, TargetState};

/// A target at one moment.
#[derive(Debug, Serialize)]
pub(super) struct TargetStatus {
    target: String,
    weight: u32,
    /// `unchecked`, `up`, `down` or `ejected`.
    state: &'static str,
    since_unix_ms: u64,
    reason: Option<String>,
    ejected_for_ms: Option<u64>,
    open: u32,
    connections: u64,
    failures: u64,
    ejections: u64,
    checks: BTreeMap<&'static str, u64>,
    response_ms: Option<f64>,
    share: f64,
}

/// Those of a service.
pub(super) fn targets(service: &Service) -> Vec<TargetStatus> {
    service.targets().iter().map(status).collect()
}

fn status(report: &TargetReport) -> TargetStatus {
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let checks = CheckOutcome::WORDS.into_iter().zip(report.checks);
    TargetStatus {
        target: report.target.to_string(),
        weight: report.weight,
        state: report.state.as_str(),
        since_unix_ms: now_unix_ms().saturating_sub(milliseconds(report.age)),
        reason: report.reason.clone(),
        ejected_for_ms: report.ejected_for.map(milliseconds),
        open: report.open,
        connections: report.connections,
        failures: report.failures,
        ejections: report.ejections,
        checks: checks.filter(|(_, count)| *count > 0).collect(),
        response_ms: report.response.map(|time| time.as_micros() as f64 / 1000.0),
        share: report.share,
    }
}

/// A reason for each service that is required and has no target of which it is known that it is up.
pub(super) fn not_ready(services: &Services) -> Vec<String> {
    let mut reasons: Vec<_> = services.all().iter().filter_map(|service| reason(service)).collect();
    reasons.sort();
    reasons
}

fn reason(service: &Service) -> Option<String> {
    let config = service.config();
    if !config.required {
        return None;
    }
    let reports = service.targets();
    let is = |state| move |report: &&TargetReport| report.state == state;
    if reports.iter().any(|report| report.state == TargetState::Up) {
        return None;
    }
    let name = &config.name;
    if let Some(down) = reports.iter().find(is(TargetState::Down)) {
        let why = down.reason.as_deref().unwrap_or("checks fail");
        return Some(format!("service {name}: no target is up ({}: {why})", down.target));
    }
    if let Some(ejected) = reports.iter().find(is(TargetState::Ejected)) {
        return Some(format!("service {name}: no target is up ({} cannot be connected to)", ejected.target));
    }
    Some(format!("service {name}: no target was checked yet"))
}

/// How each target of each service is doing, by names.
pub(super) fn states(services: &Services) -> Vec<((String, String), TargetReport)> {
    let of = |service: &Service| {
        let name = service.config().name.clone();
        service.targets().into_iter().map(move |report| ((name.clone(), report.target.to_string()), report))
    };
    services.all().iter().flat_map(|service| of(service).collect::<Vec<_>>()).collect()
}
