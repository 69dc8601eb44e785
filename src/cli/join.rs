//! `longhaul join`: makes this machine a node of a trust domain, with a token.
//!
//! The key and the request are written before the hub is asked, and kept until everything else is there: after a crash
//! on either side the same command asks for the same certificate again, which the hub gives without counting it twice.

mod place;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::time_provider::DefaultTimeProvider;
use zeroize::Zeroizing;

use self::place::Place;
use super::CliError;
use super::pem::pem;
use crate::config::secret_file::read_private;
use crate::config::text;
use crate::crypto::identity::{NodeId, default_provider};
use crate::crypto::token::JoinToken;
use crate::enroll::{Join, JoinError, Joined};

/// Arguments of `longhaul join`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The hub's enrolment point, as HOST:PORT
    hub: String,
    /// File with the token, for its owner only; otherwise LONGHAUL_TOKEN in the environment, otherwise standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Directory for the node's files
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// Name of the node; needed if the token is for names that begin alike
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    name: Option<String>,
    /// Join anew although the directory has a node already, with a new key
    #[arg(long)]
    force: bool,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let (host, port) = split(&args.hub)?;
    let place = Place::new(&args.out);
    if !args.force
        && let Some((node_id, until)) = place.existing()?
    {
        let mut out = io::stdout().lock();
        writeln!(out, "this is {node_id} already, until {}; --force joins anew", text::date(until))?;
        return Ok(say_next(&place, &mut out)?);
    }
    let token = read_token(args.token_file.as_deref())?;
    let request = place.request()?;
    let join = Join {
        host,
        port,
        token: &token,
        name: args.name.as_deref().unwrap_or_default(),
        certificate_request: &request,
        provider: default_provider(),
        time: Arc::new(DefaultTimeProvider),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let joined = runtime.block_on(join.run()).map_err(|error| failed(&error))?;
    let certificate = pem(&joined.certificate);
    place.finish(&certificate, &pem(&joined.authority), &config(&joined, &args.hub))?;
    let mut out = io::stdout().lock();
    writeln!(out, "joined as {}, let in by {}", joined.node_id, joined.hub)?;
    place.files().iter().try_for_each(|(path, what)| writeln!(out, "wrote {}: {what}", path.display()))?;
    if joined.addresses.is_empty() {
        writeln!(out, "the hub told no address: add one to the [[link]]")?;
    }
    Ok(say_next(&place, &mut out)?)
}

fn say_next(place: &Place, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "next: longhaul run -c {}", place.config().display())
}

fn failed(error: &JoinError) -> CliError {
    let message = error.to_string();
    match error {
        JoinError::Unreachable { .. } => CliError::Unreachable(message),
        JoinError::NotTheHub { .. } | JoinError::Refused | JoinError::BadAnswer { .. } => CliError::Refused(message),
        _ => CliError::Runtime(anyhow::anyhow!(message)),
    }
}

/// From a file, the environment or standard input: arguments can be seen by every user of the machine.
fn read_token(file: Option<&Path>) -> Result<JoinToken, CliError> {
    let text = match (file, std::env::var(TOKEN_VARIABLE)) {
        (Some(path), _) => {
            let bytes = read_private(path).map_err(anyhow::Error::new)?;
            let text = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
            text.map_err(|_| CliError::Usage(format!("{} is no text", path.display())))?
        }
        (None, Ok(text)) => Zeroizing::new(text),
        (None, Err(_)) if io::stdin().is_terminal() => {
            let message = "no token; give --token-file FILE, LONGHAUL_TOKEN in the environment, or standard input";
            return Err(CliError::Usage(message.to_owned()));
        }
        (None, Err(_)) => {
            let mut text = Zeroizing::new(String::with_capacity(INPUT_BYTES_MAX));
            io::stdin().lock().take(INPUT_BYTES_MAX as u64).read_to_string(&mut text)?;
            text
        }
    };
    JoinToken::parse(&text).map_err(|error| CliError::Usage(error.to_string()))
}

fn split(hub: &str) -> Result<(&str, u16), CliError> {
    let bad = || CliError::Usage(format!("{hub:?} is no address; expected HOST:PORT, such as hub.example:7443"));
    let (host, port) = hub.rsplit_once(':').ok_or_else(bad)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| bad())?;
    if host.is_empty() || host.contains('/') || port == 0 { Err(bad()) } else { Ok((host, port)) }
}

fn node_name(name: &str) -> Result<String, String> {
    NodeId::new("any", name).map(|_| name.to_owned()).map_err(|error| error.to_string())
}

/// What a node needs to be there; services and forwards are for its operator to add.
fn config(joined: &Joined, enrolment_point: &str) -> String {
    let urls: Vec<_> = joined.addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let comment = if urls.is_empty() { "#" } else { "" };
    let addresses = if urls.is_empty() { "\"tcp://HOST:7443\"".to_owned() } else { urls.join(", ") };
    format!(
        "\
# {name}, as `longhaul join` made it. Every option: examples/config/full.toml.

[identity]
certificate = \"{certificate}\"
key = \"{key}\"
trust_anchors = \"{anchors}\"

# Renews the certificate there at two thirds of its life, by itself.
[renew]
hub = \"{hub}\"
address = \"{enrolment_point}\"

{comment}[[link]]
{comment}peer = \"{hub}\"
{comment}addresses = [{addresses}]

# A local port that leads to a service of the hub:
#[[forward]]
#listen = \"tcp://127.0.0.1:8080\"
#peer = \"{hub}\"
#service = \"web\"
",
        name = joined.node_id,
        hub = joined.hub.name(),
        certificate = place::CERTIFICATE,
        key = place::KEY,
        anchors = place::ANCHORS,
    )
}

/// Where a token can be, so that it is no argument.
const TOKEN_VARIABLE: &str = "LONGHAUL_TOKEN";

/// Far more than a token, so that one with something behind it is told as such.
const INPUT_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubs_are_host_and_port() {
        assert_eq!(split("hub.example:7443").unwrap(), ("hub.example", 7443));
        assert_eq!(split("[2001:db8::1]:7443").unwrap(), ("2001:db8::1", 7443));
        for bad in ["hub", "hub:", ":1", "hub:0", "hub:70000", "tcp://hub:1"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
