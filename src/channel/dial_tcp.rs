//! Dialling by name, and TCP: every address of the name, the families in turn, each attempt a little after the one before
//! or at its failure, and the first that stands wins (after RFC 8305 §4 and §5).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::dial_error::{DialError, DialFailure, DialFailures};
use super::options::{OptionsError, TcpOptions};
use super::quic::QuicError;

/// Resolves `host` and connects to one of its addresses by `deadline`.
pub(crate) async fn dial_tcp(
    name: &str,
    (host, port): (&str, u16),
    options: &TcpOptions,
    timeout: Duration,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let addresses = resolve(host, port, deadline).await?;
    race(name, addresses, |address| attempt(address, options), timeout, deadline).await
}

/// The addresses of a name, in the order in which they are to be tried.
pub(crate) async fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let failed = |source| DialError::Resolve { host: host.to_owned(), source };
    let found = match timeout_at(deadline, lookup_host((host, port))).await {
        Ok(outcome) => outcome.map_err(failed)?,
        Err(_) => return Err(failed(io::Error::new(io::ErrorKind::TimedOut, "the resolver did not answer in time"))),
    };
    let addresses = interleave(found.take(ADDRESSES_MAX));
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

/// The families in turn, beginning with that of the first address; within a family in the resolver's order.
fn interleave(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.into_iter().peekable();
    let first_is_v6 = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = (first.next(), second.next());
        if pair == (None, None) {
            return ordered;
        }
        for address in [pair.0, pair.1].into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
    }
}

/// Tries all addresses side by side, each a little after the one before or at its failure: the first that stands.
pub(crate) async fn race<T, F: Future<Output = Result<T, AttemptError>>>(
    name: &str,
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
    timeout: Duration,
    deadline: Instant,
) -> Result<T, DialError> {
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut pending = Vec::new();
    let mut failures = DialFailures::default();
    let mut next_start = Instant::now();
    let error_at = |address: SocketAddr, error| DialFailure { address: address.to_string(), error };
    loop {
        if Instant::now() >= next_start || running.is_empty() {
            match waiting.next() {
                Some(address) => {
                    pending.push(address);
                    let attempt = attempt(address);
                    running.push(async move { (address, attempt.await) });
                    next_start = Instant::now() + ATTEMPT_DELAY;
                }
                None if running.is_empty() => {
                    return Err(DialError::from_failures(name.to_owned(), failures, timeout));
                }
                None => next_start = deadline + ATTEMPT_DELAY,
            }
        }
        tokio::select! {
            biased;
            Some((address, outcome)) = running.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(AttemptError::Options(source)) => {
                    return Err(DialError::Options { address: name.to_owned(), source });
                }
                // The address answers, and another one of the same name would say the same.
                Err(AttemptError::Quic(source)) => {
                    return Err(DialError::Quic { address: name.to_owned(), source });
                }
                Err(AttemptError::Connect(error)) => {
                    pending.retain(|other| *other != address);
                    failures.0.push(error_at(address, error));
                    next_start = Instant::now();
                }
            },
            () = sleep_until(deadline) => {
                failures.0.extend(pending.into_iter().map(|address| error_at(address, io::ErrorKind::TimedOut.into())));
                return Err(DialError::from_failures(name.to_owned(), failures, timeout));
            }
            () = sleep_until(next_start) => {}
        }
    }
}

/// Why one address could not be dialled.
pub(crate) enum AttemptError {
    Options(OptionsError),
    Quic(QuicError),
    Connect(io::Error),
}

impl From<QuicError> for AttemptError {
    fn from(error: QuicError) -> Self {
        match error {
            QuicError::Connection(error) => Self::Connect(error),
            other => Self::Quic(other),
        }
    }
}

impl From<io::Error> for AttemptError {
    fn from(error: io::Error) -> Self {
        Self::Connect(error)
    }
}

async fn attempt(address: SocketAddr, options: &TcpOptions) -> Result<TcpStream, AttemptError> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    options.apply(&socket, Some(address.ip())).map_err(AttemptError::Options)?;
    if let Some(local) = options.bind {
        if local.is_ipv6() != address.is_ipv6() {
            let text = format!("the local address {local} is of the other family");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text).into());
        }
        socket.bind(&local.into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()).connect(address).await?)
}

/// The recommended delay between attempts (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried; further ones are ignored.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    async fn attempt_plain(address: SocketAddr) -> Result<TcpStream, AttemptError> {
        attempt(address, &TcpOptions::default()).await
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::1]:1", "1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1"]);
        let expected = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "3.3.3.3:1"]);
        assert_eq!(interleave(given), expected);
        assert!(interleave([]).is_empty());
    }

    #[tokio::test]
    async fn a_refusal_starts_the_next_address_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
        let open = listener.local_addr().unwrap();
        let begun = Instant::now();
        let timeout = Duration::from_secs(5);
        let stream = race("tcp://test", vec![closed, open], attempt_plain, timeout, begun + timeout).await;
        assert_eq!(stream.unwrap().peer_addr().unwrap(), open);
        assert!(begun.elapsed() < ATTEMPT_DELAY);
    }

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_hold_up_the_next() {
        let full = crate::channel::dial::tests::FullListener::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let timeout = Duration::from_secs(5);
        let deadline = Instant::now() + timeout;
        let stream = race("tcp://test", vec![full.address, open], attempt_plain, timeout, deadline).await;
        assert_eq!(stream.unwrap().peer_addr().unwrap(), open);
    }
}
