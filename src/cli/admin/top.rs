//! `longhaul top`: links, channels and services on the whole terminal, live.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Row, Table};
use serde_json::Value;

use super::table::{bytes, list, milliseconds, text};
use super::{NodeArgs, block_on};
use crate::cli::CliError;

/// Arguments of `longhaul top`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(in crate::cli) fn run(args: Args) -> Result<(), CliError> {
    let node = args.node.node()?;
    let mut view = View::default();
    view.take(block_on(node.get("/status"))?);
    let mut terminal = ratatui::try_init()?;
    let outcome = loop {
        if let Err(error) = terminal.draw(|frame| view.draw(frame)) {
            break Err(error.into());
        }
        match is_over(INTERVAL) {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error.into()),
        }
        match block_on(node.get("/status")) {
            Ok(status) => view.take(status),
            Err(error) => break Err(error),
        }
    };
    ratatui::restore();
    outcome
}

/// Waits for a time, and for a key that ends the program.
fn is_over(time: Duration) -> std::io::Result<bool> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if !event::poll(left)? {
            return Ok(false);
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
}

/// The status, and what rates are made of.
#[derive(Default)]
struct View {
    status: Value,
    taken: Option<Instant>,
    totals: HashMap<String, [f64; 2]>,
    rates: HashMap<String, [f64; 2]>,
}

impl View {
    fn take(&mut self, status: Value) {
        let now = Instant::now();
        let elapsed = self.taken.replace(now).map(|before| now.saturating_duration_since(before).as_secs_f64());
        let mut totals = HashMap::new();
        for (name, channel) in channels(&status) {
            let of = ["bytes_sent", "bytes_received"].map(|key| channel[key].as_f64().unwrap_or_default());
            totals.insert(name, of);
        }
        self.rates.clear();
        if let Some(elapsed) = elapsed.filter(|elapsed| *elapsed > 0.0) {
            for (name, now) in &totals {
                let before = self.totals.get(name).unwrap_or(now);
                let rate = std::array::from_fn(|index| (now[index] - before[index]).max(0.0) / elapsed);
                self.rates.insert(name.clone(), rate);
            }
        }
        (self.totals, self.status) = (totals, status);
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let rows = |key: &str| list(&self.status[key]).len() as u16;
        let heights = [
            Constraint::Length(1),
            Constraint::Length(rows("links") + 3),
            Constraint::Min(5),
            Constraint::Length((rows("services") + rows("forwards")).min(12) + 3),
        ];
        let [head, links, channels, services] = Layout::vertical(heights).areas(frame.area());
        frame.render_widget(self.head(), head);
        frame.render_widget(self.links(), links);
        frame.render_widget(self.channels(), channels);
        frame.render_widget(self.services(), services);
    }

    fn head(&self) -> Line<'static> {
        let ready = if self.status["ready"] == true { "ready" } else { "NOT READY" };
        Line::from(format!("longhaul {}  {ready}  (q ends)", text(&self.status["node"]["name"]))).bold()
    }

    fn links(&self) -> Table<'static> {
        let row = |link: &Value| {
            let channels = format!("{}/{}", link["channels_up"], link["channels_wanted"]);
            let row = [text(&link["peer"]), text(&link["state"]), channels, text(&link["last_error"])];
            Row::new(row).style(emphasis(link["state"] == "up"))
        };
        let widths = [Constraint::Length(20), Constraint::Length(8), Constraint::Length(9), Constraint::Min(10)];
        table("links", ["peer", "state", "channels", "last error"], list(&self.status["links"]).iter().map(row), widths)
    }

    fn channels(&self) -> Table<'static> {
        let row = |(name, channel): (String, Value)| {
            let [sent, received] = self.rates.get(&name).copied().unwrap_or_default();
            let rate = |bytes_per_second| format!("{}/s", bytes(Some(bytes_per_second)));
            let state = text(&channel["state"]);
            let is_good = state == "active";
            let rtt = milliseconds(&channel["round_trip_ms"]);
            let row = [name, text(&channel["kind"]), state, rtt, rate(sent), rate(received)];
            Row::new(row).style(emphasis(is_good))
        };
        let widths = [Constraint::Length(26), Constraint::Length(5), Constraint::Length(8)];
        let widths = widths.into_iter().chain([Constraint::Length(11); 3]).collect::<Vec<_>>();
        table(
            "channels",
            ["channel", "kind", "state", "RTT", "sent", "received"],
            channels(&self.status).into_iter().map(row),
            widths,
        )
    }

    fn services(&self) -> Table<'static> {
        let counters = |of: &Value, name: String| {
            let open = of["open"].to_string();
            let moved = ["bytes_to_peer", "bytes_from_peer"].map(|key| bytes(of[key].as_f64()));
            Row::new([name, open, of["connections"].to_string()].into_iter().chain(moved))
        };
        let services = list(&self.status["services"]).iter();
        let forwards = list(&self.status["forwards"]).iter();
        let rows = services
            .map(|service| counters(service, format!("service {}", text(&service["name"]))))
            .chain(forwards.map(|forward| counters(forward, format!("forward {}", text(&forward["listen"])))));
        let widths = [
            Constraint::Min(24),
            Constraint::Length(6),
            Constraint::Length(11),
            Constraint::Length(10),
            Constraint::Length(10),
        ];
        table("services and forwards", ["name", "open", "connections", "to peer", "from peer"], rows, widths)
    }
}

/// Living channels, and those that died lately, by name.
fn channels(status: &Value) -> Vec<(String, Value)> {
    let name = |peer: &Value, channel: &Value, session: &Value| {
        format!("{} {} ({:.4})", text(peer), channel["id"], text(session))
    };
    let living = list(&status["sessions"]).iter().flat_map(|session| {
        let of_session = |channel: &Value| (name(&session["peer"], channel, &session["id"]), channel.clone());
        list(&session["channels"]).iter().map(of_session).collect::<Vec<_>>()
    });
    let dead = list(&status["dead_channels"]).iter();
    let dead = dead.map(|channel| (name(&channel["peer"], channel, &channel["session"]), channel.clone()));
    living.chain(dead).collect()
}

fn table<const N: usize>(
    title: &'static str,
    head: [&'static str; N],
    rows: impl Iterator<Item = Row<'static>>,
    widths: impl IntoIterator<Item = Constraint>,
) -> Table<'static> {
    let block = Block::default().borders(Borders::TOP).title(title);
    Table::new(rows, widths).header(Row::new(head).style(Style::new().dim())).block(block)
}

/// Words tell the state; what needs attention stands out besides, with and without colour.
fn emphasis(is_good: bool) -> Style {
    if is_good { Style::new() } else { Style::new().bold().reversed() }
}

const INTERVAL: Duration = Duration::from_secs(1);
