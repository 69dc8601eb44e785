//! The layers hold: a file uses only layers below its own, and the core reads no clock and does no I/O.
//!
//! Reads the sources as text, so that it needs no compiler and sees every feature at once. Tests inside of `src` are
//! left out: they may use what is above.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with the layers that it may use, lowest first.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("crypto", &["base", "wire"]),
    // Beside crypto: streams know no keys.
    ("stream", &["base", "wire"]),
    ("session", &["base", "wire", "crypto", "stream"]),
    // Beside the session: for the channels whose transport leaves congestion to the program.
    ("congestion", &["base"]),
    ("channel", &["base", "wire", "crypto", "stream", "session", "congestion"]),
    ("node", &["base", "wire", "crypto", "stream", "session", "congestion", "channel"]),
    ("service", &["base", "wire", "crypto", "stream", "session", "congestion", "channel", "node"]),
    // Reads the node and its services, and changes nothing.
    ("telemetry", &["base", "wire", "session", "stream", "crypto", "channel", "node", "service"]),
    // Beside the others: makes certificates, for whoever wants some.
    ("issue", &["base", "wire", "crypto"]),
    // Lets machines in before they have a session, and guests of a node's sessions. Of the channels it uses addresses and
    // admission, of the node what judges guests.
    ("enroll", &["base", "wire", "crypto", "channel", "node", "issue"]),
    // Reads recordings; of a node it knows nothing.
    ("dissect", &["base", "wire", "crypto"]),
    (
        "config",
        &[
            "base",
            "wire",
            "crypto",
            "stream",
            "session",
            "congestion",
            "channel",
            "node",
            "service",
            "telemetry",
            "issue",
            "enroll",
        ],
    ),
    (
        "admin",
        &[
            "base",
            "wire",
            "crypto",
            "stream",
            "session",
            "congestion",
            "channel",
            "node",
            "service",
            "telemetry",
            "issue",
            "enroll",
            "config",
        ],
    ),
    (
        "cli",
        &[
            "base",
            "wire",
            "crypto",
            "stream",
            "session",
            "congestion",
            "channel",
            "node",
            "service",
            "telemetry",
            "issue",
            "enroll",
            "dissect",
            "config",
            "admin",
        ],
    ),
];

/// The layers without I/O.
const CORE: &[&str] = &["base", "wire", "crypto", "stream", "session", "congestion"];

/// What the core gets as arguments instead.
const FORBIDDEN_IN_CORE: &[(&str, &str)] = &[
    ("tokio", "the core knows no runtime"),
    ("Instant::now", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("std::net", "bytes are arguments"),
    ("std::fs", "bytes are arguments"),
    ("std::thread", "the core does not wait"),
    ("std::process", "the core knows no processes"),
    ("std::env", "configuration is an argument"),
    ("println!", "the core tells by events"),
];

/// A source file: where it is, and its code without comments and tests.
struct Source {
    path: PathBuf,
    code: String,
}

impl Source {
    /// The layer that the file belongs to; `lib.rs` and `main.rs` belong to none.
    fn layer(&self) -> Option<&str> {
        let mut parts = self.path.components().skip_while(|part| part.as_os_str() != "src").skip(1);
        let first = parts.next()?.as_os_str().to_str()?;
        match first {
            "lib.rs" | "main.rs" => None,
            name => Some(name.strip_suffix(".rs").unwrap_or(name)),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources are here");
    let paths = entries.map(|entry| entry.expect("the sources can be listed").path());
    let mut all = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => all.extend(files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => all.push(path),
            false => {}
        }
    }
    all.sort();
    all
}

fn is_test(path: &Path) -> bool {
    let is_test_name = |name: &str| name == "tests" || name == "tests.rs" || name.starts_with("test_");
    path.components().any(|part| part.as_os_str().to_str().is_some_and(is_test_name))
}

fn sources() -> Vec<Source> {
    let paths = files(&root().join("src"));
    let sources = paths.into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("a source is text");
        let path = path.strip_prefix(root()).expect("a path below the root").to_owned();
        Source { path, code: code_of(&text) }
    });
    sources.filter(|source| !is_test(&source.path)).collect()
}

/// The text without comments, and without the tests at its end.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_attribute = line.trim_start().starts_with("#[cfg(") && line.contains("test");
        if is_attribute && lines.peek().is_some_and(|next| next.starts_with("mod tests {")) {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// The first names behind every `crate::`, groups taken apart.
fn edges(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let is_part_of_name = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        let rest = &code[at + start.len()..];
        if is_part_of_name {
            continue;
        }
        match rest.strip_prefix('{') {
            None => names.push(first_name(rest)),
            Some(group) => names.extend(top_items(group).iter().map(|item| first_name(item))),
        }
    }
    names
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The items of a `use` group, as far as its closing brace.
fn top_items(group: &str) -> Vec<String> {
    let (mut depth, mut items) = (0, vec![String::new()]);
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ => {}
        }
        if let Some(last) = items.last_mut().filter(|_| character != ',' || depth > 0) {
            last.push(character);
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

#[test]
fn a_file_uses_only_layers_below_its_own() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(layer) = source.layer() else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            wrong.push(format!("{}: {layer} is no layer; add it to LAYERS", source.path.display()));
            continue;
        };
        for name in edges(&source.code) {
            let is_layer = LAYERS.iter().any(|(other, _)| *other == name);
            if is_layer && name != layer && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{}: {layer} may not use {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_reads_no_clock_and_does_no_io() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.layer().is_some_and(|layer| CORE.contains(&layer))) {
        for (word, reason) in FORBIDDEN_IN_CORE {
            if source.code.contains(word) {
                wrong.push(format!("{}: {word}: {reason}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_begins_by_saying_what_it_owns() {
    for folder in ["src", "tests"] {
        for path in files(&root().join(folder)) {
            let text = fs::read_to_string(&path).expect("a source is text");
            assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
        }
    }
}

#[test]
fn edges_are_found_in_every_form() {
    let code = code_of(
        "//! crate::comment\nuse crate::base::Side;\nuse crate::{wire::{Frame, Ack}, session};\n\
         let x = crate::node::run(); // crate::cli\n$crate::skipped;\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n",
    );
    assert_eq!(edges(&code), ["base", "wire", "session", "node"]);
}
