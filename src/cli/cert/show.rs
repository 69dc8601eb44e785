//! `longhaul cert show`: what the certificates of a file say. Keys in the file are not read.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, KeyUsage};
use x509_parser::prelude::FromDer;

use super::super::CliError;
use crate::config::secret_file::read_public;
use crate::config::text;
use crate::crypto::identity::Roles;

/// Arguments of `longhaul cert show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// PEM file with one or more certificates
    file: PathBuf,
    /// Print one JSON array, an object a certificate
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let pem = read_public(&args.file).map_err(anyhow::Error::new)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| anyhow!("{} is not PEM: {error}", args.file.display()))?;
    if chain.is_empty() {
        return Err(anyhow!("{} has no certificate", args.file.display()).into());
    }
    let facts = chain.iter().map(|der| Facts::read(der)).collect::<anyhow::Result<Vec<_>>>();
    let facts = facts.with_context(|| format!("{} cannot be read", args.file.display()))?;
    let mut out = io::stdout().lock();
    if args.json {
        let json = serde_json::to_string_pretty(&facts).map_err(anyhow::Error::new)?;
        writeln!(out, "{json}")?;
    } else {
        for (index, facts) in facts.iter().enumerate() {
            facts.write(index, &mut out)?;
        }
    }
    Ok(())
}

/// What a certificate says.
#[derive(Debug, Serialize)]
struct Facts {
    names: Vec<String>,
    roles: Vec<String>,
    subject: String,
    issuer: String,
    serial: String,
    not_before_unix: i64,
    not_after_unix: i64,
    spki_sha256: String,
    key_usages: Vec<&'static str>,
    extended_key_usages: Vec<&'static str>,
    is_authority: bool,
}

impl Facts {
    fn read(der: &[u8]) -> anyhow::Result<Self> {
        let (_, certificate) = X509Certificate::from_der(der)?;
        let names = certificate.subject_alternative_name()?;
        let roles = Roles::of_certificate(&CertificateDer::from(der))?;
        let extended = certificate.extended_key_usage()?.map(|usage| usage.value);
        let extended = extended.map(|usage| {
            let kinds = [(usage.any, "any"), (usage.client_auth, "clientAuth"), (usage.server_auth, "serverAuth")];
            kinds.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect()
        });
        Ok(Self {
            names: names.iter().flat_map(|san| &san.value.general_names).map(name).collect(),
            roles: roles.iter().map(ToString::to_string).collect(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            not_before_unix: certificate.validity().not_before.timestamp(),
            not_after_unix: certificate.validity().not_after.timestamp(),
            spki_sha256: hex(digest(&SHA256, certificate.public_key().raw).as_ref()),
            key_usages: certificate.key_usage()?.map(|usage| usages(usage.value)).unwrap_or_default(),
            extended_key_usages: extended.unwrap_or_default(),
            is_authority: certificate.basic_constraints()?.is_some_and(|constraints| constraints.value.ca),
        })
    }

    fn write(&self, index: usize, out: &mut impl Write) -> io::Result<()> {
        let date = |unix: i64| text::date(u64::try_from(unix).unwrap_or(0));
        let kind = if self.is_authority { "authority" } else { "leaf" };
        writeln!(out, "certificate {index} ({kind})")?;
        writeln!(out, "  names        {}", printable(&self.names.join(", ")))?;
        if !self.roles.is_empty() {
            writeln!(out, "  roles        {}", self.roles.join(", "))?;
        }
        writeln!(out, "  subject      {}", printable(&self.subject))?;
        writeln!(out, "  issuer       {}", printable(&self.issuer))?;
        writeln!(out, "  serial       {}", self.serial)?;
        writeln!(out, "  valid        {} to {}", date(self.not_before_unix), date(self.not_after_unix))?;
        writeln!(out, "  usages       {}", [&self.key_usages[..], &self.extended_key_usages].concat().join(", "))?;
        writeln!(out, "  spki sha256  {}", self.spki_sha256)
    }
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::DNSName(dns) => format!("dns:{dns}"),
        other => other.to_string(),
    }
}

/// Without what could command the terminal: the certificate may be anybody's.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn usages(usage: &KeyUsage) -> Vec<&'static str> {
    let kinds = [
        (usage.digital_signature(), "digitalSignature"),
        (usage.key_encipherment(), "keyEncipherment"),
        (usage.key_agreement(), "keyAgreement"),
        (usage.key_cert_sign(), "keyCertSign"),
        (usage.crl_sign(), "cRLSign"),
    ];
    kinds.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
