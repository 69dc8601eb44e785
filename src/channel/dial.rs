//! Dialling a channel by its address.
//!
//! Names are resolved anew on every dial, and nothing is retried: when to dial again is decided above.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::ClientConfig;

use super::address::Address;
use super::connection::Connection;
use super::dial_error::{DialError, DialFailure, DialFailures};
use super::dial_tcp::dial_tcp;
use super::options::TcpOptions;
use super::quic::QuicOptions;
use super::tls::{TlsConnection, connect_tls};

/// How channels are dialled.
#[derive(Clone, Debug, PartialEq)]
pub struct DialOptions {
    /// Options of TCP sockets.
    pub tcp: TcpOptions,
    /// Options of QUIC channels.
    pub quic: QuicOptions,
    /// Time for the whole dial: the name, every address, and with [`dial_tls`] the handshake.
    pub timeout: Duration,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            tcp: TcpOptions::default(),
            quic: QuicOptions::default(),
            timeout: crate::base::limits::HANDSHAKE_TIMEOUT,
        }
    }
}

/// Dials a channel. That of a `tls://` address is TCP yet, for [`connect_tls`]; [`dial_tls`] does both. A `quic://`
/// address is dialled by [`dial_quic`](super::dial_quic).
///
/// # Errors
///
/// See [`DialError`].
pub async fn dial(address: &Address, options: &DialOptions) -> Result<Connection, DialError> {
    dial_until(address, options, Instant::now() + options.timeout).await
}

/// Dials a channel and runs the client's side of TLS over it.
///
/// # Errors
///
/// See [`DialError`].
pub async fn dial_tls(
    address: &Address,
    options: &DialOptions,
    config: Arc<ClientConfig>,
) -> Result<TlsConnection, DialError> {
    let deadline = Instant::now() + options.timeout;
    let connection = dial_until(address, options, deadline).await?;
    let peer = connection.info.peer.clone();
    match timeout_at(deadline, connect_tls(connection, config)).await {
        Ok(outcome) => outcome.map_err(|source| DialError::Tls { address: address.to_string(), source }),
        Err(_) => Err(failed(address, peer, std::io::ErrorKind::TimedOut.into(), options.timeout)),
    }
}

async fn dial_until(address: &Address, options: &DialOptions, deadline: Instant) -> Result<Connection, DialError> {
    let other = |error| failed(address, address.to_string(), error, options.timeout);
    match address {
        Address::Tcp { host, port } | Address::Tls { host, port } => {
            let name = address.to_string();
            let stream = dial_tcp(&name, (host, *port), &options.tcp, options.timeout, deadline).await?;
            Connection::tcp(stream, address.kind(), options.tcp.notsent_lowat).map_err(other)
        }
        Address::Quic { .. } => {
            let text = "a QUIC channel is dialled with its TLS settings";
            Err(other(std::io::Error::new(std::io::ErrorKind::InvalidInput, text)))
        }
        Address::Unix { path } => {
            let stream = timeout_at(deadline, UnixStream::connect(path))
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
                .map_err(other)?;
            Ok(Connection::unix(stream, "unix:".to_owned(), address.to_string()))
        }
    }
}

fn failed(address: &Address, peer: String, error: std::io::Error, timeout: Duration) -> DialError {
    let failures = DialFailures(vec![DialFailure { address: peer, error }]);
    DialError::from_failures(address.to_string(), failures, timeout)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A listener whose backlog is full, so that dials of its address get no answer.
    pub(crate) struct FullListener {
        pub(crate) address: SocketAddr,
        _sockets: Vec<Socket>,
    }

    impl FullListener {
        pub(crate) fn new() -> Self {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
            listener.bind(&any.into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let mut sockets = vec![listener];
            for _ in 0..3 {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let _ = client.connect(&address.into());
                sockets.push(client);
            }
            Self { address, _sockets: sockets }
        }
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
        let error = dial(&tcp("127.0.0.1", port), &DialOptions::default()).await.unwrap_err();
        assert!(matches!(&error, DialError::Refused { failures, .. } if failures.0.len() == 1), "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}: ")), "{error}");
    }

    #[tokio::test]
    async fn a_name_with_two_families_reaches_a_listener_of_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = dial(&tcp("localhost", port), &DialOptions::default()).await.unwrap();
        assert_eq!(connection.info.peer, format!("127.0.0.1:{port}"));
        assert_eq!(connection.info.peer_ip, Some("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn silence_times_out() {
        let full = FullListener::new();
        let options = DialOptions { timeout: Duration::from_millis(100), ..DialOptions::default() };
        let error = dial(&tcp("127.0.0.1", full.address.port()), &options).await.unwrap_err();
        assert!(matches!(&error, DialError::TimedOut { failures, .. } if failures.0.len() == 1), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told_from_a_host_that_does_not_answer() {
        // A label of more than 63 bytes (RFC 1035 §2.3.4) fails without a question to any server.
        let error = dial(&tcp(&"x".repeat(64), 1), &DialOptions::default()).await.unwrap_err();
        assert!(matches!(error, DialError::Resolve { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_socket_file_that_does_not_exist_is_unreachable() {
        let path = tempfile::tempdir().unwrap().path().join("none.sock");
        let error = dial(&Address::Unix { path }, &DialOptions::default()).await.unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_refused_option_is_told_as_such() {
        let congestion = crate::channel::Congestion::Named("no-such".to_owned());
        let options = DialOptions { tcp: TcpOptions { congestion, ..TcpOptions::default() }, ..Default::default() };
        let error = dial(&tcp("127.0.0.1", 1), &options).await.unwrap_err();
        assert!(matches!(error, DialError::Options { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_local_address_of_the_other_family_fails_that_address() {
        let bind = Some("[::1]:0".parse().unwrap());
        let options = DialOptions { tcp: TcpOptions { bind, ..TcpOptions::default() }, ..Default::default() };
        let error = dial(&tcp("127.0.0.1", 1), &options).await.unwrap_err();
        assert!(error.to_string().contains("other family"), "{error}");
    }
}
