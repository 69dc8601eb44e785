//! Channels: bytes in, bytes out, over TCP, TLS, QUIC and Unix sockets.
//!
//! Owns addresses, socket options, dialling, listening and admission. Knows no frame, no session and no key: what the
//! bytes mean is the business of the layers that hold both halves of a [`Connection`].

mod abort;
mod address;
mod address_range;
mod admission;
mod connection;
mod dial;
mod dial_error;
mod dial_tcp;
mod gate;
mod greeting;
mod halves;
mod inherited;
mod listen;
mod listen_error;
mod listen_unix;
mod options;
mod path;
mod quic;
mod shared_tcp;
mod tcp_io;
#[cfg(target_os = "linux")]
mod tcp_info;
mod tls;
mod tls_pipe;
mod unsent_bound;

pub use abort::AbortHandle;
pub use address::{Address, AddressError, ChannelKind};
pub use address_range::AddressRange;
pub use admission::{Admission, AdmissionLimits, Refusal, SourceRate};
pub use connection::{ChannelInfo, Connection, Io, TlsIo};
pub use dial::{DialOptions, dial, dial_tls};
pub use dial_error::{DialError, DialFailure, DialFailures};
pub use gate::{Gate, GateCounters, Permit};
pub use greeting::TlsGreeting;
pub use halves::{ReadHalf, Turn, WriteHalf};
pub(crate) use inherited::udp_at;
pub use inherited::{InheritedPlace, InheritedSocket, InheritedSockets};
pub use listen::{Accepted, ListenOptions, Listener};
pub use listen_error::ListenError;
pub use listen_unix::{PeerCredentials, UnixOptions};
pub use options::{Congestion, Keepalive, NotsentLowat, OptionsError, TcpOptions};
pub use path::{PathReader, PathStats};
pub use quic::{
    Observed, PathObserver, QuicAccepted, QuicCongestion, QuicConnection, QuicDialled, QuicEarly, QuicError, QuicIo,
    QuicListener, QuicOptions, RetryPolicy, dial_quic, dial_quic_early,
};
pub use shared_tcp::SharedTcp;
pub use tcp_io::TcpIo;
pub use tls::{OUTER_TLS_ALPN, OuterTls, TlsConnection, TlsError, accept_tls, connect_tls};
