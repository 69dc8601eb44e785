//! A record as JSON, and as text for people. Neither has secrets of the protocol, or what streams carry.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Outcome, Place, Record};
use crate::base::{SessionId, Side};
use crate::wire::Frame;

/// One object; `docs/reference/cli.md` has its fields.
#[must_use]
pub fn json(place: &Place, record: &Record) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    if let Some(time) = place.time {
        put("time", json!(time.as_secs_f64()));
    }
    if let Some((from, to)) = place.addresses {
        put("from", json!(from.to_string()));
        put("to", json!(to.to_string()));
    }
    put("side", json!(side(record.side)));
    put("session", record.session_id.map_or(Value::Null, |id| json!(hex(id))));
    put("lane", json!(record.lane().0));
    put("kind", json!(record.kind));
    put("bytes", json!(record.message_bytes));
    if record.kind.starts_with("sealed") || record.kind == "plain" {
        put("epoch", json!(record.head.epoch.0));
        put("packet", json!(record.head.packet_number.0));
    }
    match &record.outcome {
        Outcome::Clear(numbers) => {
            for (name, number) in numbers {
                put(name, json!(number));
            }
        }
        Outcome::Opened { frames, padding_bytes } => {
            put("frames", frames.iter().map(frame).collect());
            put("padding", json!(padding_bytes));
        }
        Outcome::Closed(reason) => put("closed", json!(reason.to_string())),
        Outcome::Damaged(error) => put("damaged", json!(error.to_string())),
    }
    Value::Object(object)
}

/// A line for the message, and one for each frame. Times are since `origin`.
#[must_use]
pub fn text(place: &Place, record: &Record, origin: Option<Duration>) -> String {
    let Value::Object(object) = json(place, record) else { return String::new() };
    let mut line = String::new();
    if let Some(time) = place.time {
        let _ = write!(line, "{:12.6}  ", time.saturating_sub(origin.unwrap_or(time)).as_secs_f64());
    }
    if let Some((from, to)) = place.addresses {
        let _ = write!(line, "{from} > {to}  ");
    }
    let session = record.session_id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    let _ = write!(line, "{}  session {session}  lane {}  {}", side(record.side), record.lane(), record.kind);
    const SAID: [&str; 8] = ["time", "from", "to", "side", "session", "lane", "kind", "frames"];
    for (name, value) in object.iter().filter(|(name, _)| !SAID.contains(&name.as_str())) {
        let _ = write!(line, "  {name} {}", plain(value));
    }
    line.push('\n');
    for frame in object.get("frames").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
        line.push_str("    ");
        line.push_str(&frame.get("frame").map(plain).unwrap_or_default());
        for (name, value) in frame.iter().filter(|(name, value)| *name != "frame" && **value != Value::Bool(false)) {
            let _ = if *value == Value::Bool(true) {
                write!(line, "  {name}")
            } else {
                write!(line, "  {name} {}", plain(value))
            };
        }
        line.push('\n');
    }
    line
}

/// Texts come from peers: nothing of them commands the terminal.
fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A frame, by its name and its fields in `proto/longhaul.proto`. Byte strings are shown by their size.
fn frame(frame: &Frame) -> Value {
    match frame {
        Frame::Stream(data) => json!({
            "frame": "stream_data", "stream_id": data.stream_id.0, "offset": data.offset, "size": data.data.len(),
            "fin": data.fin,
        }),
        Frame::StreamOpen { stream_id, priority, replay_safe } => json!({
            "frame": "stream_open", "stream_id": stream_id.0, "priority": priority, "replay_safe": replay_safe,
        }),
        Frame::StreamReset { stream_id, code, final_size } => json!({
            "frame": "stream_reset", "stream_id": stream_id.0, "code": code.to_string(), "final_size": final_size,
        }),
        Frame::StreamStop { stream_id, code } => {
            json!({ "frame": "stream_stop", "stream_id": stream_id.0, "code": code.to_string() })
        }
        Frame::Ack(ack) => json!({
            "frame": "ack", "lane_id": ack.lane_id.0, "next_packet_number": ack.next_packet_number.0,
            "delay_us": ack.delay_us, "ranges": ack.ranges,
        }),
        Frame::MaxData { maximum } => json!({ "frame": "max_data", "maximum": maximum }),
        Frame::MaxStreamData { stream_id, maximum } => {
            json!({ "frame": "max_stream_data", "stream_id": stream_id.0, "maximum": maximum })
        }
        Frame::MaxStreams { direction, maximum } => json!({
            "frame": "max_streams", "unidirectional": *direction == crate::base::Direction::Uni, "maximum": maximum,
        }),
        Frame::DataBlocked { limit } => json!({ "frame": "data_blocked", "limit": limit }),
        Frame::StreamDataBlocked { stream_id, limit } => {
            json!({ "frame": "stream_data_blocked", "stream_id": stream_id.0, "limit": limit })
        }
        Frame::StreamsBlocked { direction, limit } => json!({
            "frame": "streams_blocked", "unidirectional": *direction == crate::base::Direction::Uni, "limit": limit,
        }),
        Frame::Ping { sequence } => json!({ "frame": "ping", "sequence": sequence }),
        Frame::Pong { sequence, delay_us } => json!({ "frame": "pong", "sequence": sequence, "delay_us": delay_us }),
        Frame::KeyUpdate { epoch } => json!({ "frame": "key_update", "epoch": epoch.0 }),
        Frame::Handshake(data) => json!({
            "frame": "handshake", "level": data.level as u64, "offset": data.offset, "size": data.data.len(),
        }),
        Frame::Accepted { .. } => json!({ "frame": "accepted" }),
        Frame::MaxLanes { maximum } => json!({ "frame": "max_lanes", "maximum": maximum }),
        Frame::LaneClose { lane_id, code } => {
            json!({ "frame": "lane_close", "lane_id": lane_id.0, "code": code.to_string() })
        }
        Frame::Close { code, reason } => json!({ "frame": "close", "code": code.to_string(), "reason": reason }),
        Frame::GoAway { code, reason } => json!({ "frame": "go_away", "code": code.to_string(), "reason": reason }),
        Frame::JoinConfirm { .. } => json!({ "frame": "join_confirm" }),
        Frame::Datagram(datagram) => {
            let piece = datagram.piece;
            json!({
                "frame": "datagram", "stream_id": datagram.stream_id.0, "number": piece.map(|piece| piece.number),
                "whole_size": piece.map(|piece| piece.size), "offset": piece.map_or(0, |piece| piece.offset),
                "size": datagram.data.len(),
            })
        }
        Frame::Guest(_) => json!({ "frame": "guest" }),
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

fn hex(id: SessionId) -> String {
    id.0.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
