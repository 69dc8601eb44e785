//! Reads messages off a channel. An idle channel holds no buffer.

use std::io;

use bytes::BytesMut;

use crate::channel::ReadHalf;
use crate::wire::{FrameMessage, WireError, begins_tls, decode_message, message_size};

/// Room for the first read after an idle time, and the largest for messages that are not known yet. It grows while reads
/// fill it. The least is the largest that the allocator gives out at once: a block that a short message keeps should cost
/// little.
const READ_BYTES_MIN: usize = 1024;
const READ_BYTES_MAX: usize = 32 * 1024;

/// What is read beyond a message that is longer than that: enough to know the size of the next one. More would have to
/// be moved, since a message keeps the buffer that it was read into.
const LOOKAHEAD_BYTES: usize = 16;

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadMessageError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl From<ReadMessageError> for io::Error {
    fn from(error: ReadMessageError) -> Self {
        match error {
            ReadMessageError::Io(error) => error,
            ReadMessageError::Wire(error) => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// The reading half of a channel as messages.
pub(super) struct MessageReader {
    half: ReadHalf,
    buffer: BytesMut,
    read_size: usize,
    /// Of the message before: the next one is probably as long.
    last_size: usize,
    size_max: usize,
}

impl MessageReader {
    pub(super) fn new(half: ReadHalf, size_max: usize) -> Self {
        Self { half, buffer: BytesMut::new(), read_size: READ_BYTES_MIN, last_size: 0, size_max }
    }

    /// Sets the longest message from now on: it grows when the peer is authenticated.
    pub(super) fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max;
    }

    /// The next message that is here already, with its size.
    pub(super) fn next_buffered(&mut self) -> Result<Option<(FrameMessage, usize)>, WireError> {
        let before = self.buffer.len();
        let message = decode_message(&mut self.buffer, self.size_max)?;
        Ok(message.map(|message| {
            self.last_size = before - self.buffer.len();
            (message, self.last_size)
        }))
    }

    /// Waits for bytes and reads them. Cancel safe.
    pub(super) async fn fill(&mut self) -> Result<(), ReadMessageError> {
        loop {
            if self.buffer.is_empty() {
                // The room of the last messages goes with them; nothing is held while nothing comes.
                self.buffer = BytesMut::new();
            }
            self.half.readable().await?;
            self.make_room()?;
            let room = self.buffer.capacity() - self.buffer.len();
            match self.half.try_read(&mut self.buffer)? {
                None => {}
                Some(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Some(count) => {
                    if count == room {
                        self.read_size = (self.read_size * 2).min(READ_BYTES_MAX);
                    } else if count < self.read_size / 4 {
                        self.read_size = (self.read_size / 2).max(READ_BYTES_MIN);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// The next message, with its size. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<(FrameMessage, usize), ReadMessageError> {
        loop {
            if let Some(message) = self.next_buffered()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Whether the channel begins as TLS does, and not with a message. Takes nothing. Cancel safe.
    pub(super) async fn begins_tls(&mut self) -> Result<bool, ReadMessageError> {
        loop {
            if let Some(is_tls) = begins_tls(&self.buffer) {
                return Ok(is_tls);
            }
            self.fill().await?;
        }
    }

    /// What has been read, and is no message.
    pub(super) fn into_read(self) -> BytesMut {
        self.buffer
    }

    fn make_room(&mut self) -> Result<(), WireError> {
        let needed = message_size(&self.buffer, self.size_max)?.unwrap_or(self.last_size.max(self.buffer.len() + 1));
        let wanted = if needed > self.read_size { needed + LOOKAHEAD_BYTES } else { self.read_size };
        if self.buffer.capacity() < wanted {
            self.buffer.reserve(wanted - self.buffer.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::base::limits;
    use crate::channel::{Io, NotsentLowat, TcpIo};
    use crate::wire::{Body, Frame, Head, PaddingPolicy, SealedKind, StreamData, encode_packet_message};

    async fn pair() -> (TcpStream, MessageReader) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (writer, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (read, _write) = Io::Tcp(Arc::new(TcpIo::new(accepted.unwrap().0, NotsentLowat::Auto))).split();
        (writer.unwrap(), MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_MAX))
    }

    fn message(number: u8, size: usize) -> BytesMut {
        let data = vec![number; size].into();
        let frames = [Frame::Stream(StreamData { stream_id: crate::base::StreamId(0), offset: 0, fin: false, data })];
        let mut out = BytesMut::new();
        let max = limits::FRAME_MESSAGE_BYTES_MAX;
        encode_packet_message(&mut out, &Head::default(), SealedKind::Plain, &frames, PaddingPolicy::None, max);
        out
    }

    /// Sizes on both sides of every limit of the reader, so that messages begin and end anywhere in what is read.
    const SIZES: [usize; 16] =
        [1, 65_000, 65_000, 0, 40, 1_000, 1_020, 1_030, 2_041, 32_700, 32_800, 10, 64_000, 500, 20_000, 65_000];

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn messages_of_all_sizes_arrive_whole() {
        for cut in [usize::MAX, 16_384, 1_000, 7] {
            let (mut writer, mut reader) = pair().await;
            let sent: Vec<_> = (0..).zip(SIZES).map(|(number, size)| message(number, size)).collect();
            let bytes: Vec<u8> = sent.iter().flatten().copied().collect();
            tokio::spawn(async move {
                for part in bytes.chunks(cut.min(bytes.len())) {
                    writer.write_all(part).await.unwrap();
                }
            });
            for expected in sent {
                let (message, size) = reader.next().await.unwrap();
                assert_eq!(size, expected.len());
                let Body::Plain(content) = message.body else { panic!("a packet in the clear was sent") };
                assert!(expected.ends_with(&content));
            }
            assert!(matches!(reader.next().await, Err(ReadMessageError::Io(_))), "the end comes last");
        }
    }
}
