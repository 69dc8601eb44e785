//! `longhaul node list`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::super::CliError;
use super::super::clock::now_unix;
use super::super::token::StateArgs;
use crate::config::text;
use crate::enroll::store::Store;
use crate::enroll::{Denial, Denied, Issuance};

/// Arguments of `longhaul node list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A node by its newest certificate.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    state: &'static str,
    not_after_unix: i64,
    key: String,
    token: Option<String>,
}

#[derive(Debug, Serialize)]
struct Listed {
    nodes: Vec<Row>,
    revoked: Vec<Revoked>,
}

#[derive(Debug, Serialize)]
struct Revoked {
    what: String,
    since_unix: u64,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let store = args.state.open()?;
    let denials = store.denials().map_err(anyhow::Error::new)?;
    let mut newest = BTreeMap::new();
    for issuance in store.issuances().map_err(anyhow::Error::new)? {
        let age = (issuance.reserved_unix, issuance.not_after_unix);
        let place = newest.entry(issuance.name.clone()).or_insert_with(|| (age, issuance.clone()));
        if place.0 < age {
            *place = (age, issuance);
        }
    }
    let nodes: Vec<_> = newest.into_values().map(|(_, issuance)| row(&issuance, &denials)).collect();
    let revoked =
        denials.iter().map(|denial| Revoked { what: denial.denied.to_string(), since_unix: denial.since_unix });
    let listed = Listed { nodes, revoked: revoked.collect() };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&listed).map_err(anyhow::Error::new)?)?;
        return Ok(());
    }
    for Row { name, state, not_after_unix, key, .. } in &listed.nodes {
        let until = text::date(u64::try_from(*not_after_unix).unwrap_or(0));
        writeln!(out, "{name}  {state}  until {until}  key {key}")?;
    }
    for Revoked { what, since_unix } in &listed.revoked {
        writeln!(out, "revoked  {what}  since {}", text::date(*since_unix))?;
    }
    Ok(())
}

fn row(issuance: &Issuance, denials: &[Denial]) -> Row {
    let denies = |denial: &Denial| match &denial.denied {
        Denied::Node(name) => issuance.name == *name,
        Denied::Key(hash) => issuance.spki_sha256 == *hash,
        Denied::Token(id) => issuance.token_id == Some(*id),
    };
    let state = match () {
        () if denials.iter().any(denies) => "revoked",
        () if issuance.not_after_unix <= i64::try_from(now_unix()).unwrap_or(i64::MAX) => "expired",
        () => "valid",
    };
    Row {
        name: issuance.name.clone(),
        state,
        not_after_unix: issuance.not_after_unix,
        key: issuance.spki_sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        token: issuance.token_id.map(|id| id.to_string()),
    }
}
