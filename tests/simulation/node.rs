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
            is_stopped: false,
        }
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
