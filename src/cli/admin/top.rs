//! `longhaul top`: links, channels and services on the whole terminal, live; of a hub also tokens and nodes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Row, Table};
use serde_json::Value;

use super::table::{bytes, list, milliseconds, node_row, text, token_row};
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
        let of_hub = |key: &str| match &self.status["authority"] {
            Value::Null => 0,
            authority => (list(&authority[key]).len() as u16).min(HUB_ROWS_MAX) + 2,
        };
        let heights = [
            Constraint::Length(1),
            Constraint::Length(rows("links") + 3),
            Constraint::Min(5),
            Constraint::Length((rows("services") + rows("forwards")).min(12) + 3),
            // On a low terminal these give way.
            Constraint::Max(of_hub("tokens")),
            Constraint::Max(of_hub("nodes")),
        ];
        let [head, links, channels, services, tokens, nodes] = Layout::vertical(heights).areas(frame.area());
        frame.render_widget(self.head(), head);
        frame.render_widget(self.links(), links);
        frame.render_widget(self.channels(), channels);
        frame.render_widget(self.services(), services);
        // Of height 0 where the node is no hub.
        frame.render_widget(self.tokens(), tokens);
        frame.render_widget(self.nodes(), nodes);
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

    /// Of a hub: the first ones, which are those that are worth something, and how many there are.
    fn tokens(&self) -> Table<'static> {
        let authority = &self.status["authority"];
        let mut title = vec![Span::from(format!("tokens: {}", authority["token_count"]))];
        if authority["error"].is_string() {
            let error = format!("its state cannot be read, and what is shown is old: {}", text(&authority["error"]));
            title.extend([Span::from("  "), Span::styled(error, emphasis(false))]);
        }
        let widths = [
            Constraint::Length(16),
            Constraint::Length(8),
            Constraint::Min(12),
            Constraint::Length(11),
            Constraint::Length(20),
        ];
        let rows = list(&authority["tokens"]).iter().map(|token| Row::new(token_row(token)));
        table(title, ["token", "state", "name", "used", "until"], rows, widths)
    }

    /// Of a hub: the nodes whose certificates end first, and what was issued in all.
    fn nodes(&self) -> Table<'static> {
        let authority = &self.status["authority"];
        let [nodes, issued, denied] =
            ["node_count", "certificates_issued", "denied_count"].map(|key| authority[key].to_string());
        let title = format!("nodes: {nodes}  certificates issued: {issued}  on the denylist: {denied}");
        // Who was revoked was meant to be.
        let row = |node: &Value| Row::new(node_row(node)).style(emphasis(node["state"] != "expired"));
        let widths = [Constraint::Min(26), Constraint::Length(8), Constraint::Length(20)];
        table(title, ["node", "state", "until"], list(&authority["nodes"]).iter().map(row), widths)
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
    title: impl Into<Line<'static>>,
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

/// Of tokens and of nodes: links and channels are what the terminal is for. `longhaul status` has more.
const HUB_ROWS_MAX: u16 = 5;

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    /// What a terminal of 100 columns shows, line by line.
    fn shown(status: Value, height: u16) -> Vec<String> {
        let mut view = View::default();
        view.take(status);
        let mut terminal = Terminal::new(TestBackend::new(100, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let cells = terminal.backend().buffer().content();
        cells.chunks(100).map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect()).collect()
    }

    fn has(shown: &[String], words: &[&str]) -> bool {
        shown.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    fn node() -> Value {
        json!({ "node": { "name": "hub" }, "ready": true, "links": [{ "peer": "dc-b", "state": "up" }], "authority": null })
    }

    fn hub() -> Value {
        let token = |number: usize| {
            json!({
                "id": format!("TOKEN{number}"), "state": if number == 0 { "valid" } else { "used up" }, "name": "dc-*",
                "use_count": 1, "uses_max": 3, "not_after_unix": 1_800_000_000,
            })
        };
        let node_of =
            |name: &str, state: &str| json!({ "name": name, "state": state, "not_after_unix": 1_800_003_600 });
        let mut status = node();
        status["authority"] = json!({
            "tokens": (0..7).map(token).collect::<Vec<_>>(), "token_count": 7, "node_count": 2,
            "nodes": [node_of("dc-b", "valid"), node_of("dc-c", "expired")],
            "certificates_issued": 9, "denied_count": 1, "denylist_version": 4, "error": null,
        });
        status
    }

    #[test]
    fn a_hub_shows_its_tokens_nodes_and_certificates() {
        let shown = shown(hub(), 30);
        assert!(has(&shown, &["tokens: 7"]), "{shown:#?}");
        assert!(has(&shown, &["TOKEN0", "valid", "dc-*", "1/3", "2027-01-15"]), "{shown:#?}");
        assert!(has(&shown, &["nodes: 2", "certificates issued: 9", "on the denylist: 1"]), "{shown:#?}");
        assert!(has(&shown, &["dc-c", "expired", "2027-01-15"]), "{shown:#?}");
        // The first ones only: links have their place, too.
        assert!(has(&shown, &["TOKEN4"]) && !has(&shown, &["TOKEN5"]), "{shown:#?}");
        assert!(has(&shown, &["dc-b", "up"]), "{shown:#?}");
    }

    #[test]
    fn links_and_services_keep_their_place_on_a_low_terminal() {
        let mut status = hub();
        status["links"] = (0..3).map(|number| json!({ "peer": format!("peer{number}"), "state": "down" })).collect();
        status["services"] = json!([{ "name": "web", "open": 0, "connections": 5 }]);
        let shown = shown(status, 20);
        assert!(["peer0", "peer1", "peer2", "service web"].iter().all(|word| has(&shown, &[word])), "{shown:#?}");
        let lines = shown.iter().skip_while(|line| !line.starts_with("channels")).take(5);
        assert!(lines.skip(1).all(|line| !line.contains("──")), "{shown:#?}");
    }

    #[test]
    fn state_of_a_hub_that_cannot_be_read_is_said_to_be_old() {
        let mut status = hub();
        status["authority"]["error"] = "disk\u{1b}[2J is gone".into();
        let shown = shown(status, 30);
        assert!(has(&shown, &["tokens: 7", "what is shown is old: disk [2J is gone"]), "{shown:#?}");
    }

    #[test]
    fn a_node_that_is_no_hub_shows_no_tokens() {
        let shown = shown(node(), 30);
        assert!(has(&shown, &["services and forwards"]), "{shown:#?}");
        assert!(!has(&shown, &["tokens"]) && !has(&shown, &["nodes"]), "{shown:#?}");
    }
}
