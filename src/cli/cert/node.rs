//! `longhaul cert node`: a key and a certificate for a node.

use std::io::{self, Write};
use std::path::PathBuf;

use super::super::CliError;
use super::super::authority::read_authority;
use super::super::new_files::{NewFile, write_all};
use super::days;
use crate::config::text;
use crate::crypto::identity::{Role, Roles};
use crate::issue::{KeyType, Validity};

/// Arguments of `longhaul cert node`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the node: A-Z, a-z, 0-9, '.', '-', '_'
    name: String,
    /// Directory with ca.crt and ca.key
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Directory for NAME.crt and NAME.key, and for ca.crt if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Role of the node, for the policies of services; may be given several times
    #[arg(long = "role", value_name = "ROLE", value_parser = str::parse::<Role>)]
    roles: Vec<Role>,
    /// How long it holds; never longer than the authority
    #[arg(long, default_value_t = 365, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Kind of key: p256 or ed25519
    #[arg(long, default_value = "p256", value_name = "TYPE", value_parser = str::parse::<KeyType>)]
    key_type: KeyType,
    /// Overwrite the node's files if they are there, as to renew a certificate
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if args.name == "ca" {
        return Err(CliError::Usage("a node cannot be named ca: its files would be the authority's".to_owned()));
    }
    let authority = read_authority(&args.ca)?;
    let validity = Validity::from_now(days(args.days));
    let roles = Roles::new(args.roles.iter().cloned()).map_err(|error| CliError::Usage(error.to_string()))?;
    let node = authority
        .issue_node_with(&args.name, &roles, args.key_type, validity)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let path = |suffix: &str| args.out.join(format!("{}.{suffix}", args.name));
    let files = [
        NewFile { path: path("key"), contents: &node.key_pem, is_private: true },
        NewFile { path: path("crt"), contents: &node.certificate_pem, is_private: false },
    ];
    write_all(&args.out, &files, args.force)?;
    let anchor = args.out.join("ca.crt");
    let has_anchor = anchor.symlink_metadata().is_ok();
    if !has_anchor {
        let contents = authority.certificate_pem();
        write_all(&args.out, &[NewFile { path: anchor.clone(), contents, is_private: false }], false)?;
    }
    let end = text::date(u64::try_from(node.validity.not_after_unix()).unwrap_or(0));
    let mut out = io::stdout().lock();
    writeln!(out, "wrote {}: {}, until {end}", path("crt").display(), node.node_id)?;
    writeln!(out, "wrote {}: its private key, for this node only", path("key").display())?;
    if !has_anchor {
        writeln!(out, "wrote {}: the trust anchor", anchor.display())?;
    }
    writeln!(out, "next: name the three files under [identity] and run: longhaul check-config -c FILE")?;
    Ok(())
}
