//! What happened lately: looks at every session four times a second, tells what has changed, and remembers some
//! minutes of rates. Looking costs a short lock of each session, and nothing while there is none.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::broadcast;

use super::Control;
use super::status::{Channel, channels_of, not_ready};
use super::targets;
use crate::base::SessionId;
use crate::config::Config;
use crate::service::{TargetReport, TargetState};

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    id: u64,
    time_unix_ms: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    text: String,
}

impl Event {
    /// As server-sent events are written.
    pub(super) fn to_message(&self) -> String {
        let data = serde_json::to_string(self).unwrap_or_default();
        format!("id: {}\nevent: {}\ndata: {data}\n\n", self.id, self.kind)
    }
}

/// A channel that is over.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DeadChannel {
    peer: String,
    session: String,
    #[serde(flatten)]
    channel: Channel,
    ended_unix_ms: u64,
}

/// What is known of a channel.
struct Known {
    peer: String,
    channel: Channel,
    sampled: [u64; 3],
    history: History,
}

/// Rates of a channel, oldest first, one a second.
#[derive(Clone, Debug, Default, Serialize)]
struct History {
    sent_bytes_per_second: VecDeque<u64>,
    received_bytes_per_second: VecDeque<u64>,
    round_trip_ms: VecDeque<Option<f64>>,
    /// Stream bytes that had to go out again, of those sent.
    loss_ratio: VecDeque<f64>,
}

/// A channel's rates, with its name.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ChannelHistory {
    peer: String,
    session: String,
    channel: u32,
    kind: &'static str,
    #[serde(flatten)]
    history: History,
}

/// Rates of all channels.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Histories {
    version: u32,
    interval_ms: u64,
    channels: Vec<ChannelHistory>,
}

/// Watches a node.
pub(super) struct Monitor {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
}

#[derive(Default)]
struct State {
    last_event: u64,
    events: VecDeque<Event>,
    dead: VecDeque<(Instant, DeadChannel)>,
    channels: HashMap<(SessionId, u32), Known>,
    sessions: HashMap<SessionId, String>,
    not_ready: Option<Vec<String>>,
    targets: HashMap<(String, String), TargetState>,
    config: Option<Arc<Config>>,
}

