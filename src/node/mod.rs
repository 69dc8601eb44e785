//! The asynchronous node: drives sessions over channels, and gives applications streams.
//!
//! [`Node`] accepts and dials; a [`Link`] keeps channels to one peer up; a [`Session`] opens and accepts streams, which
//! are `AsyncWrite` ([`SendStream`]) and `AsyncRead` ([`RecvStream`]); a [`DatagramFlow`] is what goes beside a stream.
//! The session's state is behind one short lock in `shared`; each lane has a task that reads and opens and one that seals
//! and writes, outside the lock (`lane`, `outlet`).
//!
//! * `accept`: what becomes of a channel that came; `fresh`: such a channel; `admit`: its first message is answered.
//! * `dial`: channels to a peer; `attempt`: a session over one of them; `race`: over which of them; `pool`: the channels of
//!   a session kept up, in their `slot`s and `places`; `link`: all of that for one peer.
//! * `outer`: what both sides take from a channel's own TLS.
//!
//! ```no_run
//! # async fn example(settings: longhaul::crypto::identity::TlsSettings) -> Result<(), Box<dyn std::error::Error>> {
//! use longhaul::node::{LinkConfig, Node};
//! use tokio::io::AsyncWriteExt;
//!
//! let node = Node::builder(settings).build().await?;
//! let peer = "spiffe://example/node/dc-b".parse()?;
//! let link = node.link(LinkConfig::new(peer, ["tcp://dc-b.example:7443".parse()?]));
//! let session = link.session().await?;
//! let (mut send, mut recv) = session.open_bi().await?;
//! send.write_all(b"hello").await?;
//! send.finish()?;
//! let answer = recv.read_to_end(1 << 20).await?;
//! # Ok(()) }
//! ```

mod accept;
mod admit;
mod attempt;
mod bandwidth;
mod carrier;
mod config;
mod datagrams;
mod dial;
mod early;
mod enrolment;
mod error;
mod fresh;
mod guest;
mod lane;
mod link;
mod messages;
#[expect(clippy::module_inception, reason = "the node itself, among what it is made of")]
mod node;
mod observer;
mod outer;
mod outlet;
mod places;
mod pool;
mod race;
mod recv_stream;
mod registry;
mod revocation;
mod send_stream;
mod session;
mod shared;
mod slot;
mod stream_opener;

pub use bandwidth::BandwidthLimits;
pub use config::{Entrances, LinkAddress, LinkConfig, NodeConfig};
pub use datagrams::{DatagramFlow, DatagramSender};
pub use enrolment::{EnrolmentDoor, Served};
pub use error::{ConnectError, DatagramError, NodeError, ReadError, SessionError, WriteError};
pub use guest::{GuestAdmission, GuestRefusal, GuestVisit};
pub use link::{Link, LinkStatus};
pub use node::{Node, NodeBuilder};
pub use observer::{NodeEvent, NodeMeter, Observer, SessionReading};
pub(crate) use recv_stream::Next;
pub use recv_stream::RecvStream;
pub use revocation::Revoker;
pub use send_stream::SendStream;
pub use session::Session;
pub use stream_opener::StreamOpener;

pub use crate::base::Bandwidth;
pub use crate::session::{LaneStats, LimitedBy, SessionStats};
pub use crate::stream::{DatagramDrop, DatagramStats, Priority};
pub use crate::wire::LaneRole;
