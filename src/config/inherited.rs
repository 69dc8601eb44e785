//! `tcp://systemd:NAME`: the name of a socket that a service manager hands over, in place of an address.
//!
//! Names become addresses before anything else is looked at, so that the rest of the configuration knows addresses only.
//! A name that several sockets have stands for each of them: its section is taken once for each.

use toml::Spanned;

use super::file;
use super::problem::{Problem, Problems};
use crate::channel::{InheritedPlace, InheritedSockets};

/// Puts addresses in the place of names.
///
/// Without `sockets` it is not known yet what will be handed over, as for `longhaul check-config`: names stand for
/// addresses that say nothing, so that everything else is checked, and `warnings` has a line for each.
pub(super) fn name_addresses(
    file: &mut file::File,
    sockets: Option<&InheritedSockets>,
    problems: &mut Problems,
) -> Vec<String> {
    let mut names = Names { sockets, unknown_host: "systemd", problems, warnings: Vec::new() };
    file.listen = each(std::mem::take(&mut file.listen), |section| {
        names.refuse_given(&section.address, [("backlog", &section.backlog)]);
        names.refuse_owner(&section.address, &section.mode, &section.uid, &section.gid);
        let addresses = names.addresses(&section.address)?;
        Some(addresses.into_iter().map(|address| file::Listen { address, ..section.clone() }).collect())
    });
    file.forward = each(std::mem::take(&mut file.forward), |section| {
        names.refuse_owner(&section.listen, &section.mode, &section.uid, &section.gid);
        let addresses = names.addresses(&section.listen)?;
        Some(addresses.into_iter().map(|listen| file::Forward { listen, ..section.clone() }).collect())
    });
    if let Some(section) = file.admin.take() {
        // Nothing else is allowed there.
        names.unknown_host = "localhost";
        let place = section.get_ref().listen.span();
        let mut admin = section.get_ref().clone();
        let texts = admin.listen.get_ref().iter();
        let texts = texts.flat_map(|text| names.addresses(text).unwrap_or_else(|| vec![text.clone()])).collect();
        admin.listen = Spanned::new(place, texts);
        file.admin = Some(Spanned::new(section.span(), admin));
        names.unknown_host = "systemd";
    }
    if let Some(section) = file.enroll.take() {
        let mut enroll = section.get_ref().clone();
        if let Some(listen) = &enroll.listen
            && let Some(address) = names.address_of_enrolment(listen)
        {
            enroll.listen = Some(address);
        }
        file.enroll = Some(Spanned::new(section.span(), enroll));
    }
    names.warnings
}

/// Each section, or what takes its place.
fn each<T>(sections: Vec<Spanned<T>>, mut replaced: impl FnMut(&T) -> Option<Vec<T>>) -> Vec<Spanned<T>> {
    let replace = |section: Spanned<T>| match replaced(section.get_ref()) {
        None => vec![section],
        Some(sections) => {
            let place = section.span();
            sections.into_iter().map(|new| Spanned::new(place.clone(), new)).collect()
        }
    };
    sections.into_iter().flat_map(replace).collect()
}

struct Names<'a> {
    sockets: Option<&'a InheritedSockets>,
    /// The host of addresses that are not known.
    unknown_host: &'static str,
    problems: &'a mut Problems,
    warnings: Vec<String>,
}

impl Names<'_> {
    /// The addresses of the sockets of a name; `None` if the text is no name.
    fn addresses(&mut self, text: &Spanned<String>) -> Option<Vec<Spanned<String>>> {
        if let Some(name) = text.get_ref().strip_prefix(MANAGER) {
            let help = format!("write tcp://{MANAGER}{name}, or another scheme in place of tcp://");
            let problem = Problem::new(format!("the name of a socket needs a scheme: {:?}", text.get_ref()));
            self.problems.push(problem.at(text.span()).help(help));
            return Some(Vec::new());
        }
        let (scheme, name) = split(text.get_ref())?;
        Some(self.places(text, scheme, name).into_iter().map(|place| Spanned::new(text.span(), place)).collect())
    }

    /// The same for `[enroll] listen`, which is always TLS over TCP, and at one place.
    fn address_of_enrolment(&mut self, text: &Spanned<String>) -> Option<Spanned<String>> {
        let name = text.get_ref().strip_prefix(MANAGER).filter(|name| is_name(name))?;
        let places = self.places(text, "tls", name);
        if places.len() > 1 {
            let message = format!("there are {} sockets of the name {name:?}; expected one", places.len());
            self.problems.push(Problem::new(message).at(text.span()));
        }
        let place = places.first()?.strip_prefix("tls://")?.to_owned();
        Some(Spanned::new(text.span(), place))
    }

    /// Where the sockets of a name are bound, as addresses of a scheme.
    fn places(&mut self, text: &Spanned<String>, scheme: &str, name: &str) -> Vec<String> {
        let Some(sockets) = self.sockets else {
            let message = format!("{}: which address that is, is known when the node is started", text.get_ref());
            self.warnings.push(message);
            return vec![stand_in(scheme, name, self.unknown_host)];
        };
        let mut places = Vec::new();
        // A unit may have sockets of several kinds, TCP and UDP of one port; and several UDP sockets may share an address.
        let named = sockets.iter().filter(|socket| socket.name() == name);
        for place in named.filter_map(|socket| address(scheme, socket.place())) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        if places.is_empty() {
            self.problems.push(nothing_named(sockets, scheme, name).at(text.span()));
        }
        places
    }

    /// The service manager has made the file of the socket.
    fn refuse_owner(&mut self, text: &Spanned<String>, mode: &file::Text, uid: &file::Number, gid: &file::Number) {
        if let (Some(mode), Some(_)) = (mode, split(text.get_ref())) {
            self.refuse("mode", mode.span());
        }
        self.refuse_given(text, [("uid", uid), ("gid", gid)]);
    }

    fn refuse_given<const N: usize>(&mut self, text: &Spanned<String>, keys: [(&str, &file::Number); N]) {
        if split(text.get_ref()).is_none() {
            return;
        }
        for (key, value) in keys {
            if let Some(value) = value {
                self.refuse(key, value.span());
            }
        }
    }

    fn refuse(&mut self, key: &str, place: std::ops::Range<usize>) {
        let message = format!("{key} is decided where the socket is made, which is not here");
        let help = "remove it, and say it in the .socket unit: Backlog=, SocketMode=, SocketUser=, SocketGroup=";
        self.problems.push(Problem::new(message).at(place).help(help));
    }
}

