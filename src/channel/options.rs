//! Options of TCP sockets, and how they are set on one.
//!
//! Linux has all of them. Elsewhere congestion control, marks, the user timeout and the bound on unsent bytes are
//! left to the system, and one that was asked for by name is an error.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};
use thiserror::Error;

use super::unsent_bound::UNSENT_BYTES_MIN;

/// Options of TCP sockets, dialled and accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpOptions {
    /// Sends what is written at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// Probes of a silent connection; `None` sends none.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged before the system ends the connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
    /// Unsent bytes in the kernel above which the socket is not writable: what is in there cannot be sent on another
    /// channel instead.
    pub notsent_lowat: NotsentLowat,
    /// The congestion control of what this side sends.
    pub congestion: Congestion,
    /// Mark for routing and filtering (`SO_MARK`); needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// Local address of dialled connections. Listeners ignore it.
    pub bind: Option<SocketAddr>,
    /// Connections that the system completes before they are accepted.
    pub backlog: u32,
    /// Size of the kernel's send buffer; `None` leaves it to the system's tuning.
    pub send_buffer_bytes: Option<u32>,
    /// Size of the kernel's receive buffer; `None` leaves it to the system's tuning.
    pub receive_buffer_bytes: Option<u32>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Keepalive::default()),
            user_timeout: Some(USER_TIMEOUT),
            notsent_lowat: NotsentLowat::Auto,
            congestion: Congestion::Auto,
            mark: None,
            bind: None,
            backlog: BACKLOG,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }
}

impl TcpOptions {
    /// Whether the system accepts these options: to be called at start, so that a refusal is not found at the first
    /// dial.
    ///
    /// # Errors
    ///
    /// The first option that a new socket refused.
    pub fn check(&self) -> Result<(), OptionsError> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)
            .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, None))
            .map_err(|source| OptionsError::Refused { option: "socket", value: "tcp".to_owned(), source })?;
        self.apply(&socket, None)
    }

    /// Sets the options on a socket: before connecting or listening, and after accepting. `peer` is the other end, when
    /// there is one already.
    ///
    /// # Errors
    ///
    /// The first option that the system refused.
    pub fn apply(&self, socket: &Socket, peer: Option<IpAddr>) -> Result<(), OptionsError> {
        set("TCP_NODELAY", self.nodelay, |value| socket.set_tcp_nodelay(*value))?;
        if let Some(keepalive) = self.keepalive {
            set("SO_KEEPALIVE", keepalive, |value| socket.set_tcp_keepalive(&value.to_socket()))?;
        }
        if let Some(bytes) = self.send_buffer_bytes {
            set("SO_SNDBUF", bytes, |value| socket.set_send_buffer_size(*value as usize))?;
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            set("SO_RCVBUF", bytes, |value| socket.set_recv_buffer_size(*value as usize))?;
        }
        self.apply_linux(socket, peer)
    }

    #[cfg(target_os = "linux")]
    fn apply_linux(&self, socket: &Socket, peer: Option<IpAddr>) -> Result<(), OptionsError> {
        if let Some(timeout) = self.user_timeout {
            set("TCP_USER_TIMEOUT", timeout, |value| socket.set_tcp_user_timeout(Some(*value)))?;
        }
        if let Some(bytes) = self.notsent_lowat.first_bytes() {
            set("TCP_NOTSENT_LOWAT", bytes, |value| socket.set_tcp_notsent_lowat(*value))?;
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark).map_err(|source| OptionsError::Mark { mark, source })?;
        }
        self.congestion.apply(socket, peer)
    }

    #[cfg(not(target_os = "linux"))]
    fn apply_linux(&self, _: &Socket, _: Option<IpAddr>) -> Result<(), OptionsError> {
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        if let Some(mark) = self.mark {
            return Err(OptionsError::Mark { mark, source: unsupported() });
        }
        if let Congestion::Named(name) = &self.congestion {
            return Err(OptionsError::Congestion { name: name.clone(), source: unsupported() });
        }
        Ok(())
    }
}

/// How many unsent bytes the kernel holds of a socket (`TCP_NOTSENT_LOWAT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotsentLowat {
    /// 128 KiB, and on a fast channel over a long path what it sends in a third of a round trip, 4 MiB at most.
    #[default]
    Auto,
    /// This many.
    Bytes(u32),
    /// What the system allows.
    Off,
}

impl NotsentLowat {
    /// The bound of a new socket, if it has one.
    fn first_bytes(self) -> Option<u32> {
        match self {
            Self::Auto => Some(UNSENT_BYTES_MIN),
            Self::Bytes(bytes) => Some(bytes),
            Self::Off => None,
        }
    }
}

/// Probes of a silent TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds.
    pub idle: Duration,
    /// Time between probes; whole seconds.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub count: u32,
}

