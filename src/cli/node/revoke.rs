//! `longhaul node revoke`.

use std::io::{self, Write};

use super::super::CliError;
use super::super::clock::now_unix;
use super::super::token::{StateArgs, no_such_token};
use super::whom::Whom;
use crate::enroll::store::Store;
use crate::enroll::{AuditEvent, Denial, Denied, Issuance};

/// Arguments of `longhaul node revoke`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    whom: Whom,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let store = args.state.open()?;
    let denied = args.whom.denied();
    if let Denied::Token(id) = denied
        && store.token(id).map_err(anyhow::Error::new)?.is_none()
    {
        return Err(no_such_token(id));
    }
    let issued = store.issuances().map_err(anyhow::Error::new)?;
    let meant: Vec<_> = issued.iter().filter(|issuance| is_meant(&denied, issuance)).collect();
    if meant.iter().any(|issuance| issuance.token_id.is_none()) {
        let message = "this is the hub itself; nodes would not even hear that it was let in again".to_owned();
        return Err(CliError::Usage(message));
    }
    store.deny(&Denial { denied: denied.clone(), since_unix: now_unix() }).map_err(anyhow::Error::new)?;
    args.state.audit(&AuditEvent::Denied(&denied))?;
    let mut out = io::stdout().lock();
    writeln!(out, "revoked {denied}; the hub, when it runs, tells the nodes")?;
    if meant.is_empty() {
        writeln!(io::stderr().lock(), "note: nobody has joined here by that; it counts all the same")?;
    }
    Ok(())
}

fn is_meant(denied: &Denied, issuance: &Issuance) -> bool {
    match denied {
        Denied::Node(name) => issuance.name == *name,
        Denied::Key(hash) => issuance.spki_sha256 == *hash,
        Denied::Token(id) => issuance.token_id == Some(*id),
    }
}
