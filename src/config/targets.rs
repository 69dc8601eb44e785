//! `target` and `targets` of `[[service]]`, and how they share what comes.

use toml::Spanned;

use super::problem::{Problem, Problems};
use super::resolve::{number, value};
use super::service::plain_address;
use super::{file, values};
use crate::base::limits;
use crate::channel::Address;
use crate::service::{BalanceOptions, EjectionOptions, Endpoint, Strategy, Target, TargetConfig, Targets, UdpAddress};

/// Where a service leads.
pub(super) fn targets(section: &file::Service, problems: &mut Problems) -> Option<Targets> {
    match (&section.target, &section.targets) {
        (Some(text), None) => Some(Targets::one(target(text, problems)?)),
        (None, Some(list)) => {
            let configs: Vec<_> = list.get_ref().iter().map(|one| listed(one, problems)).collect();
            let configs = configs.into_iter().collect::<Option<Vec<_>>>()?;
            problems.check(list.span(), Targets::new(configs))
        }
        (Some(text), Some(_)) => {
            problems.push(Problem::new("a service has either target or targets").at(text.span()).help("remove one"));
            None
        }
        (None, None) => {
            let problem = Problem::new("this service leads nowhere").at(section.name.span());
            problems.push(problem.help("add target = \"tcp://host:port\", or targets = [\"tcp://host:port\", …]"));
            None
        }
    }
}

/// How a service uses its targets.
pub(super) fn balance(section: &file::Service, targets: Option<&Targets>, problems: &mut Problems) -> BalanceOptions {
    let usual = BalanceOptions::default();
    refuse_without_choice(section, targets, problems);
    let strategy = value(section.strategy.as_ref(), strategy, usual.strategy, problems);
    check_strategy(section, strategy, targets, problems);
    let attempts = section.connect_attempts.as_ref();
    BalanceOptions {
        strategy,
        attempts_max: number(attempts, 1..=limits::TARGETS_MAX as u32, usual.attempts_max, problems),
        ejection: ejection(section, problems),
        slow_start: value(section.slow_start.as_ref(), values::duration_or_off, usual.slow_start, problems),
    }
}

fn strategy(text: &str) -> Result<Strategy, String> {
    text.parse::<Strategy>().map_err(|error| error.to_string())
}

fn ejection(section: &file::Service, problems: &mut Problems) -> Option<EjectionOptions> {
    let usual = EjectionOptions::default();
    let failures = number(section.eject_after.as_ref(), 0..=1000, usual.failures, problems);
    let time = value(section.eject_time.as_ref(), values::duration_above_zero, usual.time, problems);
    let time_max = value(section.eject_time_max.as_ref(), values::duration_above_zero, usual.time_max, problems);
    if time > time_max {
        let place = section.eject_time.as_ref().or(section.eject_time_max.as_ref()).map(Spanned::span);
        problems.push(Problem::new("eject_time is longer than eject_time_max").at(place.unwrap_or_default()));
    }
    (failures > 0).then_some(EjectionOptions { failures, time, time_max })
}

/// Options that mean nothing while there is one target are mistakes. A service may have one in `targets`, to which others
/// are added later.
fn refuse_without_choice(section: &file::Service, targets: Option<&Targets>, problems: &mut Problems) {
    if targets.is_none() || section.targets.is_some() {
        return;
    }
    let given = [
        ("strategy", section.strategy.as_ref().map(Spanned::span)),
        ("connect_attempts", section.connect_attempts.as_ref().map(Spanned::span)),
        ("eject_after", section.eject_after.as_ref().map(Spanned::span)),
        ("eject_time", section.eject_time.as_ref().map(Spanned::span)),
        ("eject_time_max", section.eject_time_max.as_ref().map(Spanned::span)),
        ("slow_start", section.slow_start.as_ref().map(Spanned::span)),
    ];
    for (name, place) in given.into_iter().filter_map(|(name, place)| Some((name, place?))) {
        let problem = Problem::new(format!("{name} is an option of services with several targets")).at(place);
        problems.push(problem.help("name the targets in targets = […], or remove it"));
    }
}

/// What the strategy does not look at is a mistake.
fn check_strategy(section: &file::Service, strategy: Strategy, targets: Option<&Targets>, problems: &mut Problems) {
    let place = section.strategy.as_ref().map(Spanned::span).unwrap_or_default();
    if strategy == Strategy::ResponseTime && targets.is_some_and(Targets::take_datagrams) {
        let problem = Problem::new("response-time is for connections: what is an answer, datagrams do not tell");
        problems.push(problem.at(place).help("use another strategy for udp:// targets"));
    }
    let listed = section.targets.iter().flat_map(Spanned::get_ref);
    if let Some(weighted) = listed.into_iter().find(|one| one.get_ref().weight.is_some())
        && strategy == Strategy::RoundRobin
    {
        let problem = Problem::new("round-robin does not look at weights").at(weighted.span());
        problems.push(problem.help("add strategy = \"weighted\", or remove the weights"));
    }
}

fn listed(one: &Spanned<file::ServiceTarget>, problems: &mut Problems) -> Option<TargetConfig> {
    let file::ServiceTarget { url, weight, check_url } = one.get_ref();
    let target = target(&Spanned::new(one.span(), url.clone()), problems);
    let check = check_url.as_ref().map(|url| check_address(&Spanned::new(one.span(), url.clone()), problems));
    let check = match check {
        Some(None) => return None,
        Some(address) => address,
        None => None,
    };
    Some(TargetConfig { target: target?, weight: weight.unwrap_or(1), check })
}

fn target(text: &Spanned<String>, problems: &mut Problems) -> Option<Target> {
    let target = match text.get_ref().parse::<Target>() {
        Ok(Target::Bench) => Target::Bench,
        _ => match plain_address(text, problems)? {
            Endpoint::Stream(address) => Target::Address(address),
            Endpoint::Datagrams(address) => Target::Datagrams(address),
        },
    };
    if let Target::Address(Address::Tcp { port: 0, .. }) | Target::Datagrams(UdpAddress { port: 0, .. }) = target {
        problems.push(Problem::new("a target has a port above 0").at(text.span()));
    }
    Some(target)
}

fn check_address(text: &Spanned<String>, problems: &mut Problems) -> Option<Address> {
    match plain_address(text, problems)? {
        Endpoint::Stream(Address::Tcp { port: 0, .. }) => {
            problems.push(Problem::new("a check_url has a port above 0").at(text.span()));
            None
        }
        Endpoint::Stream(address) => Some(address),
        Endpoint::Datagrams(_) => {
            let problem = Problem::new("checks are made over tcp:// or unix://, also those of udp:// targets");
            problems.push(problem.at(text.span()));
            None
        }
    }
}