impl Default for Keepalive {
    /// Notices a dead peer within 30 s of silence, before the session's own 45 s.
    fn default() -> Self {
        Self { idle: Duration::from_secs(15), interval: Duration::from_secs(5), count: 3 }
    }
}

impl Keepalive {
    fn to_socket(self) -> TcpKeepalive {
        TcpKeepalive::new().with_time(self.idle).with_interval(self.interval).with_retries(self.count)
    }
}

/// Which congestion control TCP uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// BBR where the system has it and lets this process use it, else the system's choice. On loopback always that:
    /// nothing is lost there, and pacing costs time and timers.
    #[default]
    Auto,
    /// The system's choice.
    System,
    /// This one. That the system refuses it is an error.
    Named(String),
}

impl Congestion {
    #[cfg(target_os = "linux")]
    fn apply(&self, socket: &Socket, peer: Option<IpAddr>) -> Result<(), OptionsError> {
        match self {
            Self::System => Ok(()),
            Self::Auto if peer.is_none_or(|peer| peer.to_canonical().is_loopback()) => Ok(()),
            Self::Named(name) => socket
                .set_tcp_congestion(name.as_bytes())
                .map_err(|source| OptionsError::Congestion { name: name.clone(), source }),
            Self::Auto => {
                let outcome = socket.set_tcp_congestion(AUTO_CONGESTION);
                CONGESTION_LOGGED.call_once(|| {
                    let used = socket.tcp_congestion().unwrap_or_default();
                    let used = String::from_utf8_lossy(&used);
                    let used = used.trim_end_matches('\0');
                    let refusal = outcome.as_ref().err().map(ToString::to_string);
                    tracing::debug!(congestion = used, refusal, "congestion control chosen");
                });
                Ok(())
            }
        }
    }
}

/// An option that the system refused.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// The congestion control is not there or not allowed.
    #[error(
        "congestion control `{name}` is refused: {source}; net.ipv4.tcp_available_congestion_control lists what the \
         system has, net.ipv4.tcp_allowed_congestion_control what processes without CAP_NET_ADMIN may use"
    )]
    Congestion {
        /// The name that was asked for.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The mark was refused.
    #[error("mark {mark} is refused: {source}; SO_MARK needs CAP_NET_ADMIN, on Linux")]
    Mark {
        /// The mark that was asked for.
        mark: u32,
        /// The system's answer.
        source: io::Error,
    },
    /// Any other option was refused.
    #[error("{option} = {value} is refused: {source}")]
    Refused {
        /// The option's name in the system.
        option: &'static str,
        /// The value that was asked for.
        value: String,
        /// The system's answer.
        source: io::Error,
    },
}

fn set<T: std::fmt::Debug>(
    option: &'static str,
    value: T,
    apply: impl FnOnce(&T) -> io::Result<()>,
) -> Result<(), OptionsError> {
    apply(&value).map_err(|source| OptionsError::Refused { option, value: format!("{value:?}"), source })
}

/// Longer than a session needs to find a lane dead, so that the session decides; short enough that the sockets of dead
/// paths do not pile up.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// As many as handshakes may be pending.
const BACKLOG: u32 = 1024;

#[cfg(target_os = "linux")]
const AUTO_CONGESTION: &[u8] = b"bbr";

#[cfg(target_os = "linux")]
static CONGESTION_LOGGED: std::sync::Once = std::sync::Once::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_accepted() {
        TcpOptions::default().check().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_set_is_read_back() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        TcpOptions::default().apply(&socket, None).unwrap();
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MIN);
        let fixed = TcpOptions { notsent_lowat: NotsentLowat::Bytes(70_000), ..TcpOptions::default() };
        fixed.apply(&socket, None).unwrap();
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 70_000);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn loopback_keeps_the_systems_congestion_control() {
        let chosen = |peer: &str| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            TcpOptions::default().apply(&socket, Some(peer.parse().unwrap())).unwrap();
            socket.tcp_congestion().unwrap()
        };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let system = socket.tcp_congestion().unwrap();
        for peer in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(chosen(peer), system, "{peer}");
        }
        let far = socket.set_tcp_congestion(AUTO_CONGESTION).map_or(system, |()| socket.tcp_congestion().unwrap());
        assert_eq!(chosen("192.0.2.1"), far);
    }

    #[test]
    fn a_congestion_control_that_is_not_there_is_an_error_by_name_only() {
        let named = |congestion| TcpOptions { congestion, ..TcpOptions::default() };
        named(Congestion::System).check().unwrap();
        named(Congestion::Auto).check().unwrap();
        let error = named(Congestion::Named("no-such".to_owned())).check().unwrap_err();
        assert!(matches!(&error, OptionsError::Congestion { name, .. } if name == "no-such"), "{error}");
    }

    #[test]
    fn a_refused_mark_names_the_capability() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(OptionsError::Mark { mark: 7, source }.to_string().contains("CAP_NET_ADMIN"));
    }
}
