//! The audit log: one JSON object a line, only ever appended. Tokens appear by their ids, secrets not at all. A file that is
//! full is put aside, and of those a bounded number is kept.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;

use super::{Denied, Refusal, TokenRecord};
use crate::base::limits;
use crate::crypto::token::TokenId;

/// Something that an auditor wants to know.
#[derive(Clone, Debug)]
pub enum AuditEvent<'a> {
    /// The trust domain was made.
    HubMade {
        /// Its name.
        trust_domain: &'a str,
        /// The hub's own name.
        name: &'a str,
    },
    /// A token was made.
    TokenCreated(&'a TokenRecord),
    /// A token was revoked.
    TokenRevoked(TokenId),
    /// A token got too many wrong proofs.
    TokenLocked {
        /// Which.
        token_id: TokenId,
        /// Where the last one came from.
        address: IpAddr,
    },
    /// A certificate was given out, for the first time or again.
    CertificateIssued {
        /// By which token.
        token_id: TokenId,
        /// To whom.
        name: &'a str,
        /// To where.
        address: IpAddr,
        /// Its serial number.
        serial: [u8; 16],
        /// Its end, in seconds since 1970.
        not_after_unix: i64,
    },
    /// A node got its next certificate.
    CertificateRenewed {
        /// By which token it once joined, if by one.
        token_id: Option<TokenId>,
        /// Which node.
        name: &'a str,
        /// From where it came; `None` for the hub itself.
        address: Option<IpAddr>,
        /// The certificate's serial number.
        serial: [u8; 16],
        /// Its end, in seconds since 1970.
        not_after_unix: i64,
    },
    /// A node with a certificate did not get the next one.
    RenewalRefused {
        /// Which.
        name: &'a str,
        /// From where it came.
        address: Option<IpAddr>,
        /// Why.
        reason: Refusal,
        /// How many more refusals there were since the last line like this.
        suppressed_count: u64,
    },
    /// A step from one authority to another was made.
    AuthorityRotated {
        /// Which.
        step: &'static str,
    },
    /// A peer's session with the hub began.
    SessionUp {
        /// The peer.
        name: &'a str,
        /// The session.
        session: String,
        /// Whether the peer began it with early data, which was taken.
        began_early: bool,
    },
    /// Tickets were declined, and with them the early data behind them: their peers had to show their certificates.
    TicketsDeclined {
        /// Why: `unknown`, `expired` or `untrusted`.
        reason: &'static str,
        /// How many since the last line with this reason.
        count: u64,
    },
    /// It ended.
    SessionDown {
        /// The peer.
        name: &'a str,
        /// The session.
        session: String,
        /// Why.
        reason: String,
    },
    /// Something was put on the denylist.
    Denied(&'a Denied),
    /// Something was taken off the denylist.
    Allowed(&'a Denied),
    /// A guest was let in, for one session.
    GuestAdmitted {
        /// By which token.
        token_id: TokenId,
        /// As whom.
        name: &'a str,
        /// From where; unspecified for a Unix socket.
        address: IpAddr,
    },
    /// A guest was refused.
    GuestRefused {
        /// Which token it named.
        token_id: TokenId,
        /// Where it came from; unspecified for a Unix socket.
        address: IpAddr,
        /// Why.
        reason: Refusal,
        /// How many refusals more there were since the last line like this.
        suppressed_count: u64,
    },
    /// Somebody was refused.
    EnrolmentRefused {
        /// Which token, if the message named one.
        token_id: Option<TokenId>,
        /// Where it came from.
        address: IpAddr,
        /// Why.
        reason: Refusal,
        /// How many more there were since the last line like this.
        suppressed_count: u64,
    },
}

const CERTIFICATE_ISSUED: &str = "certificate-issued";
const CERTIFICATE_RENEWED: &str = "certificate-renewed";
const ENROLMENT_REFUSED: &str = "enrolment-refused";
const RENEWAL_REFUSED: &str = "renewal-refused";
const GUEST_ADMITTED: &str = "guest-admitted";
const GUEST_REFUSED: &str = "guest-refused";
const TOKEN_LOCKED: &str = "token-locked";

/// What the audit log says of those who come to be let in.
pub(super) const ADMISSION_EVENTS: [&str; 7] = [
    CERTIFICATE_ISSUED,
    CERTIFICATE_RENEWED,
    ENROLMENT_REFUSED,
    RENEWAL_REFUSED,
    GUEST_ADMITTED,
    GUEST_REFUSED,
    TOKEN_LOCKED,
];

/// A line: the same fields for every event, as far as they say something.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    early_data: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<u64>,
}

/// Appends to the audit log of an authority.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    turn: Mutex<()>,
    bytes_max: u64,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl AuditLog {
    /// The log at `path`, which is made with the first event.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            turn: Mutex::default(),
            bytes_max: limits::AUDIT_FILE_BYTES_MAX,
            counts: Mutex::default(),
        }
    }

    /// Appends an event. It has reached the disk when this returns. A file that is full is
    /// put aside before. It is opened each time, so that it can be renamed from outside too.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&self, now_unix: u64, event: &AuditEvent<'_>) -> io::Result<()> {
        let line = line(now_unix, event);
        let (name, times) = (line.event, 1 + line.suppressed.unwrap_or_default());
        let mut line = serde_json::to_vec(&line).map_err(io::Error::other)?;
        line.push(b'\n');
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = self.open_in_turn()?;
        let size = file.metadata()?.len();
        if size > 0 && size.saturating_add(line.len() as u64) > self.bytes_max {
            self.rotate()?;
            file = self.open()?;
        }
        // One write: lines of several processes do not mix.
        file.write_all(&line)?;
        file.sync_data()?;
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += times;
        Ok(())
    }

    /// How often each event happened that this value has written, those included that a later line says were left out.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The files of the log at `path` that are there, oldest first.
    #[must_use]
    pub fn parts(path: &Path) -> Vec<PathBuf> {
        let parts = (0..limits::AUDIT_FILES_MAX).rev().map(|age| part(path, age));
        parts.filter(|part| part.exists()).collect()
    }

    /// Opens the file, and waits for other processes: who has it may be about to rename it.
    fn open_in_turn(&self) -> io::Result<File> {
        loop {
            let file = self.open()?;
            file.lock()?;
            if is_same_file(&file, &self.path)? {
                return Ok(file);
            }
        }
    }

    /// Makes every file one older; the oldest is gone then. An end in the middle leaves one out, and loses no other.
    fn rotate(&self) -> io::Result<()> {
        for age in (0..limits::AUDIT_FILES_MAX - 1).rev() {
            match std::fs::rename(part(&self.path, age), part(&self.path, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path)
    }
}

/// The file of an age: `audit.jsonl`, and before it `audit.1.jsonl`, `audit.2.jsonl`.
fn part(path: &Path, age: usize) -> PathBuf {
    if age == 0 {
        return path.to_owned();
    }
    let ending = path.extension().map(|ending| format!(".{}", ending.display())).unwrap_or_default();
    path.with_extension("").with_added_extension(format!("{age}{ending}"))
}

#[cfg(unix)]
fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match path.metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Nobody renames an open file there.
#[cfg(not(unix))]
fn is_same_file(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

fn line<'a>(now_unix: u64, event: &AuditEvent<'a>) -> Line<'a> {
    let line = Line { time: date(i64::try_from(now_unix).unwrap_or(i64::MAX)), ..Line::default() };
    match event {
        AuditEvent::HubMade { trust_domain, name } => {
            Line { event: "hub-made", trust_domain: Some(trust_domain), name: Some((*name).to_owned()), ..line }
        }
        AuditEvent::TokenCreated(token) => Line {
            event: "token-created",
            token: Some(token.id.to_string()),
            name: Some(token.name.to_string()),
            uses: Some(token.uses_max),
            not_after: Some(date(i64::try_from(token.not_after_unix).unwrap_or(i64::MAX))),
            ..line
        },
        AuditEvent::TokenRevoked(id) => Line { event: "token-revoked", token: Some(id.to_string()), ..line },
        AuditEvent::TokenLocked { token_id, address } => {
            Line { event: TOKEN_LOCKED, token: Some(token_id.to_string()), address: Some(*address), ..line }
        }
        AuditEvent::CertificateIssued { token_id, name, address, serial, not_after_unix } => Line {
            event: CERTIFICATE_ISSUED,
            token: Some(token_id.to_string()),
            name: Some((*name).to_owned()),
            address: Some(*address),
            serial: Some(super::records::hex::digits(serial)),
            not_after: Some(date(*not_after_unix)),
            ..line
        },
        AuditEvent::CertificateRenewed { token_id, name, address, serial, not_after_unix } => Line {
            event: CERTIFICATE_RENEWED,
            token: token_id.map(|id| id.to_string()),
            name: Some((*name).to_owned()),
            address: *address,
            serial: Some(super::records::hex::digits(serial)),
            not_after: Some(date(*not_after_unix)),
            ..line
        },
        AuditEvent::RenewalRefused { name, address, reason, suppressed_count } => Line {
            event: RENEWAL_REFUSED,
            name: Some((*name).to_owned()),
            address: *address,
            reason: Some(reason.to_string()),
            suppressed: (*suppressed_count > 0).then_some(*suppressed_count),
            ..line
        },
        AuditEvent::GuestAdmitted { token_id, name, address } => Line {
            event: GUEST_ADMITTED,
            token: Some(token_id.to_string()),
            name: Some((*name).to_owned()),
            address: Some(*address),
            ..line
        },
        AuditEvent::GuestRefused { token_id, address, reason, suppressed_count } => Line {
            event: GUEST_REFUSED,
            token: Some(token_id.to_string()),
            address: Some(*address),
            reason: Some(reason.to_string()),
            suppressed: (*suppressed_count > 0).then_some(*suppressed_count),
            ..line
        },
        AuditEvent::AuthorityRotated { step } => Line { event: "authority-rotated", step: Some(step), ..line },
        AuditEvent::SessionUp { name, session, began_early } => Line {
            event: "session-up",
            name: Some((*name).to_owned()),
            session: Some(session.clone()),
            early_data: began_early.then_some("accepted"),
            ..line
        },
        AuditEvent::TicketsDeclined { reason, count } => {
            Line { event: "tickets-declined", reason: Some((*reason).to_owned()), count: Some(*count), ..line }
        }
        AuditEvent::SessionDown { name, session, reason } => Line {
            event: "session-down",
            name: Some((*name).to_owned()),
            session: Some(session.clone()),
            reason: Some(reason.clone()),
            ..line
        },
        AuditEvent::Denied(denied) => Line { event: "revoked", denied: Some(denied.to_string()), ..line },
        AuditEvent::Allowed(denied) => Line { event: "unrevoked", denied: Some(denied.to_string()), ..line },
        AuditEvent::EnrolmentRefused { token_id, address, reason, suppressed_count } => Line {
            event: ENROLMENT_REFUSED,
            token: token_id.map(|id| id.to_string()),
            address: Some(*address),
            reason: Some(reason.to_string()),
            suppressed: (*suppressed_count > 0).then_some(*suppressed_count),
            ..line
        },
    }
}