/// Scheme and name of a text that has a name. What follows as a number is the port of a host that is called so.
fn split(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let name = rest.strip_prefix(MANAGER).filter(|name| is_name(name))?;
    SCHEMES.contains(&scheme).then_some((scheme, name))
}

/// Whether a text is a name, of which whoever asks a node cannot know the address.
pub(super) fn is_named(text: &str) -> bool {
    split(text).is_some()
}

fn is_name(text: &str) -> bool {
    text.parse::<u16>().is_err()
}

/// The address of a socket, if it can be one of the scheme.
fn address(scheme: &str, place: &InheritedPlace) -> Option<String> {
    match (scheme, place) {
        ("tcp" | "tls", InheritedPlace::Tcp(address)) | ("quic" | "udp", InheritedPlace::Udp(address)) => {
            Some(format!("{scheme}://{}", std::net::SocketAddr::new(address.ip(), address.port())))
        }
        ("unix", InheritedPlace::Unix(path)) => Some(format!("unix://{}", path.display())),
        _ => None,
    }
}

/// An address that is right wherever one of this scheme is.
fn stand_in(scheme: &str, name: &str, host: &str) -> String {
    if scheme == "unix" { format!("unix:///{MANAGER}{name}") } else { format!("{scheme}://{host}:0") }
}

/// Why a name stands for nothing.
fn nothing_named(sockets: &InheritedSockets, scheme: &str, name: &str) -> Problem {
    match sockets.iter().find(|socket| socket.name() == name) {
        None => Problem::new(format!("the service manager handed over no socket of the name {name:?}"))
            .help(what_there_is(sockets)),
        Some(socket) => Problem::new(format!(
            "the socket {name:?} is {}, which is no {scheme}:// address",
            socket.place()
        ))
        .help(
            "correct the scheme, or the unit: ListenStream= is for tcp, tls and unix, ListenDatagram= for quic and udp",
        ),
    }
}

fn what_there_is(sockets: &InheritedSockets) -> String {
    let all: Vec<_> = sockets.iter().map(|socket| format!("{:?} ({})", socket.name(), socket.place())).collect();
    if all.is_empty() {
        return "it handed over none (LISTEN_FDS): start the .socket unit, which starts the node with its sockets"
            .to_owned();
    }
    format!("it handed over {}; FileDescriptorName= of the .socket unit gives the name", all.join(", "))
}

/// What stands before a name, in place of a host.
const MANAGER: &str = "systemd:";

const SCHEMES: [&str; 5] = ["tcp", "tls", "quic", "udp", "unix"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_hosts_and_paths() {
        assert_eq!(split("tcp://systemd:front"), Some(("tcp", "front")));
        assert_eq!(split("unix://systemd:admin.socket"), Some(("unix", "admin.socket")));
        for address in
            ["tcp://systemd:7443", "tcp://host:7443", "unix:///run/systemd:x", "ftp://systemd:x", "systemd:x"]
        {
            assert_eq!(split(address), None, "{address}");
        }
    }

    #[test]
    fn a_socket_is_an_address_of_its_own_kinds_only() {
        let v6 = "[::]:7443".parse().unwrap();
        assert_eq!(address("tls", &InheritedPlace::Tcp(v6)).as_deref(), Some("tls://[::]:7443"));
        assert_eq!(address("udp", &InheritedPlace::Udp(v6)).as_deref(), Some("udp://[::]:7443"));
        assert_eq!(address("quic", &InheritedPlace::Tcp(v6)), None);
        assert_eq!(address("unix", &InheritedPlace::Tcp(v6)), None);
        let path = InheritedPlace::Unix("/run/x".into());
        assert_eq!(address("unix", &path).as_deref(), Some("unix:///run/x"));
    }
}
