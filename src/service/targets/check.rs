//! What a health check asks, and what comes of it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How the health of a service's targets is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// What is asked.
    pub kind: CheckKind,
    /// From the beginning of one check to that of the next, give or take a tenth, or to the end of one that takes longer.
    pub interval: Duration,
    /// For the whole check: name, connection, answer.
    pub timeout: Duration,
    /// Checks in a row that have to succeed until a target that is down is up.
    pub rise: u32,
    /// Checks in a row that have to fail until a target that is up is down.
    pub fall: u32,
}

impl CheckOptions {
    /// A check with everything else as usual.
    #[must_use]
    pub fn new(kind: CheckKind) -> Self {
        Self { kind, interval: INTERVAL, timeout: TIMEOUT, rise: RISE, fall: FALL }
    }
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Nothing: that the target takes the connection is enough.
    Connect,
    /// `GET`, over HTTP/1.1 in the clear.
    Http {
        /// The path, with its query.
        path: String,
        /// `Host`, if it is not that of the address.
        host: Option<String>,
        /// The status codes that are good.
        status: StatusCodes,
    },
    /// Redis's `PING`. A server that wants to know a password first has answered.
    Redis,
}

impl CheckKind {
    /// The word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Http { .. } => "http",
            Self::Redis => "redis",
        }
    }
}

/// Status codes of HTTP: `200`, `200-299`, or several of these with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCodes(Vec<(u16, u16)>);

impl StatusCodes {
    /// Whether a code is among them.
    #[must_use]
    pub fn contain(&self, code: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&code))
    }
}

impl Default for StatusCodes {
    fn default() -> Self {
        Self(vec![(200, 399)])
    }
}

impl fmt::Display for StatusCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last { write!(f, "{comma}{first}") } else { write!(f, "{comma}{first}-{last}") }?;
        }
        Ok(())
    }
}

impl FromStr for StatusCodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let code = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some((code(first)?, code(last)?)).filter(|(first, last)| first <= last)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| {
            format!(
                "\"{text}\" are no status codes; expected \"200\", \"200-299\" or several with commas, from 100 to 599"
            )
        })
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The target answered as it should.
    Ok,
    /// Nobody listens there.
    Refused,
    /// No way leads there, or the name has no address.
    Unreachable(String),
    /// There was no answer in time.
    TimedOut,
    /// There was another answer, or none: what.
    BadAnswer(String),
}

impl CheckOutcome {
    /// The words for them in metrics, in the order of [`index`](Self::index).
    pub const WORDS: [&'static str; 5] = ["ok", "refused", "unreachable", "timed-out", "bad-answer"];

    /// Its place in [`WORDS`](Self::WORDS).
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Refused => 1,
            Self::Unreachable(_) => 2,
            Self::TimedOut => 3,
            Self::BadAnswer(_) => 4,
        }
    }

    /// Whether the target is well.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        *self == Self::Ok
    }
}

impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("check succeeded"),
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::BadAnswer(what) => f.write_str(what),
        }
    }
}

/// A target that dies is noticed within three of them.
const INTERVAL: Duration = Duration::from_secs(5);

/// Targets are near.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One success may be luck.
const RISE: u32 = 2;

/// One failure may be bad luck.
const FALL: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_are_read_as_they_are_written() {
        for text in ["200", "200-299", "200,204,300-399"] {
            assert_eq!(text.parse::<StatusCodes>().unwrap().to_string(), text);
        }
        let codes: StatusCodes = "200, 301-303".parse().unwrap();
        assert_eq!([199, 200, 201, 300, 301, 303, 304].map(|code| codes.contain(code)), {
            [false, true, false, false, true, true, false]
        });
        for bad in ["", "99", "600", "300-200", "2xx", "200-", "200,,201"] {
            assert!(bad.parse::<StatusCodes>().is_err(), "{bad}");
        }
    }
}