impl Monitor {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), events: broadcast::Sender::new(EVENTS_MAX) }
    }

    /// Watches until it is dropped.
    pub(super) async fn run<C: Control>(self: Arc<Self>, control: Arc<C>) {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sampled = Instant::now();
        loop {
            interval.tick().await;
            let now = Instant::now();
            let is_due = now.saturating_duration_since(sampled) >= SAMPLE_INTERVAL;
            let elapsed = now.saturating_duration_since(sampled);
            if is_due {
                sampled = now;
            }
            self.look(&*control, now, is_due.then_some(elapsed));
        }
    }

    /// Events after one that is known already, and those that follow them.
    pub(super) fn subscribe(&self, last: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let state = self.lock();
        // Under the lock, so that none is left out or told twice.
        let receiver = self.events.subscribe();
        (state.events.iter().filter(|event| event.id > last).cloned().collect(), receiver)
    }

    /// Channels that ended in the last minute, oldest first.
    pub(super) fn dead_channels(&self) -> Vec<DeadChannel> {
        self.lock().dead.iter().map(|(_, dead)| dead.clone()).collect()
    }

    pub(super) fn history(&self) -> Histories {
        let state = self.lock();
        let mut channels: Vec<_> = state
            .channels
            .iter()
            .map(|((session, channel), known)| ChannelHistory {
                peer: known.peer.clone(),
                session: session.to_string(),
                channel: *channel,
                kind: known.channel.kind,
                history: known.history.clone(),
            })
            .collect();
        channels.sort_by(|a, b| (&a.peer, a.channel).cmp(&(&b.peer, b.channel)));
        Histories { version: super::status::VERSION, interval_ms: SAMPLE_INTERVAL.as_millis() as u64, channels }
    }

    fn look<C: Control>(&self, control: &C, now: Instant, sample: Option<Duration>) {
        let sessions = control.gateway().peers().all();
        let seen: Vec<_> = sessions
            .iter()
            .map(|session| (session.id(), session.peer().node_id.name().to_owned(), channels_of(&session.stats())))
            .collect();
        let reasons = not_ready(control);
        let targets = targets::states(control.gateway().services());
        let config = control.config();
        let mut state = self.lock();
        let mut told = Vec::new();
        state.look_at_sessions(&seen, &mut told);
        state.look_at_channels(&seen, now, sample, &mut told);
        state.look_at_targets(targets, &mut told);
        if state.not_ready.as_ref() != Some(&reasons) {
            let text =
                if reasons.is_empty() { "ready".to_owned() } else { format!("not ready: {}", reasons.join("; ")) };
            told.push((if reasons.is_empty() { "ready" } else { "not-ready" }, None, text));
            state.not_ready = Some(reasons);
        }
        if let Some(before) = state.config.replace(Arc::clone(&config))
            && !Arc::ptr_eq(&before, &config)
        {
            told.push(("reloaded", None, "the configuration was reloaded".to_owned()));
        }
        for (kind, peer, text) in told {
            // Numbers go on over a restart, so that a page which comes back does not take new events for known ones.
            state.last_event = now_unix_ms().max(state.last_event + 1);
            let event = Event { id: state.last_event, time_unix_ms: now_unix_ms(), kind, peer, text };
            if state.events.len() >= EVENTS_MAX {
                state.events.pop_front();
            }
            state.events.push_back(event.clone());
            // Nobody has to listen.
            let _ = self.events.send(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Seen = (SessionId, String, Vec<Channel>);
type Told = (&'static str, Option<String>, String);

impl State {
    fn look_at_sessions(&mut self, seen: &[Seen], told: &mut Vec<Told>) {
        for (id, peer, _) in seen {
            if self.sessions.insert(*id, peer.clone()).is_none() {
                told.push(("session-begun", Some(peer.clone()), format!("session with {peer} began")));
            }
        }
        self.sessions.retain(|id, peer| {
            let lives = seen.iter().any(|(other, ..)| other == id);
            if !lives {
                told.push(("session-ended", Some(peer.clone()), format!("session with {peer} ended")));
            }
            lives
        });
    }

    fn look_at_targets(&mut self, seen: Vec<((String, String), TargetReport)>, told: &mut Vec<Told>) {
        let before = std::mem::take(&mut self.targets);
        for (name, report) in seen {
            let was_used = before.get(&name).is_none_or(|state| state.is_used());
            let (service, target) = &name;
            let why = report.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            match (was_used, report.state) {
                (true, TargetState::Down) => {
                    told.push(("target-down", None, format!("service {service}: target {target} is down{why}")));
                }
                (true, TargetState::Ejected) => {
                    told.push(("target-ejected", None, format!("service {service}: target {target} is left out{why}")));
                }
                (false, TargetState::Up | TargetState::Unchecked) => {
                    told.push(("target-up", None, format!("service {service}: target {target} is used again")));
                }
                _ => {}
            }
            self.targets.insert(name, report.state);
        }
    }

    fn look_at_channels(&mut self, seen: &[Seen], now: Instant, sample: Option<Duration>, told: &mut Vec<Told>) {
        while self.dead.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) > DEAD_SHOWN) {
            self.dead.pop_front();
        }
        let mut before = std::mem::take(&mut self.channels);
        for (session, peer, channels) in seen {
            for channel in channels.iter().take(CHANNELS_MAX) {
                let name = format!("{} channel {}", channel.kind, channel.id);
                let tell = |kind, what: &str| (kind, Some(peer.clone()), format!("{name} to {peer} {what}"));
                let mut known = before.remove(&(*session, channel.id)).unwrap_or_else(|| {
                    told.push(tell("channel-up", "is there"));
                    Known {
                        peer: peer.clone(),
                        channel: channel.clone(),
                        sampled: channel.totals(),
                        history: History::default(),
                    }
                });
                match (known.channel.state, channel.state) {
                    (old, "suspect") if old != "suspect" => {
                        told.push(tell("channel-suspect", "acknowledges nothing"));
                    }
                    ("suspect", _) if channel.state != "suspect" => told.push(tell("channel-up", "has recovered")),
                    _ => {}
                }
                known.channel = channel.clone();
                if let Some(elapsed) = sample {
                    known.sample(elapsed);
                }
                self.channels.insert((*session, channel.id), known);
            }
        }
        for ((session, _), known) in before {
            let Known { peer, mut channel, .. } = known;
            told.push((
                "channel-down",
                Some(peer.clone()),
                format!("{} channel {} to {peer} is dead", channel.kind, channel.id),
            ));
            channel.state = "dead";
            if self.dead.len() >= DEAD_MAX {
                self.dead.pop_front();
            }
            let dead = DeadChannel { peer, session: session.to_string(), channel, ended_unix_ms: now_unix_ms() };
            self.dead.push_back((now, dead));
        }
    }
}

impl Known {
    fn sample(&mut self, elapsed: Duration) {
        let now = self.channel.totals();
        let [sent, received, again] = std::array::from_fn(|index| now[index].saturating_sub(self.sampled[index]));
        self.sampled = now;
        let rate = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64().max(f64::EPSILON)) as u64;
        let history = &mut self.history;
        push(&mut history.sent_bytes_per_second, rate(sent));
        push(&mut history.received_bytes_per_second, rate(received));
        push(&mut history.round_trip_ms, self.channel.round_trip_ms);
        push(&mut history.loss_ratio, if sent == 0 { 0.0 } else { (again as f64 / sent as f64).min(1.0) });
    }
}

fn push<T>(series: &mut VecDeque<T>, value: T) {
    if series.len() >= SAMPLES_MAX {
        series.pop_front();
    }
    series.push_back(value);
}

pub(super) fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// A page shows within two seconds that a channel is dead; half of a quarter is lost here on average.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// One point of a graph.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Five minutes.
const SAMPLES_MAX: usize = 300;

/// Channels of a session of which it is remembered how they did: as many as a session has lanes.
const CHANNELS_MAX: usize = 64;

/// Events that whoever comes later still gets.
const EVENTS_MAX: usize = 200;

/// How long a channel that is dead is shown.
const DEAD_SHOWN: Duration = Duration::from_secs(60);

/// Dead channels that are shown: in an outage many die.
const DEAD_MAX: usize = 64;
