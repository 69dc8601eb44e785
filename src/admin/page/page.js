"use strict";
// Shows /status once a second, and at once when /events tells of something. Rates come from the counters, and those of
// the minutes before the page was opened from /history. Everything is put in as text, never as markup.

const POINTS = 300;
const SVG = "http://www.w3.org/2000/svg";
// A sign and a word for each state: colour only repeats them.
const SIGNS = {
  up: ["●", "good"], active: ["●", "good"], valid: ["●", "good"],
  joining: ["◌", "warn"], suspect: ["▲", "warn"], outage: ["▲", "warn"], "ends soon": ["▲", "warn"],
  down: ["✕", "bad"], dead: ["✕", "bad"], expired: ["✕", "bad"], revoked: ["✕", "bad"], "used up": ["○", "warn"],
};
const RTT_BOUNDS = [0.5, 1, 2.5, 5, 10, 15, 30, 45, 60, 90, 120, 150, 180, 240, 300, 320, 440, 560, 680, 800, 1100, 1400, 1700, 2000];
const LOSS_BOUNDS = [0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

const series = new Map();
let last = null;
let asking = false;
let again = false;

const byId = (id) => document.getElementById(id);
const keyOf = (session, channel) => `${session}/${channel}`;

function element(name, attributes, ...children) {
  const node = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value.toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}
const rate = (value) => (value === null || value === undefined ? "–" : `${bytes(value)}/s`);
const milliseconds = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(1)} ms`);

function state(word) {
  const [sign, kind] = SIGNS[word] || ["?", "warn"];
  return { text: `${sign} ${word}`, kind };
}

// Rows keep their nodes: a reader in the middle of a table stays where it is.
function fill(id, rows) {
  const body = byId(id);
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const { key, cells, kind } of rows) {
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = element("tr", { "data-key": key });
      cells.forEach((_, index) => row.append(index === 0 ? element("th", { scope: "row" }) : element("td", {})));
    }
    row.className = kind || "";
    cells.forEach((cell, index) => put(row.cells[index], cell));
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
  known.forEach((row) => row.remove());
}

function put(cell, content) {
  if (content && content.lines) {
    graph(cell, content);
  } else if (content && content.kind) {
    cell.className = `state ${content.kind}`;
    if (cell.textContent !== content.text) cell.textContent = content.text;
  } else if (cell.textContent !== String(content)) {
    cell.textContent = content;
  }
}

function graph(cell, { lines, label }) {
  let drawing = cell.firstElementChild;
  if (!drawing) {
    drawing = element("svg:svg", { class: "graph", viewBox: "0 0 160 34", role: "img" });
    lines.forEach((_, index) => drawing.append(element("svg:path", { class: index === 0 ? "first" : "second" })));
    cell.append(drawing);
  }
  drawing.setAttribute("aria-label", label);
  const top = Math.max(1e-9, ...lines.flat().filter((value) => value !== null));
  lines.forEach((values, index) => {
    let path = "";
    let pen = "M";
    values.forEach((value, at) => {
      if (value === null) { pen = "M"; return; }
      const x = 160 - (values.length - 1 - at) * (160 / (POINTS - 1));
      path += `${pen}${x.toFixed(1)} ${(32 - (value / top) * 30).toFixed(1)}`;
      pen = "L";
    });
    drawing.children[index].setAttribute("d", path);
  });
}

function newSeries() { return { sent: [], received: [], rtt: [], loss: [] }; }
function push(list, value) { list.push(value); if (list.length > POINTS) list.shift(); }

function measure(status) {
  const now = new Map();
  for (const session of status.sessions) {
    for (const channel of session.channels) now.set(keyOf(session.id, channel.id), channel);
  }
  const seconds = last ? (status.time_unix_ms - last.time) / 1000 : 0;
  // Between two points there is about a second; an event may have the page look in between.
  if (last && seconds < 0.8) return;
  for (const [key, channel] of now) {
    const before = last && last.channels.get(key);
    if (!series.has(key)) series.set(key, newSeries());
    if (!before || seconds <= 0) continue;
    const of = series.get(key);
    const sent = Math.max(0, channel.bytes_sent - before.bytes_sent);
    push(of.sent, sent / seconds);
    push(of.received, Math.max(0, channel.bytes_received - before.bytes_received) / seconds);
    push(of.rtt, channel.round_trip_ms);
    push(of.loss, sent > 0 ? Math.min(1, Math.max(0, channel.reinjected_bytes - before.reinjected_bytes) / sent) : 0);
  }
  const shown = new Set([...now.keys(), ...status.dead_channels.map((dead) => keyOf(dead.session, dead.id))]);
  for (const key of series.keys()) if (!shown.has(key)) series.delete(key);
  last = { time: status.time_unix_ms, channels: now };
}

function showHead(status) {
  byId("name").textContent = status.node.name;
  document.title = `${status.ready ? "" : "✕ "}${status.node.name} · longhaul`;
  const ready = byId("ready");
  const text = status.ready ? "● ready" : `✕ not ready: ${status.not_ready.join("; ")}`;
  if (ready.textContent !== text) ready.textContent = text;
  ready.className = status.ready ? "good" : "bad";
  const hours = (status.node.uptime_seconds / 3600).toFixed(1);
  const keyLog = status.node.key_log ? " · KEY LOG IS ON" : "";
  byId("facts").textContent = `${status.node.id} · version ${status.node.software} · up ${hours} h${keyLog}`;
}

function showLinks(status) {
  fill("links", status.links.map((link) => {
    const session = status.sessions.find((session) => session.id === link.session);
    return {
      key: link.peer,
      cells: [
        link.peer + (link.required ? "" : " (not required)"), state(link.state), `${link.channels_up} of ${link.channels_wanted}`,
        milliseconds(session && session.round_trip_ms), session ? session.streams : "–", link.last_error || "–",
      ],
    };
  }));
}

function showChannels(status) {
  const row = (peer, session, channel) => {
    const key = keyOf(session, channel.id);
    const of = series.get(key) || newSeries();
    const newest = (list) => (channel.state === "dead" || list.length === 0 ? null : list[list.length - 1]);
    const [sent, received] = [newest(of.sent), newest(of.received)];
    return {
      key,
      kind: channel.state === "dead" ? "dead" : "",
      cells: [
        `${peer} ${channel.kind} ${channel.id}`, state(channel.state), rate(sent), rate(received),
        { lines: [of.sent, of.received], label: `bandwidth, sent ${rate(sent)}, received ${rate(received)}` },
        milliseconds(channel.round_trip_ms),
        { lines: [of.rtt], label: `round trip, ${milliseconds(channel.round_trip_ms)}` },
        bytes(channel.reinjected_bytes),
      ],
    };
  };
  const living = status.sessions.flatMap((session) => session.channels.map((channel) => row(session.peer, session.id, channel)));
  const dead = [...status.dead_channels].reverse().map((channel) => row(channel.peer, channel.session, channel));
  fill("channels", living.concat(dead));
}

function counted(values, bounds) {
  const counts = new Array(bounds.length + 1).fill(0);
  for (const value of values) {
    const place = bounds.findIndex((bound) => value <= bound);
    counts[place < 0 ? bounds.length : place] += 1;
  }
  return counts;
}

// What the node has measured itself, of all links together; nothing if it measures nothing.
function measured(status, name) {
  const all = (status.measurements?.links || []).map((link) => link[name]).filter(Boolean);
  if (all.length === 0) return null;
  const bounds = all[0].boundaries;
  return { bounds, counts: all[0].counts.map((_, at) => all.reduce((sum, one) => sum + (one.counts[at] || 0), 0)) };
}

function showHistograms(status) {
  const all = [...series.values()];
  const latency = measured(status, "latency");
  const loss = measured(status, "loss");
  if (latency) {
    showHistogram("latency", latency.counts, latency.bounds.map((seconds) => Math.round(seconds * 1e6) / 1e3), (ms) => `${ms} ms`);
  } else {
    const values = all.flatMap((of) => of.rtt).filter((value) => value !== null);
    showHistogram("latency", counted(values, RTT_BOUNDS), RTT_BOUNDS, (ms) => `${ms} ms`);
  }
  const share = (value) => `${Math.round(value * 1e6) / 1e4} %`;
  if (loss) showHistogram("loss", loss.counts, loss.bounds, share);
  else showHistogram("loss", counted(all.flatMap((of) => of.loss), LOSS_BOUNDS), LOSS_BOUNDS, share);
  byId("latency-note").textContent = latency
    ? "Every measurement of all links since the node was started."
    : "How often, looking once a second at each channel, in the last five minutes.";
  byId("loss-note").textContent = loss
    ? "Share of lost packets, window by window, of all links since the node was started."
    : "Share of the sent bytes that had to go out again, second by second.";
}

function showWindows(status) {
  const links = status.measurements?.links || [];
  byId("windows-section").hidden = links.length === 0;
  const share = (value) => (value === null || value === undefined ? "–" : `${(value * 100).toFixed(2)} %`);
  fill("windows", links.flatMap((link) => link.windows.map((of) => ({
    key: `${link.peer} ${of.window_seconds}`,
    cells: [
      `${link.peer}, ${of.window_seconds} s`, rate(of.sent_bytes_per_second), rate(of.received_bytes_per_second),
      `${of.packets_sent} / ${of.packets_received}`, `${of.fragments_sent} / ${of.fragments_received}`,
      milliseconds(of.latency_mean_seconds === null ? null : of.latency_mean_seconds * 1000), share(of.loss_ratio),
      bytes(of.retransmitted_bytes + of.reinjected_bytes), share(of.padding_ratio),
    ],
  }))));
}

function showHistogram(id, counts, bounds, label) {
  const names = counts.map((_, at) => (at < bounds.length ? `≤ ${label(bounds[at])}` : `> ${label(bounds[bounds.length - 1])}`));
  let first = counts.findIndex((count) => count > 0);
  let end = counts.length - 1;
  while (end > 0 && counts[end] === 0) end -= 1;
  if (first < 0) { first = 0; end = 0; }
  [first, end] = [Math.max(0, first - 1), Math.min(counts.length - 1, end + 1)];
  const most = Math.max(1, ...counts);
  const total = Math.max(1, counts.reduce((sum, count) => sum + count, 0));
  const height = (end - first + 1) * 20 + 8;
  const drawing = element("svg:svg", { class: "bars", viewBox: `0 0 400 ${height}`, "aria-hidden": "true" });
  const words = [];
  for (let at = first; at <= end; at += 1) {
    const y = (at - first) * 20 + 4;
    const share = `${((counts[at] / total) * 100).toFixed(1)} %`;
    drawing.append(
      element("svg:text", { x: 6, y: y + 14 }, names[at]),
      element("svg:rect", { x: 90, y: y + 3, width: ((counts[at] / most) * 245).toFixed(1), height: 14 }),
      element("svg:text", { x: 342, y: y + 14 }, share),
    );
    if (counts[at] > 0) words.push(`${names[at]}: ${share}`);
  }
  byId(id).replaceChildren(drawing);
  byId(`${id}-text`).textContent = words.join(", ") || "nothing yet";
}

function showServices(status) {
  const row = (key, name, target, of) => ({
    key,
    cells: [
      name, target, of.open, of.connections, bytes(of.bytes_to_peer), bytes(of.bytes_from_peer),
      Object.entries(of.refused).map(([reason, count]) => `${reason} ${count}`).join(", ") || "–",
    ],
  });
  const state = (target) => (target.state === "down" || target.state === "ejected" ? ` (${target.state})` : "");
  const targets = (service) => service.targets.map((target) => target.target + state(target)).join(", ");
  const services = status.services.map((service) => row(`s${service.name}`, `service ${service.name}`, targets(service), service));
  const forwards = status.forwards.map((forward) =>
    row(`f${forward.listen}`, `forward ${forward.listen}`, `${forward.service} at ${forward.peer}`, forward));
  fill("services", services.concat(forwards));
}

const until = (end) => (Number.isFinite(end) && end < 8e12 ? new Date(end * 1000).toLocaleString() : "–");

// Where the node is a hub: what its authority has let in, and lets in.
function showAuthority(status) {
  const authority = status.authority;
  byId("authority").hidden = !authority;
  if (!authority) return;
  const left = (count, shown) => (count > shown ? `, of which the first ${shown} are here` : "");
  byId("tokens-note").textContent = authority.error
    ? `✕ its state cannot be read, and what is shown is old: ${authority.error}`
    : `${authority.token_count} tokens${left(authority.token_count, authority.tokens.length)}. Their secrets are not known here.`;
  fill("tokens", authority.tokens.map((token) => ({
    key: token.id,
    cells: [
      token.id, state(token.state), token.name, token.is_for_guests ? "guests" : "machines",
      `${Math.max(0, token.uses_max - token.use_count)} of ${token.uses_max}`, until(token.not_after_unix),
    ],
  })));
  byId("issued-note").textContent =
    `${authority.certificates_issued} certificates issued to ${authority.node_count} nodes` +
    `${left(authority.node_count, authority.nodes.length)}; ${authority.denied_count} on the denylist ` +
    `(version ${authority.denylist_version}).`;
  fill("issued", authority.nodes.map((node) => ({
    key: node.name, cells: [node.name, state(node.state), until(node.not_after_unix)],
  })));
}

function showCertificates(status) {
  const row = (name, end) => {
    const left = end - status.time_unix_ms / 1000;
    const word = left <= 0 ? "expired" : left < 8 * 3600 ? "ends soon" : "valid";
    return { key: name, cells: [name, state(word), until(end)] };
  };
  const own = [
    row(`this node, ${status.node.name}`, status.certificate.not_after_unix),
    row("trust anchors, the last of them", status.certificate.anchors_not_after_unix),
  ];
  const peers = new Map(status.sessions.map((session) => [session.peer, session.peer_certificate_not_after_unix]));
  fill("certificates", own.concat([...peers].map(([peer, end]) => row(`peer ${peer}`, end))));
}

function show(status) {
  measure(status);
  showHead(status);
  showLinks(status);
  showChannels(status);
  showWindows(status);
  showHistograms(status);
  showServices(status);
  showCertificates(status);
  showAuthority(status);
}

async function refresh() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    const answer = await fetch("/status", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    const ready = byId("ready");
    ready.textContent = `✕ the node does not answer; what is shown is old (${error.message})`;
    ready.className = "bad";
  } finally {
    asking = false;
    if (again) { again = false; refresh(); }
  }
}

function onEvent(message) {
  const event = JSON.parse(message.data);
  const at = new Date(event.time_unix_ms);
  const line = element("li", {}, element("time", { datetime: at.toISOString() }, at.toLocaleTimeString()), event.text);
  const list = byId("events");
  list.prepend(line);
  while (list.children.length > 200) list.lastElementChild.remove();
  refresh();
}

async function start() {
  try {
    const history = await (await fetch("/history")).json();
    for (const channel of history.channels) {
      series.set(keyOf(channel.session, channel.channel), {
        sent: channel.sent_bytes_per_second, received: channel.received_bytes_per_second,
        rtt: channel.round_trip_ms, loss: channel.loss_ratio,
      });
    }
  } catch { /* The graphs begin now. */ }
  const kinds = ["session-begun", "session-ended", "channel-up", "channel-suspect", "channel-down", "ready", "not-ready", "reloaded"];
  const events = new EventSource("/events");
  kinds.forEach((kind) => events.addEventListener(kind, onEvent));
  refresh();
  setInterval(refresh, 1000);
}

start();
