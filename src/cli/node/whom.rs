//! Who is meant: a node by its name, a key, or everything that came by a token.

use crate::crypto::identity::NodeId;
use crate::crypto::token::TokenId;
use crate::enroll::Denied;

/// One of the three.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whom {
    /// Name of the node, whatever its key and its certificate
    #[arg(value_name = "NAME", value_parser = node_name)]
    name: Option<String>,
    /// A key, by the SHA-256 of its SubjectPublicKeyInfo as `longhaul node list` and `longhaul cert show` print it
    #[arg(long, value_name = "SHA256", value_parser = key)]
    key: Option<Denied>,
    /// All nodes that joined by this token, and the token itself
    #[arg(long, value_name = "ID", value_parser = str::parse::<TokenId>)]
    token: Option<TokenId>,
}

impl Whom {
    pub(super) fn denied(&self) -> Denied {
        match (&self.name, &self.key, self.token) {
            (_, Some(key), _) => key.clone(),
            (_, _, Some(id)) => Denied::Token(id),
            (name, ..) => Denied::Node(name.clone().unwrap_or_default()),
        }
    }
}

fn node_name(name: &str) -> Result<String, String> {
    NodeId::new("any", name).map(|_| name.to_owned()).map_err(|error| error.to_string())
}

fn key(digits: &str) -> Result<Denied, String> {
    format!("key:{digits}").parse().map_err(|_| format!("{digits:?} is no SHA-256; expected 64 hexadecimal digits"))
}
