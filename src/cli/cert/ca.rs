//! `longhaul cert ca`: a certificate authority for a trust domain.

use std::io::{self, Write};
use std::path::PathBuf;

use super::super::CliError;
use super::super::new_files::{NewFile, write_all};
use super::days;
use crate::issue::{CertificateAuthority, KeyType, Validity};

/// Arguments of `longhaul cert ca`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Trust domain, such as example or prod.example.org: a-z, 0-9, '.', '-', '_'
    #[arg(long, value_name = "NAME")]
    domain: String,
    /// Directory for ca.crt and ca.key
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long it holds
    #[arg(long, default_value_t = 3650, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Kind of key: p256 or ed25519
    #[arg(long, default_value = "p256", value_name = "TYPE", value_parser = str::parse::<KeyType>)]
    key_type: KeyType,
    /// Overwrite the files if they are there: certificates of the old authority are then worth nothing
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let validity = Validity::from_now(days(args.days));
    let authority = CertificateAuthority::generate(&args.domain, args.key_type, validity)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let key = authority.key_pem();
    let (certificate_path, key_path) = (args.out.join("ca.crt"), args.out.join("ca.key"));
    let files = [
        NewFile { path: key_path.clone(), contents: &key, is_private: true },
        NewFile { path: certificate_path.clone(), contents: authority.certificate_pem(), is_private: false },
    ];
    write_all(&args.out, &files, args.force)?;
    let mut out = io::stdout().lock();
    writeln!(out, "wrote {}: the trust anchor, for every node", certificate_path.display())?;
    writeln!(out, "wrote {}: whoever has it can name nodes; keep it off the nodes", key_path.display())?;
    writeln!(out, "next: longhaul cert node NAME --ca {0} --out {0}", args.out.display())?;
    Ok(())
}
