//! Streams: ordered bytes by offset, with their buffers, flow control and priorities.
//!
//! Each part owns its state and is asked by the session: [`SendBuffer`] holds bytes until the peer's session has
//! acknowledged them, [`ReceiveBuffer`] puts arriving ranges in order, [`SendWindow`] and [`ReceiveWindow`] are the
//! credits, [`ReadyQueue`] says whose turn it is, and [`Streams`] keeps them together by stream id. `datagrams` are what
//! goes beside the bytes of a stream, and may be lost.
//!
//! Knows no packets and no lanes: what was lost or acknowledged is told as ranges.

mod datagrams;
mod flow;
mod id_allocator;
mod priority;
mod receive;
mod send;
mod streams;

pub use datagrams::{DatagramDrop, DatagramError, DatagramStats};
pub use flow::{ReceiveWindow, SendWindow};
pub use id_allocator::{LocalIds, RemoteIds};
pub use priority::{Priority, ReadyQueue};
pub use receive::{ReceiveBuffer, ReceiveError};
pub use send::{Piece, SendBuffer};
pub use streams::{FinishError, ReadError, ReadOutcome, StreamFault, StreamNotice, Streams, StreamsConfig, WriteError};
