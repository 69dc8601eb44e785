//! Options of TCP sockets, which listeners and links share.

use std::time::Duration;

use super::file::{Number, Text};
use super::problem::Problems;
use super::resolve::value;
use super::values;
use crate::channel::{Congestion, Keepalive, NotsentLowat, TcpOptions};

/// The keys of a section that are about TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpKeys<'a> {
    pub(super) congestion: &'a Text,
    pub(super) keepalive: &'a Text,
    pub(super) user_timeout: &'a Text,
    pub(super) notsent_lowat: &'a Text,
    pub(super) mark: &'a Number,
}

impl TcpKeys<'_> {
    /// The options; what is not said is as [`TcpOptions::default`] has it.
    pub(super) fn resolve(&self, problems: &mut Problems) -> TcpOptions {
        let default = TcpOptions::default();
        let idle = value(self.keepalive.as_ref(), keepalive, default.keepalive, problems);
        TcpOptions {
            keepalive: idle,
            user_timeout: value(self.user_timeout.as_ref(), values::duration_or_off, default.user_timeout, problems),
            notsent_lowat: value(self.notsent_lowat.as_ref(), notsent_lowat, default.notsent_lowat, problems),
            congestion: value(self.congestion.as_ref(), congestion, default.congestion, problems),
            mark: self.mark.as_ref().map(|mark| *mark.get_ref()),
            ..TcpOptions::default()
        }
    }

    /// Which of the keys were given, by name and place.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, std::ops::Range<usize>)> {
        let texts = [
            ("congestion", self.congestion),
            ("keepalive", self.keepalive),
            ("user_timeout", self.user_timeout),
            ("notsent_lowat", self.notsent_lowat),
        ];
        let texts = texts.map(|(name, text)| text.as_ref().map(|text| (name, text.span())));
        texts.into_iter().flatten().chain(self.mark.as_ref().map(|mark| ("mark", mark.span())))
    }
}

fn notsent_lowat(text: &str) -> Result<NotsentLowat, String> {
    match text {
        "auto" => Ok(NotsentLowat::Auto),
        "off" => Ok(NotsentLowat::Off),
        _ => values::socket_size(text)
            .map(NotsentLowat::Bytes)
            .map_err(|problem| format!("{problem}, or \"auto\" or \"off\"")),
    }
}

fn keepalive(text: &str) -> Result<Option<Keepalive>, String> {
    let idle = values::duration_or_off(text)?;
    match idle {
        Some(idle) if idle < Duration::from_secs(1) || idle.subsec_nanos() != 0 => {
            Err(format!("\"{text}\" is no time that TCP can wait; expected whole seconds, or \"off\""))
        }
        _ => Ok(idle.map(|idle| Keepalive { idle, ..Keepalive::default() })),
    }
}

fn congestion(text: &str) -> Result<Congestion, String> {
    match text {
        "auto" => Ok(Congestion::Auto),
        "system" => Ok(Congestion::System),
        name if !name.is_empty() && name.len() < 16 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
            Ok(Congestion::Named(name.to_owned()))
        }
        _ => {
            Err(format!("\"{text}\" is no congestion control; expected \"auto\", \"system\" or a name such as \"bbr\""))
        }
    }
}
