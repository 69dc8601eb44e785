//! `check` of `[[service]]`: how its targets' health is found out.

use std::ops::Range;

use toml::Spanned;

use super::file::{self, Text};
use super::problem::{Problem, Problems};
use super::resolve::{number, value};
use super::values;
use crate::service::{CheckKind, CheckOptions, StatusCodes, Target, TargetConfig, Targets};

/// The checks of a service, if it has some.
pub(super) fn check(
    section: &file::Service,
    targets: Option<&Targets>,
    problems: &mut Problems,
) -> Option<CheckOptions> {
    let Some(check) = &section.check else {
        refuse_without_check(section, problems);
        return None;
    };
    let (place, check) = (check.span(), check.get_ref());
    let usual = CheckOptions::new(kind(check, problems)?);
    let options = CheckOptions {
        interval: value(check.interval.as_ref(), values::duration_above_zero, usual.interval, problems),
        timeout: value(check.timeout.as_ref(), values::duration_above_zero, usual.timeout, problems),
        rise: number(check.rise.as_ref(), 1..=1000, usual.rise, problems),
        fall: number(check.fall.as_ref(), 1..=1000, usual.fall, problems),
        kind: usual.kind,
    };
    if targets.is_some_and(|targets| targets.all().iter().any(cannot_be_asked)) {
        let problem = Problem::new("udp:// and bench: cannot be asked how they are").at(place);
        problems.push(problem.help("give each target a check_url = \"tcp://host:port\", or remove the check"));
    }
    Some(options)
}

fn cannot_be_asked(config: &TargetConfig) -> bool {
    config.check.is_none() && !matches!(config.target, Target::Address(_))
}

fn kind(check: &file::Check, problems: &mut Problems) -> Option<CheckKind> {
    let of_http = || {
        let keys: [(&'static str, &Text); 3] =
            [("path", &check.path), ("host", &check.host), ("status", &check.status)];
        keys.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?.span())))
    };
    match check.kind.get_ref().as_str() {
        "http" => Some(CheckKind::Http {
            path: value(check.path.as_ref(), path, "/".to_owned(), problems),
            host: value(check.host.as_ref(), host, None, problems),
            status: value(check.status.as_ref(), str::parse, StatusCodes::default(), problems),
        }),
        "connect" => {
            refuse_for_others(of_http(), problems);
            Some(CheckKind::Connect)
        }
        "redis" => {
            refuse_for_others(of_http(), problems);
            Some(CheckKind::Redis)
        }
        other => {
            let message = format!("\"{other}\" is no check; expected \"connect\", \"http\" or \"redis\"");
            problems.push(Problem::new(message).at(check.kind.span()));
            None
        }
    }
}

fn refuse_for_others(given: impl Iterator<Item = (&'static str, Range<usize>)>, problems: &mut Problems) {
    for (name, place) in given {
        problems.push(Problem::new(format!("{name} is an option of http checks")).at(place).help("remove it"));
    }
}

/// What is about checks means nothing without.
fn refuse_without_check(section: &file::Service, problems: &mut Problems) {
    if let Some(required) = section.required.as_ref().filter(|required| *required.get_ref()) {
        let problem = Problem::new("without checks nobody knows whether a target is up").at(required.span());
        problems.push(problem.help("add check = { type = \"connect\" } to the service, or remove required"));
    }
    let listed = section.targets.iter().flat_map(Spanned::get_ref);
    if let Some(asked) = listed.into_iter().find(|one| one.get_ref().check_url.is_some()) {
        let problem = Problem::new("there is a check_url, and no check that would use it").at(asked.span());
        problems.push(problem.help("add check = { type = \"connect\" } to the service, or remove check_url"));
    }
}

/// As it may stand in a request (RFC 9112 §3.2.1).
fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.len() <= PATH_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no path; expected \"/…\" of visible ASCII, at most {PATH_BYTES_MAX} bytes"))
}

fn host(text: &str) -> Result<Option<String>, String> {
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.bytes().all(is_host) {
        return Ok(Some(text.to_owned()));
    }
    Err(format!("{text:?} is no host; expected a name or an address, with or without a port"))
}

/// More than any path that asks for health.
const PATH_BYTES_MAX: usize = 1024;

/// A name of DNS, and a port.
const HOST_BYTES_MAX: usize = 260;
