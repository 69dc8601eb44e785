//! `longhaul token create`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::CliError;
use super::super::authority::read_authority;
use super::super::clock::now_unix;
use super::super::new_files::{NewFile, write_all};
use super::state::StateArgs;
use crate::base::{SystemEntropy, limits};
use crate::config::{text, values};
use crate::crypto::token::JoinToken;
use crate::enroll::store::Store;
use crate::enroll::{AddressRange, AuditEvent, NamePattern, Role, TokenRecord};

/// Arguments of `longhaul token create`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    /// Name of the node that joins; edge-* lets each node choose a name that begins so
    #[arg(long, value_name = "NAME", value_parser = str::parse::<NamePattern>)]
    name: NamePattern,
    /// Role of the nodes that join; may be given several times
    #[arg(long = "role", value_name = "ROLE", value_parser = str::parse::<Role>)]
    roles: Vec<Role>,
    /// Let guests in, who get no certificate: they prove the token in each session, of which each is one use
    #[arg(long, conflicts_with = "roles")]
    guest: bool,
    /// How long the token is good for, such as 1h or 2d; at most 30d
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = ttl)]
    ttl: Duration,
    /// How many nodes may join with it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TOKEN_USES_MAX)))]
    uses: u32,
    /// Addresses that may use it, such as 192.0.2.0/24
    #[arg(long, value_name = "CIDR", value_parser = str::parse::<AddressRange>)]
    cidr: Option<AddressRange>,
    /// Write the token into a new file, for its owner only, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if args.roles.len() > limits::TOKEN_ROLES_MAX {
        return Err(CliError::Usage(format!("a token gives {} roles at most", limits::TOKEN_ROLES_MAX)));
    }
    // Before there is a token that nobody would get.
    if let Some(path) = args.out.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        return Err(CliError::Usage(format!("{} is there already; name a new file", path.display())));
    }
    let authority = read_authority(&args.state.state)?;
    let store = args.state.open()?;
    let token = JoinToken::generate(authority.spki_sha256(), &mut SystemEntropy::new());
    let now = now_unix();
    let record = TokenRecord {
        id: token.id(),
        public_key: token.public_key(),
        is_for_guests: args.guest,
        name: args.name.clone(),
        roles: args.roles.clone(),
        address_range: args.cidr,
        created_unix: now,
        not_after_unix: now + args.ttl.as_secs(),
        uses_max: args.uses,
        use_count: 0,
        revoked_unix: None,
    };
    store.add_token(&record).map_err(anyhow::Error::new)?;
    args.state.audit(&AuditEvent::TokenCreated(&record))?;
    let mut line = token.to_text();
    line.push('\n');
    match &args.out {
        Some(path) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let file = NewFile { path: path.clone(), contents: &line, is_private: true };
            write_all(directory.unwrap_or(Path::new(".")), &[file], false)?;
        }
        None => io::stdout().lock().write_all(line.as_bytes())?,
    }
    let until = text::date(record.not_after_unix);
    let mut err = io::stderr().lock();
    writeln!(err, "token {} for {}, {} time(s), until {until}", record.id, record.name, record.uses_max)?;
    if args.guest {
        writeln!(err, "next, in the guest's configuration: [identity] token_file = \"FILE\"")?;
    } else {
        writeln!(err, "next, on the new node: longhaul join --token-file FILE HUB:PORT")?;
    }
    Ok(())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = values::duration(text)?;
    let range = Duration::from_secs(1)..=limits::TOKEN_TTL_MAX;
    range.contains(&ttl).then_some(ttl).ok_or_else(|| format!("\"{text}\" is out of range; expected 1s to 30d"))
}