/// A time after RFC 3339.
fn date(unix: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix).map_or_else(
        |_| format!("{unix} s after 1970"),
        |at| {
            let (month, day) = (u8::from(at.month()), at.day());
            let (hour, minute, second) = at.to_hms();
            format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", at.year())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_appended_as_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let log = AuditLog::new(&path);
        let token_id = TokenId::from_bytes([1; 10]);
        let address = "192.0.2.7".parse().unwrap();
        log.append(1_800_000_000, &AuditEvent::HubMade { trust_domain: "example", name: "hub" }).unwrap();
        let issued = AuditEvent::CertificateIssued {
            token_id,
            name: "dc-b",
            address,
            serial: [0x40; 16],
            not_after_unix: 1_800_086_400,
        };
        log.append(1_800_000_001, &issued).unwrap();
        let refused = AuditEvent::EnrolmentRefused {
            token_id: Some(token_id),
            address,
            reason: Refusal::UsedUp,
            suppressed_count: 3,
        };
        log.append(1_800_000_002, &refused).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!(
                "{{\"time\":\"2027-01-15T08:00:00Z\",\"event\":\"hub-made\",\"name\":\"hub\",\"trust_domain\":\"example\"}}\n\
                 {{\"time\":\"2027-01-15T08:00:01Z\",\"event\":\"certificate-issued\",\"token\":\"{token_id}\",\
                 \"name\":\"dc-b\",\"address\":\"192.0.2.7\",\"serial\":\"{}\",\"not_after\":\"2027-01-16T08:00:00Z\"}}\n\
                 {{\"time\":\"2027-01-15T08:00:02Z\",\"event\":\"enrolment-refused\",\"token\":\"{token_id}\",\
                 \"address\":\"192.0.2.7\",\"reason\":\"used-up\",\"suppressed\":3}}\n",
                "40".repeat(16)
            )
        );
        assert_eq!(AuditLog::parts(&path), [path]);
        assert!(
            AuditLog::new(&directory.path().join("no/audit.jsonl"))
                .append(0, &AuditEvent::TokenRevoked(token_id))
                .is_err()
        );
    }

    #[test]
    fn a_full_log_is_put_aside_and_the_oldest_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let append = |number: u64| {
            // Each by another process, as it were.
            let log = AuditLog { bytes_max: 200, ..AuditLog::new(&path) };
            log.append(number, &AuditEvent::HubMade { trust_domain: "example", name: "hub" }).unwrap();
        };
        let all = || {
            let parts = AuditLog::parts(&path).into_iter().map(|part| std::fs::read_to_string(part).unwrap());
            parts.collect::<String>()
        };
        (0..10).for_each(append);
        assert_eq!(AuditLog::parts(&path).len(), 5, "two lines a file");
        assert!(directory.path().join("audit.1.jsonl").exists());
        let times: Vec<String> = all().lines().map(|line| line[..29].to_owned()).collect();
        assert_eq!(times.len(), 10);
        assert!(times.is_sorted(), "{times:?}");
        (10..100).for_each(append);
        assert_eq!(AuditLog::parts(&path).len(), limits::AUDIT_FILES_MAX);
        let all = all();
        assert_eq!(all.lines().count(), 2 * limits::AUDIT_FILES_MAX);
        assert!(all.lines().last().unwrap().contains("1970-01-01T00:01:39Z"), "{all}");
    }
}
