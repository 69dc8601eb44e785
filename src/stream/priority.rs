//! Whose turn it is to send: classes in order, streams of a class in turn, and no class starves.

use std::collections::VecDeque;

use crate::base::StreamId;

/// How urgent a stream is, compared with the others of its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Goes before everything: commands, health checks.
    Urgent,
    /// Somebody waits for each answer: terminals, requests.
    Interactive,
    /// Everything that says nothing else.
    #[default]
    Normal,
    /// May take what the others leave: backups, replication.
    Background,
}

impl Priority {
    /// All classes, most urgent first.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::Interactive, Self::Normal, Self::Background];

    /// The class as on the wire, where more classes than these may come.
    #[must_use]
    pub fn from_wire(class: u8) -> Self {
        Self::ALL[usize::from(class).min(Self::ALL.len() - 1)]
    }

    /// Whether each message of such a stream should arrive as early as it can.
    #[must_use]
    pub fn is_prompt(self) -> bool {
        self <= Self::Interactive
    }

    /// The number on the wire.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        self as u8
    }
}

impl std::str::FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "urgent" => Ok(Self::Urgent),
            "interactive" => Ok(Self::Interactive),
            "normal" => Ok(Self::Normal),
            "background" => Ok(Self::Background),
            other => Err(format!("expected urgent, interactive, normal or background, not {other:?}")),
        }
    }
}

/// A class that waits is served once for this many packets of more urgent ones.
const TURNS_PASSED_MAX: u32 = 16;

/// The streams that have something to send.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    classes: [VecDeque<StreamId>; Priority::ALL.len()],
    /// For each class, how often a more urgent one was served while it waited.
    passed: [u32; Priority::ALL.len()],
}

impl ReadyQueue {
    /// Adds a stream at the end of its class. The caller knows that it is not queued yet.
    pub fn push(&mut self, id: StreamId, priority: Priority) {
        self.classes[priority as usize].push_back(id);
    }

    /// Puts a stream back to the front of its class: its turn is not over.
    pub fn push_front(&mut self, id: StreamId, priority: Priority) {
        self.classes[priority as usize].push_front(id);
    }

    /// Takes the stream whose turn it is, among those that `wanted` lets pass.
    pub fn pop(&mut self, wanted: impl FnMut(StreamId) -> bool) -> Option<StreamId> {
        let turn = self.turn(wanted)?;
        self.take(turn)
    }

    /// Whose turn it is, among those that `wanted` lets pass.
    pub(super) fn turn(&self, mut wanted: impl FnMut(StreamId) -> bool) -> Option<Turn> {
        let starving = (1..self.classes.len())
            .find(|&class| self.passed[class] >= TURNS_PASSED_MAX && !self.classes[class].is_empty());
        let mut turn_in = |class: usize| {
            let position = self.classes[class].iter().position(|&id| wanted(id))?;
            Some(Turn { class, position })
        };
        if let Some(turn) = starving.and_then(&mut turn_in) {
            return Some(turn);
        }
        (0..self.classes.len()).find_map(turn_in)
    }

    /// Takes the stream whose turn it is. The queue has to be as it was when that was asked.
    pub(super) fn take(&mut self, Turn { class, position }: Turn) -> Option<StreamId> {
        self.passed[class] = 0;
        for lower in class + 1..self.classes.len() {
            self.passed[lower] = if self.classes[lower].is_empty() { 0 } else { self.passed[lower] + 1 };
        }
        self.classes[class].remove(position)
    }

    /// Whether a stream waits for whose answers somebody waits.
    #[must_use]
    pub fn has_prompt(&self) -> bool {
        let classes = Priority::ALL.iter().zip(&self.classes);
        classes.into_iter().any(|(priority, class)| priority.is_prompt() && !class.is_empty())
    }

    /// Whether no stream waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(VecDeque::is_empty)
    }
}

/// A place in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    class: usize,
    position: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_goes_first_but_background_is_served() {
        let mut queue = ReadyQueue::default();
        queue.push(StreamId(0), Priority::Background);
        queue.push(StreamId(4), Priority::Urgent);
        let mut background = 0;
        for _ in 0..170 {
            let id = queue.pop(|_| true).expect("both are always queued");
            background += u32::from(id == StreamId(0));
            queue.push(id, if id == StreamId(0) { Priority::Background } else { Priority::Urgent });
        }
        assert!((8..=12).contains(&background), "{background}");
    }

    #[test]
    fn streams_of_a_class_take_turns() {
        let mut queue = ReadyQueue::default();
        for id in [0, 4, 8] {
            queue.push(StreamId(id), Priority::Normal);
        }
        let order: Vec<_> = (0..6)
            .filter_map(|_| {
                let id = queue.pop(|_| true)?;
                queue.push(id, Priority::Normal);
                Some(id.0)
            })
            .collect();
        assert_eq!(order, [0, 4, 8, 0, 4, 8]);
    }

    #[test]
    fn unknown_classes_of_later_versions_are_background() {
        assert_eq!(Priority::from_wire(7), Priority::Background);
        assert_eq!(Priority::from_wire(Priority::Interactive.to_wire()), Priority::Interactive);
    }
}
