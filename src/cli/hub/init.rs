//! `longhaul hub init`: a trust domain, with everything that its hub needs.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::super::CliError;
use super::super::authority::PassphraseArgs;
use super::super::cert::days;
use super::super::clock::now_unix;
use super::super::new_files::{NewFile, write_all};
use crate::enroll::store::{RedbStore, Store};
use crate::enroll::{AuditEvent, AuditLog, Issuance, files};
use crate::issue::{CertificateAuthority, IssuedNode, KeyType, Validity};

/// Arguments of `longhaul hub init`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Trust domain, such as example or prod.example.org: a-z, 0-9, '.', '-', '_'
    #[arg(long, value_name = "NAME")]
    domain: String,
    /// Directory for all files; none of them may be there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the hub's node: A-Z, a-z, 0-9, '.', '-', '_'
    #[arg(long, default_value = "hub", value_name = "NAME")]
    name: String,
    /// How long the authority holds
    #[arg(long, default_value_t = 3650, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// How long the hub's own certificate holds
    #[arg(long, default_value_t = 365, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    hub_days: u32,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let usage = |error: crate::issue::IssueError| CliError::Usage(error.to_string());
    if args.name == "ca" {
        return Err(CliError::Usage("a hub cannot be named ca: its files would be the authority's".to_owned()));
    }
    let validity = Validity::from_now(days(args.days));
    let authority = CertificateAuthority::generate(&args.domain, KeyType::P256, validity).map_err(usage)?;
    let hub =
        authority.issue_node(&args.name, KeyType::P256, Validity::from_now(days(args.hub_days))).map_err(usage)?;
    let path = |name: &str| args.out.join(name);
    let (key_name, certificate_name) = (format!("{}.key", args.name), format!("{}.crt", args.name));
    let config_name = format!("{}.toml", args.name);
    let names = [files::AUTHORITY_KEY, files::AUTHORITY_CERTIFICATE, files::STATE, files::AUDIT];
    let own = [&key_name, &certificate_name, &config_name].map(String::as_str);
    if let Some(there) = names.iter().chain(&own).map(|name| path(name)).find(|path| path.symlink_metadata().is_ok()) {
        return Err(
            anyhow!("{} is there already; a trust domain is made in a place of its own", there.display()).into()
        );
    }
    let authority_key = args.passphrase.key_pem(&authority)?;
    let config = config(&args.name, args.passphrase.file());
    let new = |name: &str, contents, is_private| NewFile { path: path(name), contents, is_private };
    write_all(
        &args.out,
        &[
            new(files::AUTHORITY_KEY, &authority_key, true),
            new(files::AUTHORITY_CERTIFICATE, authority.certificate_pem(), false),
            new(&key_name, &hub.key_pem, true),
            new(&certificate_name, &hub.certificate_pem, false),
            new(&config_name, &config, false),
        ],
        false,
    )?;
    let now = now_unix();
    let store = RedbStore::create(&path(files::STATE)).map_err(anyhow::Error::new)?;
    store.record(&issuance(&hub, now)).map_err(anyhow::Error::new)?;
    let made = AuditEvent::HubMade { trust_domain: &args.domain, name: &args.name };
    let audit = path(files::AUDIT);
    AuditLog::new(&audit).append(now, &made).with_context(|| format!("{} cannot be written", audit.display()))?;
    let mut out = io::stdout().lock();
    writeln!(out, "wrote {}: the trust anchor, for every node", path(files::AUTHORITY_CERTIFICATE).display())?;
    writeln!(out, "wrote {}: whoever has it can name nodes; it stays here", path(files::AUTHORITY_KEY).display())?;
    writeln!(out, "wrote {}: tokens and certificates; keep a copy", path(files::STATE).display())?;
    writeln!(out, "wrote {} and {}: the hub's own", path(&certificate_name).display(), path(&key_name).display())?;
    writeln!(out, "wrote {}: edit its addresses and services", path(&config_name).display())?;
    writeln!(out, "next: longhaul run -c {}", path(&config_name).display())?;
    writeln!(out, "then: longhaul token create --state {} --name NODE", args.out.display())?;
    Ok(())
}

/// The hub's own certificate, which keeps its name from being given out.
pub(super) fn issuance(hub: &IssuedNode, now_unix: u64) -> Issuance {
    Issuance {
        token_id: None,
        request_sha256: hub.spki_sha256,
        spki_sha256: hub.spki_sha256,
        name: hub.node_id.name().to_owned(),
        roles: Vec::new(),
        address: None,
        serial: hub.serial,
        reserved_unix: now_unix,
        not_before_unix: hub.validity.not_before_unix(),
        not_after_unix: hub.validity.not_after_unix(),
        certificate: Some(hub.certificate_der.clone()),
        replaces: None,
        anchors_sha256: None,
    }
}

fn config(name: &str, passphrase_file: Option<String>) -> String {
    let passphrase = passphrase_file.map(|file| format!("passphrase_file = {file:?}\n")).unwrap_or_default();
    format!(
        "\
# The hub, as `longhaul hub init` made it. Every option: examples/config/full.toml.

[identity]
certificate = \"{name}.crt\"
key = \"{name}.key\"
trust_anchors = \"{}\"

# Where nodes dial in, and machines with a token join.
[[listen]]
address = \"tcp://0.0.0.0:7443\"

# Lets machines join at the port above; `listen = \"0.0.0.0:7444\"` gives them one of their own.
[enroll]
directory = \".\"
{passphrase}
# What nodes may reach here:
#[[service]]
#name = \"web\"
#target = \"tcp://127.0.0.1:8080\"
",
        files::AUTHORITY_CERTIFICATE
    )
}
