//! One health check over a socket: connects, asks, reads as much of the answer as decides, and closes.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::check::{CheckKind, CheckOutcome, StatusCodes};
use crate::base::limits;
use crate::channel::{Address, DialError, DialOptions, dial};
use crate::service::proxy_protocol::{ProxyHeader, ProxyVersion};
use crate::service::socket::{Socket, local_tcp_options};

/// What one check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) address: Address,
    pub(super) kind: CheckKind,
    /// The target expects a header first. That of a check names no client.
    pub(super) proxy_protocol: Option<ProxyVersion>,
    pub(super) timeout: Duration,
}

impl Probe {
    /// Makes the check. A host name is resolved for each one.
    pub(super) async fn run(&self) -> CheckOutcome {
        let checking = async {
            match self.ask().await {
                Ok(()) => CheckOutcome::Ok,
                Err(outcome) => outcome,
            }
        };
        tokio::time::timeout(self.timeout, checking).await.unwrap_or(CheckOutcome::TimedOut)
    }

    async fn ask(&self) -> Result<(), CheckOutcome> {
        let options = DialOptions { tcp: local_tcp_options(), timeout: self.timeout, ..DialOptions::default() };
        let connection = dial(&self.address, &options).await.map_err(|error| outcome_of_dial(&error))?;
        let no_socket = || CheckOutcome::Unreachable("not an address of an application".to_owned());
        let mut socket = Socket::from_connection(connection).ok_or_else(no_socket)?;
        let mut question = self.proxy_protocol.map(|version| ProxyHeader::Unknown.encode(version)).unwrap_or_default();
        question.extend_from_slice(&self.question());
        write(&mut socket, &question).await.map_err(|error| broken(&error))?;
        match &self.kind {
            CheckKind::Connect => Ok(()),
            CheckKind::Http { status, .. } => check_status(&first_line(&mut socket).await?, status),
            CheckKind::Redis => check_pong(&first_line(&mut socket).await?),
        }
    }

    fn question(&self) -> Vec<u8> {
        match &self.kind {
            CheckKind::Connect => Vec::new(),
            CheckKind::Redis => b"*1\r\n$4\r\nPING\r\n".to_vec(),
            CheckKind::Http { path, host, .. } => {
                let host = host.clone().unwrap_or_else(|| host_of(&self.address));
                let agent = concat!("longhaul/", env!("CARGO_PKG_VERSION"));
                format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
                )
                .into_bytes()
            }
        }
    }
}

/// What a request names as its host (RFC 9112 §3.2).
fn host_of(address: &Address) -> String {
    match address {
        Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Address::Tcp { host, port } => format!("{host}:{port}"),
        _ => "localhost".to_owned(),
    }
}

async fn write(socket: &mut Socket, bytes: &[u8]) -> io::Result<()> {
    let stream: &mut (dyn AsyncWrite + Unpin + Send) = match socket {
        Socket::Tcp(stream) => stream,
        Socket::Unix(stream) => stream,
    };
    stream.write_all(bytes).await
}

/// The first line of an answer, without its end.
async fn first_line(socket: &mut Socket) -> Result<String, CheckOutcome> {
    let mut answer = BytesMut::new();
    loop {
        if let Some(end) = answer.iter().position(|byte| *byte == b'\n') {
            return Ok(shown(&answer[..end]));
        }
        if answer.len() >= limits::CHECK_LINE_BYTES_MAX {
            let text = shown(&answer.copy_to_bytes(SHOWN_BYTES));
            return Err(CheckOutcome::BadAnswer(format!("expected a line, got \"{text}…\"")));
        }
        answer.reserve(limits::CHECK_LINE_BYTES_MAX);
        if socket.read(&mut answer).await.map_err(|error| broken(&error))? == 0 {
            return Err(CheckOutcome::BadAnswer("closed the connection before it had answered".to_owned()));
        }
    }
}

fn check_status(line: &str, good: &StatusCodes) -> Result<(), CheckOutcome> {
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    match words.next().and_then(|code| code.parse::<u16>().ok()).filter(|_| is_http) {
        Some(code) if good.contain(code) => Ok(()),
        Some(code) => Err(CheckOutcome::BadAnswer(format!("answered with status {code}, expected {good}"))),
        None => Err(CheckOutcome::BadAnswer(format!("expected HTTP, got \"{}\"", cut(line)))),
    }
}

/// One that wants a password before anything else works as a server. One that loads its data, or whose master is gone,
/// says so, and does not.
fn check_pong(line: &str) -> Result<(), CheckOutcome> {
    if line == "+PONG" || line.starts_with("-NOAUTH ") {
        return Ok(());
    }
    Err(CheckOutcome::BadAnswer(format!("expected +PONG, got \"{}\"", cut(line))))
}

fn outcome_of_dial(error: &DialError) -> CheckOutcome {
    match error {
        DialError::Refused { .. } => CheckOutcome::Refused,
        DialError::TimedOut { .. } => CheckOutcome::TimedOut,
        other => CheckOutcome::Unreachable(cut(&other.to_string()).to_owned()),
    }
}

fn broken(error: &io::Error) -> CheckOutcome {
    CheckOutcome::BadAnswer(format!("the connection broke: {error}"))
}

/// What an answer says, fit for a log.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes));
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// As much of a text as a line of the log has room for.
fn cut(text: &str) -> &str {
    text.char_indices().nth(SHOWN_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// Enough to recognise what it is.
const SHOWN_CHARS: usize = 160;

/// The same of an answer that has no end.
const SHOWN_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(outcome: Result<(), CheckOutcome>) -> String {
        match outcome {
            Err(CheckOutcome::BadAnswer(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_are_judged_by_their_first_line() {
        let good = StatusCodes::default();
        assert_eq!(check_status("HTTP/1.1 204 No Content", &good), Ok(()));
        assert_eq!(check_status("HTTP/1.0 200", &good), Ok(()));
        assert_eq!(bad(check_status("HTTP/1.1 503 Busy", &good)), "answered with status 503, expected 200-399");
        for other in ["", "SSH-2.0-x", "HTTP/2 200", "HTTP/1.1 ok", "200"] {
            assert!(bad(check_status(other, &good)).starts_with("expected HTTP"), "{other}");
        }
        assert_eq!(check_pong("+PONG"), Ok(()));
        assert_eq!(check_pong("-NOAUTH Authentication required."), Ok(()));
        for other in ["-LOADING Redis is loading", "-MASTERDOWN x", "+PONGO", "HTTP/1.1 400 Bad Request"] {
            assert!(bad(check_pong(other)).contains(other));
        }
    }

    #[test]
    fn what_an_answer_says_is_fit_for_a_log() {
        assert_eq!(shown(b"a\x1b[2Jb\r"), "a\u{fffd}[2Jb");
        assert_eq!(cut(&"ä".repeat(500)).chars().count(), SHOWN_CHARS);
    }

    #[test]
    fn requests_name_the_host() {
        let host = |address: &str| host_of(&address.parse().unwrap());
        assert_eq!(host("tcp://a.example:80"), "a.example:80");
        assert_eq!(host("tcp://[::1]:80"), "[::1]:80");
        assert_eq!(host("unix:///run/x"), "localhost");
    }
}
