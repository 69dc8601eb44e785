//! Reads messages off a channel. An idle channel holds no buffer.

use std::io;

use bytes::BytesMut;

use crate::channel::ReadHalf;
use crate::wire::{FrameMessage, WireError, decode_message, message_size};

/// Room for the first read after an idle time, and the largest: two full messages. It grows while reads fill it.
const READ_BYTES_MIN: usize = 2 * 1024;
const READ_BYTES_MAX: usize = 128 * 1024 + 256;

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
    size_max: usize,
}

impl MessageReader {
    pub(super) fn new(half: ReadHalf, size_max: usize) -> Self {
        Self { half, buffer: BytesMut::new(), read_size: READ_BYTES_MIN, size_max }
    }

    /// Sets the longest message from now on: it grows when the peer is authenticated.
    pub(super) fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max;
    }

    /// The next message that is here already, with its size.
    pub(super) fn next_buffered(&mut self) -> Result<Option<(FrameMessage, usize)>, WireError> {
        let before = self.buffer.len();
        let message = decode_message(&mut self.buffer, self.size_max)?;
        Ok(message.map(|message| (message, before - self.buffer.len())))
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

    fn make_room(&mut self) -> Result<(), WireError> {
        let needed = message_size(&self.buffer, self.size_max)?.unwrap_or(0);
        let wanted = needed.max(self.read_size).max(self.buffer.len() + 1);
        if self.buffer.capacity() < wanted {
            self.buffer.reserve(wanted - self.buffer.len());
        }
        Ok(())
    }
}
