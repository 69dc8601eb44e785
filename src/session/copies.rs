//! What goes out on two lanes, under the scheduler `redundant`: the data of streams of the most urgent class, and short
//! frames about streams. Whichever copy comes first counts; the receiver drops the other one, as it does with everything
//! that was sent again.
//!
//! A copy is the second lane's own: when that lane is slow, it waits there and holds up nothing else.

use std::collections::VecDeque;

use super::state::Session;
use crate::base::limits;
use crate::stream::Priority;
use crate::wire::Frame;

/// Bytes that wait to be copied on one lane. What is more goes out once, as everything else does: a lane that cannot
/// keep up would only be late with it.
const COPIES_BYTES_MAX: usize = 128 * 1024;

/// Frames without data that are copied are at most so long, together with what is around them.
const CONTROL_BYTES_MAX: usize = 1024;

/// Frames that a lane sends a second time.
#[derive(Debug, Default)]
pub(super) struct Copies {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Copies {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn push(&mut self, frame: Frame) {
        let bytes = frame.encoded_len();
        if self.bytes + bytes <= COPIES_BYTES_MAX {
            self.bytes += bytes;
            self.frames.push_back(frame);
        }
    }

    /// The next one, if it is no longer than `room`.
    pub(super) fn pop(&mut self, room: usize) -> Option<Frame> {
        let frame = self.frames.pop_front_if(|frame| frame.encoded_len() <= room)?;
        self.bytes -= frame.encoded_len();
        Some(frame)
    }
}

impl Session {
    /// Takes the copies that a lane has for its next packet.
    pub(super) fn take_copies(&mut self, index: usize, mut room: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.len() < limits::FRAMES_PER_PACKET_MAX / 4
            && let Some(frame) = self.lanes[index].copies.pop(room)
        {
            room -= frame.encoded_len();
            frames.push(frame);
        }
        frames
    }

    /// Gives a second lane what should go out twice of a packet. The first `copied` frames are copies already.
    pub(super) fn copy_frames(&mut self, index: usize, frames: &[Frame], copied: usize) {
        if !self.scheduler.copies() || self.views.len() < 2 {
            return;
        }
        let is_wanted = |frame: &&Frame| match frame {
            Frame::Stream(data) => self.streams.priority(data.stream_id) == Some(Priority::Urgent),
            frame => is_urgent_control(frame),
        };
        let mut wanted = frames[copied..].iter().filter(is_wanted).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let first = self.lanes[index].channel();
        let second = self.scheduler.second(&self.views, first).and_then(|channel| self.emptiest_lane(channel));
        let Some(second) = second else { return };
        for frame in wanted.cloned().collect::<Vec<_>>() {
            self.lanes[second].copies.push(frame);
        }
        self.wake_lane(second);
    }
}

/// Whether a frame without data is worth a second copy. Windows and credits are not: the next one says more, and a peer
/// counts those that change nothing as load.
fn is_urgent_control(frame: &Frame) -> bool {
    let is_kind = matches!(frame, Frame::StreamOpen { .. } | Frame::StreamReset { .. } | Frame::StreamStop { .. });
    is_kind && frame.encoded_len() <= CONTROL_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::StreamId;

    #[test]
    fn copies_are_bounded_and_given_out_as_far_as_they_fit() {
        let frame = Frame::StreamOpen { stream_id: StreamId(4), priority: 0, replay_safe: false };
        let mut copies = Copies::default();
        for _ in 0..COPIES_BYTES_MAX {
            copies.push(frame.clone());
        }
        assert!(copies.bytes <= COPIES_BYTES_MAX && copies.bytes > COPIES_BYTES_MAX - 2 * frame.encoded_len());
        assert_eq!(copies.pop(frame.encoded_len() - 1), None);
        while copies.pop(frame.encoded_len()).is_some() {}
        assert_eq!((copies.bytes, copies.is_empty()), (0, true));
    }
}
