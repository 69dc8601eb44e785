//! `[renew]`: the node renews its certificate at a hub.

use toml::Spanned;

use super::problem::Problems;
use super::resolve::peer;
use super::{LoadedIdentity, file};
use crate::channel::Address;
use crate::crypto::identity::NodeId;

/// Where and by whom the certificate is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewConfig {
    /// The node that renews it.
    pub hub: NodeId,
    /// Host name or IP address of its enrolment point.
    pub host: String,
    /// The port of it.
    pub port: u16,
}

/// Checks the section; what is wrong goes to `problems`.
pub(super) fn load(
    section: Option<&Spanned<file::Renew>>,
    identity: Option<&LoadedIdentity>,
    problems: &mut Problems,
) -> Option<RenewConfig> {
    let section = section?.get_ref();
    let text = section.address.get_ref();
    let parsed = match format!("tls://{text}").parse::<Address>() {
        Ok(Address::Tls { host, port }) if port != 0 => Ok((host, port)),
        _ => Err(format!("\"{text}\" is no address; expected host:port, such as \"hub.example:7443\"")),
    };
    let address = problems.check(section.address.span(), parsed);
    let hub = peer(&section.hub, identity?.identity.node_id(), problems);
    let ((host, port), hub) = (address?, hub?);
    Some(RenewConfig { hub, host, port })
}
