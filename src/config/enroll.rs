//! `[enroll]`: machines with a token may join here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use toml::Spanned;

use super::problem::{Problem, Problems};
use super::resolve::value;
use super::{Files, ListenConfig, LoadedIdentity, file, passphrase, values};
use crate::base::limits;
use crate::channel::Address;
use crate::crypto::identity::{PeerVerifier, Trust, TrustAnchors};
use crate::enroll::files;
use crate::issue::{CertificateAuthority, IssueError};

/// An enrolment point.
#[derive(Clone, Debug)]
pub struct EnrollConfig {
    /// The port of its own: a `tls://` address. Without one, machines join where channels are dialled: at the listeners with
    /// [`enrolls`](crate::channel::ListenOptions::enrolls).
    pub listen: Option<Address>,
    /// The authority's directory.
    pub directory: PathBuf,
    /// Where the passphrase of its key is, as the configuration names it.
    pub passphrase_file: Option<String>,
    /// The authority, which issued this node's own certificate.
    pub authority: Arc<CertificateAuthority>,
    /// How long certificates hold.
    pub certificate_lifetime: Duration,
    /// Where joined nodes are told to dial.
    pub addresses: Vec<Address>,
}

/// Checks the section and loads the authority; what is wrong goes to `problems`.
pub(super) fn load(
    section: Option<&Spanned<file::Enroll>>,
    base: &Path,
    reader: &dyn Files,
    identity: Option<&LoadedIdentity>,
    provider: &Arc<CryptoProvider>,
    problems: &mut Problems,
) -> Option<EnrollConfig> {
    let section = section?.get_ref();
    let listen = section.listen.as_ref().map(|text| problems.check(text.span(), own_port(text.get_ref())));
    let certificate_lifetime =
        value(section.certificate_lifetime.as_ref(), lifetime, limits::NODE_CERTIFICATE_LIFETIME, problems);
    let addresses = section.advertise.as_ref().map(|list| advertised(list, problems)).unwrap_or_default();
    let directory = base.join(section.directory.get_ref());
    let place = section.directory.span();
    let certificate = problems.check(place.clone(), reader.read_public(&directory.join(files::AUTHORITY_CERTIFICATE)));
    let key = problems.check(place.clone(), reader.read_private(&directory.join(files::AUTHORITY_KEY)));
    let (certificate, key) = (certificate?, key?);
    let pem = |bytes| std::str::from_utf8(bytes).map_err(|_| "the authority's files are not PEM".to_owned());
    let certificate = problems.check(place.clone(), pem(&certificate))?;
    let key = problems.check(place.clone(), pem(&key))?;
    let passphrase = match &section.passphrase_file {
        Some(name) => Some(problems.check(name.span(), passphrase::read(name.get_ref(), base, reader))?),
        None => None,
    };
    let authority = CertificateAuthority::read(certificate, key, passphrase.as_ref().map(|bytes| &bytes[..]));
    let place_of_key = section.passphrase_file.as_ref().map_or(place.clone(), Spanned::span);
    let authority = problems.check(
        place_of_key,
        authority.map_err(|error| match error {
            IssueError::KeyEncrypted => format!("{error}: passphrase_file of [enroll]"),
            other => other.to_string(),
        }),
    )?;
    if let Some(identity) = identity
        && let Err(reason) = check_own(identity, &authority, provider)
    {
        let message = format!("the node's own certificate is not from this authority: {reason}");
        problems.push(
            Problem::new(message).at(place).help(
                "whoever joins knows the hub by its authority: use the certificate that `longhaul hub init` made",
            ),
        );
    }
    Some(EnrollConfig {
        listen: listen.map_or(Some(None), |listen| listen.map(Some))?,
        directory,
        passphrase_file: section.passphrase_file.as_ref().map(|name| name.get_ref().clone()),
        authority: Arc::new(authority),
        certificate_lifetime,
        addresses,
    })
}

fn own_port(text: &str) -> Result<Address, String> {
    let address = format!("tls://{text}").parse::<Address>();
    address.map_err(|_| format!("\"{text}\" is no address; expected host:port, such as \"0.0.0.0:7444\""))
}

/// Without a port of its own machines join at all listeners that have one over TCP, of which there has to be one.
pub(super) fn share_listeners(
    section: Option<&Spanned<file::Enroll>>,
    listeners: &mut [ListenConfig],
    problems: &mut Problems,
) {
    let Some(section) = section.filter(|section| section.get_ref().listen.is_none()) else { return };
    let mut is_anywhere = false;
    for listener in listeners.iter_mut() {
        listener.options.enrolls = matches!(listener.address, Address::Tcp { .. } | Address::Tls { .. });
        is_anywhere |= listener.options.enrolls;
    }
    if !is_anywhere {
        let problem = Problem::new("there is no port at which machines could join").at(section.span());
        problems.push(problem.help("add a [[listen]] at a tcp:// or tls:// address, or `listen` to [enroll]"));
    }
}

/// The addresses of listeners, where none are given.
pub(super) fn with_addresses(mut config: EnrollConfig, listeners: &[ListenConfig]) -> EnrollConfig {
    if config.addresses.is_empty() {
        let dialled = |address: &&Address| match address {
            Address::Tcp { port, .. } | Address::Tls { port, .. } | Address::Quic { port, .. } => *port != 0,
            Address::Unix { .. } => false,
        };
        let addresses = listeners.iter().map(|listener| &listener.address).filter(dialled);
        config.addresses = addresses.take(limits::HUB_ADDRESSES_MAX).cloned().collect();
    }
    config
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = values::duration(text)?;
    let range = LIFETIME_MIN..=limits::NODE_CERTIFICATE_LIFETIME_MAX;
    range.contains(&lifetime).then_some(lifetime).ok_or_else(|| {
        format!("\"{text}\" is out of range; expected \"5m\" to \"7d\", as there is no other way to take a node out")
    })
}

fn advertised(list: &Spanned<Vec<Spanned<String>>>, problems: &mut Problems) -> Vec<Address> {
    if list.get_ref().len() > limits::HUB_ADDRESSES_MAX {
        let message = format!("at most {} addresses are told to joined nodes", limits::HUB_ADDRESSES_MAX);
        problems.push(Problem::new(message).at(list.span()));
    }
    let address = |text: &Spanned<String>| {
        let address = problems.check(text.span(), text.get_ref().parse::<Address>())?;
        let is_told = !matches!(address, Address::Unix { .. }) && text.get_ref().len() <= limits::HUB_ADDRESS_BYTES_MAX;
        if !is_told {
            let message = format!("{:?} cannot be dialled by joined nodes", text.get_ref());
            problems.push(Problem::new(message).at(text.span()).help("give tcp://, tls:// or quic:// addresses"));
        }
        Some(address)
    };
    list.get_ref().iter().filter_map(address).collect()
}

/// A machine that joins accepts the hub only under the authority that its token names.
fn check_own(
    identity: &LoadedIdentity,
    authority: &CertificateAuthority,
    provider: &Arc<CryptoProvider>,
) -> Result<(), String> {
    let anchors = TrustAnchors::from_certificates(vec![authority.certificate_der().clone()]);
    let anchors = anchors.map_err(|error| error.to_string())?;
    let trust = Trust::new(authority.trust_domain(), anchors, Arc::clone(provider)).map_err(|e| e.to_string())?;
    let now = UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let verified = PeerVerifier::new(Arc::new(trust), None).verify_chain(identity.identity.chain(), now);
    verified.map(drop).map_err(|failure| failure.to_string())
}

/// Shorter ones would end before clocks agree.
const LIFETIME_MIN: Duration = Duration::from_secs(5 * 60);
