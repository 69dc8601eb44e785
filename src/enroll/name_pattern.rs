//! Which names a token may give.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::crypto::identity::NodeId;

/// One name of a node, or all that begin alike: `dc-b`, `edge-*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NamePattern {
    /// This name.
    Exact(String),
    /// Names that begin so and go on. Each is given to one key at a time.
    Prefix(String),
}

impl NamePattern {
    /// The name that somebody gets who asks for `asked`, where empty asks for the one name there is.
    #[must_use]
    pub fn resolve<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        match self {
            Self::Exact(name) => (asked.is_empty() || asked == name).then_some(name),
            Self::Prefix(prefix) => {
                let goes_on = asked.len() > prefix.len() && asked.starts_with(prefix.as_str());
                (goes_on && NodeId::new(ANY_DOMAIN, asked).is_ok()).then_some(asked)
            }
        }
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is no name; expected 1 to 64 of A-Z, a-z, 0-9, '.', '-', '_', and perhaps a '*' at the end"
            )
        };
        let is_name = |name: &str| NodeId::new(ANY_DOMAIN, name).is_ok();
        match text.strip_suffix('*') {
            // A letter more has to fit.
            Some(prefix) => is_name(&format!("{prefix}x")).then(|| Self::Prefix(prefix.to_owned())).ok_or_else(bad),
            None => is_name(text).then(|| Self::Exact(text.to_owned())).ok_or_else(bad),
        }
    }
}

impl TryFrom<String> for NamePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Names are checked as those of a node of some domain.
const ANY_DOMAIN: &str = "any";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_gives_its_names_alone() {
        let exact: NamePattern = "dc-b".parse().unwrap();
        assert_eq!(
            (exact.resolve(""), exact.resolve("dc-b"), exact.resolve("dc-bb")),
            (Some("dc-b"), Some("dc-b"), None)
        );
        let edge: NamePattern = "edge-*".parse().unwrap();
        assert_eq!(edge.resolve("edge-7"), Some("edge-7"));
        for bad in ["", "edge-", "edg", "dc-edge-7", "edge-/x", "edge-*", &format!("edge-{}", "x".repeat(60))] {
            assert_eq!(edge.resolve(bad), None, "{bad}");
        }
        for text in ["dc-b", "edge-*", "*"] {
            assert_eq!(text.parse::<NamePattern>().unwrap().to_string(), text);
        }
        for bad in ["", "a b", "*-edge", "a**", "..", &"x".repeat(65), &format!("{}*", "x".repeat(64))] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }
}
