//! Options of UDP, which services and forwards share, and those that they do not have together with connections.

use std::ops::Range;

use toml::Spanned;

use super::file::{Number, Text};
use super::problem::{Problem, Problems};
use super::resolve::{number, value};
use super::values;
use crate::service::DatagramOptions;

/// The keys of a section that are about datagrams.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatagramKeys<'a> {
    pub(super) idle_timeout: &'a Text,
    pub(super) flow_count_max: &'a Number,
    pub(super) datagram_age_max: &'a Text,
}

impl DatagramKeys<'_> {
    /// The options; what is not said is as [`DatagramOptions::default`] has it.
    pub(super) fn resolve(&self, problems: &mut Problems) -> DatagramOptions {
        let usual = DatagramOptions::default();
        let (idle, age) = (self.idle_timeout.as_ref(), self.datagram_age_max.as_ref());
        DatagramOptions {
            idle_timeout: value(idle, values::duration_above_zero, usual.idle_timeout, problems),
            flow_count_max: number(self.flow_count_max.as_ref(), 1..=1_000_000, usual.flow_count_max, problems),
            age_max: value(age, values::duration_above_zero, usual.age_max, problems),
        }
    }

    /// Which of the keys were given, by name and place.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        let keys = [
            ("idle_timeout", self.idle_timeout.as_ref().map(Spanned::span)),
            ("flow_count_max", self.flow_count_max.as_ref().map(Spanned::span)),
            ("datagram_age_max", self.datagram_age_max.as_ref().map(Spanned::span)),
        ];
        keys.into_iter().filter_map(|(name, span)| Some((name, span?)))
    }
}

/// Which of the keys that are about connections were given.
pub(super) fn given_of_connections(
    proxy_protocol: &Text,
    connections_max: &Number,
) -> impl Iterator<Item = (&'static str, Range<usize>)> {
    let keys = [
        ("proxy_protocol", proxy_protocol.as_ref().map(Spanned::span)),
        ("connections_max", connections_max.as_ref().map(Spanned::span)),
    ];
    keys.into_iter().filter_map(|(name, span)| Some((name, span?)))
}

/// Options that only connections have are mistakes, too.
pub(super) fn refuse_for_datagrams(given: impl Iterator<Item = (&'static str, Range<usize>)>, problems: &mut Problems) {
    for (name, place) in given {
        let message = format!("{name} is an option of connections; udp addresses have flows");
        let help = if name == "connections_max" { "use flow_count_max" } else { "remove it" };
        problems.push(Problem::new(message).at(place).help(help));
    }
}
