//! Options of Unix sockets that are listened on, which listeners and forwards share.

use std::ops::Range;

use toml::Spanned;

use super::file::{Number, Numbers, Text};
use super::problem::{Problem, Problems};
use super::resolve::value;
use super::values;
use crate::channel::UnixOptions;

/// The keys of a section that are about Unix sockets.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnixKeys<'a> {
    pub(super) mode: &'a Text,
    pub(super) uid: &'a Number,
    pub(super) gid: &'a Number,
    pub(super) allow_uids: &'a Numbers,
    pub(super) allow_gids: &'a Numbers,
}

impl UnixKeys<'_> {
    /// The options; what is not said is as [`UnixOptions::default`] has it.
    pub(super) fn resolve(&self, problems: &mut Problems) -> UnixOptions {
        let list = |numbers: &Numbers| numbers.as_ref().map(|list| list.get_ref().clone()).unwrap_or_default();
        UnixOptions {
            mode: value(self.mode.as_ref(), values::mode, UnixOptions::default().mode, problems),
            uid: self.uid.as_ref().map(|uid| *uid.get_ref()),
            gid: self.gid.as_ref().map(|gid| *gid.get_ref()),
            allow_uids: list(self.allow_uids),
            allow_gids: list(self.allow_gids),
        }
    }

    /// Which of the keys were given, by name and place.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        let keys = [
            ("mode", self.mode.as_ref().map(Spanned::span)),
            ("uid", self.uid.as_ref().map(Spanned::span)),
            ("gid", self.gid.as_ref().map(Spanned::span)),
            ("allow_uids", self.allow_uids.as_ref().map(Spanned::span)),
            ("allow_gids", self.allow_gids.as_ref().map(Spanned::span)),
        ];
        keys.into_iter().filter_map(|(name, span)| Some((name, span?)))
    }
}

/// Options that the kind of address does not have are mistakes, not wishes to be ignored.
pub(super) fn refuse(
    given: impl Iterator<Item = (&'static str, Range<usize>)>,
    right: &str,
    wrong: &str,
    problems: &mut Problems,
) {
    for (name, place) in given {
        let message = format!("{name} is an option of {right} addresses; {wrong} addresses have none");
        problems.push(Problem::new(message).at(place).help("remove it"));
    }
}
