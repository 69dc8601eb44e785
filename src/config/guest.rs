//! `[identity]` of a guest: a token in place of a certificate.

use std::path::{Path, PathBuf};

use super::identity::{GuestIdentity, IdentityFiles, LoadedIdentity};
use super::problem::{Problem, Problems};
use super::{Files, file};
use crate::crypto::identity::{GUEST, Identity, NodeId, TrustAnchors};
use crate::crypto::token::JoinToken;

/// Reads the token and checks the rest; what is wrong goes to `problems`.
pub(super) fn load(
    section: &file::Identity,
    base: &Path,
    reader: &dyn Files,
    problems: &mut Problems,
) -> Option<LoadedIdentity> {
    let files = [&section.certificate, &section.key, &section.trust_anchors];
    for text in files.into_iter().flatten() {
        let problem = Problem::new("a guest has a token in place of a certificate").at(text.span());
        problems.push(problem.help("remove token_file, or certificate, key and trust_anchors"));
    }
    let path = section.token_file.as_ref()?;
    let read = problems.check(path.span(), reader.read_private(&base.join(path.get_ref())));
    let text = read.as_ref().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let token = read.as_ref().and_then(|_| problems.check(path.span(), JoinToken::parse(text)));
    let Some(domain) = &section.trust_domain else {
        let problem = Problem::new("missing field `trust_domain`").at(path.span());
        problems.push(problem.help("name the trust domain of the hub, as in spiffe://<trust-domain>/node/<name>"));
        return None;
    };
    let name = section.guest_name.as_ref().map(|name| name.get_ref().clone());
    let node_id = problems.check(domain.span(), NodeId::guest(domain.get_ref(), GUEST))?;
    let node_id = match &section.guest_name {
        Some(name) => problems.check(name.span(), NodeId::guest(node_id.trust_domain(), name.get_ref()))?,
        None => node_id,
    };
    let none = PathBuf::new;
    Some(LoadedIdentity {
        files: IdentityFiles { certificate: none(), key: none(), trust_anchors: none() },
        identity: Identity::without_certificate(node_id),
        anchors: TrustAnchors::nobody(),
        guest: Some(GuestIdentity { token: token?, name }),
    })
}

/// What a guest has, without the token that makes one.
pub(super) fn refuse_without_token(section: &file::Identity, problems: &mut Problems) {
    for (name, text) in [("trust_domain", &section.trust_domain), ("guest_name", &section.guest_name)] {
        if let Some(text) = text {
            let problem = Problem::new(format!("{name} is an option of guests; a certificate says it itself"));
            problems.push(problem.at(text.span()).help("remove it, or give token_file to be a guest"));
        }
    }
}

/// What the sections have to agree on: nobody dials a guest, and who takes guests has to judge their tokens.
pub(super) fn check(file: &file::File, identity: Option<&LoadedIdentity>, problems: &mut Problems) {
    let takes_guests = file.listen.iter().filter_map(|section| section.get_ref().guests.as_ref());
    let takes_guests: Vec<_> = takes_guests.filter(|guests| *guests.get_ref()).collect();
    if file.enroll.is_none() {
        for guests in &takes_guests {
            let problem = Problem::new("there is nobody to judge the tokens of guests").at(guests.span());
            problems.push(problem.help("add [enroll] with the directory of the authority, or remove `guests`"));
        }
    }
    if identity.is_none_or(|identity| identity.guest.is_none()) {
        return;
    }
    let listens = file.listen.iter().map(|section| (section.span(), "[[listen]]"));
    let services = file.service.iter().map(|section| (section.span(), "[[service]]"));
    let enrolls = file.enroll.iter().map(|section| (section.span(), "[enroll]"));
    for (place, name) in listens.chain(services).chain(enrolls) {
        let problem = Problem::new(format!("a guest has no {name}: it dials and uses what others offer")).at(place);
        problems.push(problem.help("remove the section, or make this machine a node with `longhaul join`"));
    }
}
