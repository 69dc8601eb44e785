//! `[admin]`: where the operator and his programs ask a running node, and who may change it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ring::digest;
use toml::Spanned;

use super::inherited::is_named;
use super::problem::{Problem, Problems};
use super::resolve::value;
use super::secret_file::read_public;
use super::{ConfigError, Files, file, values};
use crate::base::Secret;
use crate::channel::{Address, UnixOptions};

/// Where a node answers its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens: Unix sockets, and TCP on loopback addresses.
    pub listen: Vec<Address>,
    /// The file of the token.
    pub token_file: Option<PathBuf>,
    /// What a request over TCP has to prove before it changes something; without one it may not.
    pub token: Option<AdminToken>,
    /// Permissions and owner of the Unix sockets: who may write to one may change the node.
    pub unix: AdminSocket,
}

/// Permissions and owner of a socket file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminSocket {
    /// Who may connect, by permissions.
    pub mode: u32,
    /// Owner; `None` leaves this process's.
    pub uid: Option<u32>,
    /// Group; `None` leaves this process's.
    pub gid: Option<u32>,
}

impl From<AdminSocket> for UnixOptions {
    fn from(AdminSocket { mode, uid, gid }: AdminSocket) -> Self {
        Self { mode, uid, gid, ..Self::default() }
    }
}

/// The admin token, of which only the digest is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken(Secret<32>);

impl AdminToken {
    /// The token of a text, surrounding white space left out.
    ///
    /// # Errors
    /// What is wrong with it; never the token itself.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = text.trim_ascii();
        let is_good =
            (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        is_good.then(|| Self(digest_of(text))).ok_or_else(|| {
            format!("expected {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits and signs in one line, such as of `openssl rand -hex 32`")
        })
    }

    /// Whether `presented` is the token. Takes as long for a wrong one as for the right one.
    #[must_use]
    pub fn is(&self, presented: &[u8]) -> bool {
        self.0 == digest_of(presented)
    }
}

fn digest_of(text: &[u8]) -> Secret<32> {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    Secret::new(bytes)
}

/// Checks the section and reads the token; what is wrong goes to `problems`.
pub(super) fn load(
    section: Option<&Spanned<file::Admin>>,
    base: &Path,
    reader: &dyn Files,
    problems: &mut Problems,
) -> Option<AdminConfig> {
    let section = section?.get_ref();
    if section.listen.get_ref().is_empty() {
        problems.push(Problem::new("the section has no address; expected at least one").at(section.listen.span()));
    }
    let listen: Vec<_> = section.listen.get_ref().iter().filter_map(|text| address(text, base, problems)).collect();
    let token_file = section.token_file.as_ref().map(|text| base.join(text.get_ref()));
    let token = section.token_file.as_ref().zip(token_file.as_ref()).and_then(|(text, path)| {
        let bytes = problems.check(text.span(), reader.read_private(path))?;
        let token = AdminToken::parse(&bytes).map_err(|reason| format!("{}: {reason}", path.display()));
        problems.check(text.span(), token)
    });
    let number = |number: &file::Number| number.as_ref().map(|number| *number.get_ref());
    let mode = value(section.mode.as_ref(), values::mode, MODE, problems);
    let unix = AdminSocket { mode, uid: number(&section.uid), gid: number(&section.gid) };
    Some(AdminConfig { listen, token_file, token, unix })
}

/// Where a node answers its operator, of a file of which nothing else is looked at: whoever asks need not be allowed to
/// read the node's key.
#[derive(Clone, Debug)]
pub(crate) struct AdminPlace {
    pub(crate) listen: Vec<Address>,
    pub(crate) token_file: Option<PathBuf>,
}

impl AdminPlace {
    /// Reads `path`.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |problem| ConfigError::new(path, "", vec![problem]);
        let bytes = read_public(path).map_err(|error| failed(Problem::new(error.to_string())))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| failed(Problem::new("the file is not UTF-8")))?;
        let file: file::File = toml::from_str(text).map_err(|error| failed(Problem::new(error.to_string())))?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        let Some(section) = file.admin else {
            let help = "add it with an address to listen on, and restart the node";
            return Err(failed(Problem::new("there is no [admin] section: the node answers nobody").help(help)));
        };
        let section = section.get_ref();
        let mut problems = Problems::default();
        let texts = section.listen.get_ref().iter();
        // Where the sockets of the service manager are is known to the node alone.
        let known = texts.filter(|text| !is_named(text.get_ref()));
        let listen = known.filter_map(|text| address(text, base, &mut problems)).collect();
        let token_file = section.token_file.as_ref().map(|text| base.join(text.get_ref()));
        match problems.into_vec() {
            problems if problems.is_empty() => Ok(Self { listen, token_file }),
            problems => Err(ConfigError::new(path, text, problems)),
        }
    }
}

/// Nothing is encrypted there, and reading needs no token: only what does not leave the machine is taken.
fn address(text: &Spanned<String>, base: &Path, problems: &mut Problems) -> Option<Address> {
    let address = problems.check(text.span(), text.get_ref().parse::<Address>())?;
    match address {
        Address::Unix { path } => Some(Address::Unix { path: base.join(path) }),
        Address::Tcp { ref host, .. }
            if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) =>
        {
            Some(address)
        }
        _ => {
            let message = format!("{address} can be reached from other machines, or is no plain socket");
            let help = "give unix:///path, or tcp:// with a loopback address, such as tcp://127.0.0.1:7445";
            problems.push(Problem::new(message).at(text.span()).help(help));
            None
        }
    }
}

/// Whoever may write to the socket may change the node: its own user and root, unless somebody says more.
const MODE: u32 = 0o600;

/// What cannot be guessed.
const TOKEN_BYTES_MIN: usize = 32;

/// What fits a header with room to spare.
const TOKEN_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_never_shown() {
        let token = AdminToken::parse(b"  0123456789abcdef0123456789abcdef\n").unwrap();
        assert!(token.is(b"0123456789abcdef0123456789abcdef"));
        assert!(!token.is(b"0123456789abcdef0123456789abcdeF"));
        assert!(!format!("{token:?}").contains("0123"));
        for bad in ["", "short", &"x".repeat(TOKEN_BYTES_MAX + 1), "0123456789abcdef 0123456789abcdef"] {
            assert!(AdminToken::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
