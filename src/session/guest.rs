//! Clients without a certificate: they show a token, and until that is accepted the session does nothing.

use std::time::Instant;

use super::event::{Event, SessionFault};
use super::state::{Session, State};
use crate::base::{CloseCode, LaneId, Secret, Side};
use crate::wire::{Frame, GuestCredential};

impl Session {
    /// What the proof of a guest in this session is bound to; none before the handshake is complete.
    #[must_use]
    pub fn guest_exporter(&self) -> Option<&Secret<32>> {
        self.guest_exporter.as_ref()
    }

    /// A client's: shows this in place of a certificate, before anything else. What the application writes waits until the
    /// server has accepted it.
    pub fn present_guest(&mut self, credential: GuestCredential) {
        if self.side != Side::Client || !matches!(self.state, State::Connecting) || self.is_guest {
            debug_assert!(false, "a fresh client shows one token");
            return;
        }
        self.is_guest = true;
        if let Some(lane) = self.lanes.first_mut() {
            lane.control.push_front(Frame::Guest(credential));
        }
    }

    /// A server's: takes back, before anything was polled, that the client is accepted. It has to show a token first.
    pub fn await_guest(&mut self) {
        if self.side != Side::Server || !matches!(self.state, State::Connected) {
            debug_assert!(false, "a fresh server awaits a guest");
            return;
        }
        self.state = State::Proving { has_proof: false };
        self.lanes.iter_mut().for_each(|lane| lane.control.retain(|frame| !matches!(frame, Frame::Accepted { .. })));
        self.events.retain(|event| *event != Event::Connected);
    }

    /// Whether the client has to show a token yet, or waits to be accepted.
    #[must_use]
    pub fn awaits_guest(&self) -> bool {
        matches!(self.state, State::Proving { .. })
    }

    /// A server's: the token is good, and the session connected. Nothing if none was shown.
    pub fn accept_guest(&mut self) {
        if !matches!(self.state, State::Proving { has_proof: true }) {
            return;
        }
        self.state = State::Connected;
        let reset_token = self.reset_token.clone();
        if let Some(index) = self.lane_index(LaneId::FIRST) {
            self.lanes[index].control.push_front(Frame::Accepted { reset_token });
            self.wake_lane(index);
        }
        self.events.push_back(Event::Connected);
    }

    /// A server's: the token is not good, or nobody can say so now.
    pub fn refuse_guest(&mut self, code: CloseCode, now: Instant) {
        self.close(code, "", now);
    }

    /// Whether a frame may come in this state of the session.
    pub(super) fn check_guest(&self, frame: &Frame) -> Result<(), SessionFault> {
        match (&self.state, frame) {
            (State::Proving { has_proof: false }, Frame::Guest(_))
            | (State::Proving { .. }, Frame::Ping { .. } | Frame::Close { .. }) => Ok(()),
            (State::Proving { .. }, _) => Err(SessionFault::Violation("frame in front of a guest's acceptance")),
            (_, Frame::Guest(_)) => Err(SessionFault::Violation("token that was not asked for")),
            _ => Ok(()),
        }
    }

    pub(super) fn on_guest(&mut self, credential: GuestCredential) {
        self.state = State::Proving { has_proof: true };
        self.events.push_back(Event::GuestProof(credential));
    }

    /// Whether everything but the proof waits.
    pub(super) fn holds_for_guest(&self) -> bool {
        self.is_guest && matches!(self.state, State::Connecting)
    }
}
