//! One simulated node: a handshake or a session, its configuration, and what it has reported.

use std::time::Instant;

use longhaul::base::{LaneId, Side};
use longhaul::session::{CloseReason, EstablishError, Establishing, Event, LaneEnd, Session, SessionConfig};

use crate::app::App;

pub struct Node {
    pub side: Side,
    pub config: SessionConfig,
    pub establishing: Option<Establishing>,
    pub session: Option<Session>,
    /// What the session reported, without the streams' notices, which the application gets.
    pub events: Vec<(Instant, Event)>,
    pub app: App,
    pub failure: Option<EstablishError>,
    /// When its timer fires.
    armed: Option<Instant>,
    /// Does not run: what arrives waits, and no timer is looked at.
    pub is_stopped: bool,
}

impl Node {
    pub fn new(side: Side, config: SessionConfig) -> Self {
        Self {
            side,
            config,
            establishing: None,
            session: None,
            events: Vec::new(),
            app: App::default(),
            failure: None,
            armed: None,
            is_stopped: false,
        }
    }

    /// Sets the timer as a node with sockets does after each change: it goes on to the next deadline only when it fires.
    pub fn arm(&mut self) {
        let next = self.session.as_ref().and_then(|session| session.next_timeout_before(self.armed));
        self.armed = next.or(self.armed);
    }

    /// When its timer fires, unless an earlier deadline is found before.
    pub fn armed(&self) -> Option<Instant> {
        self.armed.filter(|_| self.session.is_some())
    }

    /// Lets the timer fire, if it is time.
    pub fn expire(&mut self, now: Instant) {
        let Some(session) = self.session.as_mut().filter(|_| self.armed.is_some_and(|at| at <= now)) else { return };
        session.handle_timeout(now);
        self.armed = session.next_timeout();
        let stays = self.armed.is_some_and(|at| at <= now) && session.poll_wake().is_none();
        assert!(!stays, "{:?}: a deadline that stays in the past", self.side);
    }

    pub fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("the handshake is complete")
    }

    pub fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_connected)
    }

    /// Why the session ended, once it said so.
    pub fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// Why a lane ended.
    pub fn lane_end(&self, id: LaneId) -> Option<&LaneEnd> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::LaneDown(lane, end) if *lane == id => Some(end),
            _ => None,
        })
    }

    pub fn has_seen(&self, wanted: &Event) -> bool {
        self.events.iter().any(|(_, event)| event == wanted)
    }

    /// When something happened first.
    pub fn time_of(&self, wanted: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events.iter().find(|(_, event)| wanted(event)).map(|(at, _)| *at)
    }
}
