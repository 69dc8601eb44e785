//! `allow` of a service: which peers may use it.

use toml::Spanned;

use super::problem::{Problem, Problems};
use crate::crypto::identity::{GUEST, NodeId};
use crate::service::{Allow, Who};

/// The policy that a list means; without one, every node of the own trust domain.
pub(super) fn allow(list: Option<&[Spanned<String>]>, own: &NodeId, problems: &mut Problems) -> Allow {
    let Some(list) = list else { return Allow::TrustDomain(own.trust_domain().to_owned()) };
    let mut allowed = Vec::new();
    for entry in list {
        let Some(who) = problems.check(entry.span(), who(entry.get_ref(), own)) else { continue };
        if allowed.contains(&who) {
            let message = format!("{:?} is allowed already", entry.get_ref());
            problems.push(Problem::new(message).at(entry.span()).help("remove one of the two"));
        } else if who != Who::Guest {
            let is_any = |who: &Who| *who == Who::AnyNode;
            if allowed.iter().any(|other| *other != Who::Guest && (is_any(other) || is_any(&who))) {
                problems.push(superfluous().at(entry.span()));
            }
        }
        allowed.push(who);
    }
    if allowed == [Who::AnyNode] { Allow::Everyone } else { Allow::OneOf(allowed) }
}

fn superfluous() -> Problem {
    Problem::new("\"*\" allows every node already; expected it alone or with \"guest\"")
        .help("remove \"*\", or the nodes and roles beside it")
}

fn who(entry: &str, own: &NodeId) -> Result<Who, String> {
    let node = |name: &str| own.relative(name).map(Who::Node).map_err(|error| error.to_string());
    match entry.split_once(':') {
        _ if entry == "*" => Ok(Who::AnyNode),
        _ if entry == GUEST => Ok(Who::Guest),
        _ if entry.starts_with("spiffe://") => node(entry),
        Some(("node", name)) => node(name),
        Some(("role", GUEST)) => Err(format!("\"role:{GUEST}\" is written \"{GUEST}\": no certificate gives it")),
        Some(("role", role)) => Ok(Who::Role { trust_domain: own.trust_domain().to_owned(), role: role.parse()? }),
        _ => Err(format!(
            "{entry:?} allows nobody; expected \"node:NAME\", \"role:NAME\", \"{GUEST}\", a SPIFFE ID or \"*\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy of these entries, and what is wrong with them at which entry.
    fn check(entries: &[&str]) -> (Allow, Vec<(usize, String)>) {
        let mut problems = Problems::default();
        let spanned = |(index, entry): (usize, &&str)| Spanned::new(index..index + 1, (*entry).to_owned());
        let list: Vec<_> = entries.iter().enumerate().map(spanned).collect();
        let allow = allow(Some(&list), &NodeId::new("example", "own").unwrap(), &mut problems);
        let place = |problem: &Problem| problem.place().unwrap().start;
        (allow, problems.into_vec().iter().map(|problem| (place(problem), problem.message().to_owned())).collect())
    }

    #[test]
    fn every_kind_of_entry_is_read() {
        let node = |domain, name| Who::Node(NodeId::new(domain, name).unwrap());
        let role = |role: &str| Who::Role { trust_domain: "example".to_owned(), role: role.parse().unwrap() };
        let (allow, problems) = check(&["node:dc-a", "spiffe://other/node/b", "role:edge", "guest"]);
        assert_eq!(problems, []);
        assert_eq!(allow, Allow::OneOf(vec![node("example", "dc-a"), node("other", "b"), role("edge"), Who::Guest]));
        assert_eq!(check(&["*"]), (Allow::Everyone, Vec::new()));
        assert_eq!(check(&["guest", "*"]), (Allow::OneOf(vec![Who::Guest, Who::AnyNode]), Vec::new()));
        assert_eq!(check(&[]), (Allow::OneOf(Vec::new()), Vec::new()));
    }

    #[test]
    fn what_allows_nobody_or_twice_is_told_at_its_place() {
        for (entries, place, part) in [
            (&["node:a", "dc-b"][..], 1, "allows nobody"),
            (&["node:"], 0, "no node name"),
            (&["role:a b"], 0, "no role"),
            (&["role:guest"], 0, "written \"guest\""),
            (&["Guest"], 0, "allows nobody"),
            (&["user:a"], 0, "allows nobody"),
            (&["spiffe://example/guest/a"], 0, "does not name a node"),
            (&["node:a", "spiffe://example/node/a"], 1, "allowed already"),
            (&["role:a", "guest", "role:a"], 2, "allowed already"),
            (&["*", "node:a"], 1, "every node already"),
            (&["role:a", "*"], 1, "every node already"),
        ] {
            let (_, problems) = check(entries);
            assert!(problems.len() == 1 && problems[0].0 == place && problems[0].1.contains(part), "{problems:?}");
        }
    }
}
