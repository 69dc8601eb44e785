//! In which order a link uses its addresses: what the peer is told of each one's channels, and which are dialled only
//! when the better ones fail. Pure; [`link`](super::link) acts on it.

use super::config::{Entrances, LinkConfig};
use crate::wire::{LaneRole, LaneUsage};

/// How the channels to one address are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Addresses of a lower rank are better.
    pub(super) rank: usize,
    /// What both sides know of it.
    pub(super) usage: LaneUsage,
    /// No channel is kept to it while one to a better address works.
    pub(super) is_cold: bool,
}

/// The places of a link's addresses, in their order.
pub(super) fn places(config: &LinkConfig) -> Vec<Place> {
    let fails_over = config.entrances == Entrances::Failover;
    let keys: Vec<_> = config
        .addresses
        .iter()
        .enumerate()
        .map(|(index, address)| {
            let is_other = config.prefer.is_some_and(|kind| kind != address.address.kind());
            let turn = if fails_over { index } else { 0 };
            (address.role, is_other, address.priority, turn)
        })
        .collect();
    let place = |(key, address): (&(LaneRole, bool, u32, usize), &super::config::LinkAddress)| {
        let better = |of_role: bool| {
            let mut better: Vec<_> =
                keys.iter().filter(|other| *other < key && (!of_role || other.0 == key.0)).collect();
            better.sort_unstable();
            better.dedup();
            better.len()
        };
        let rank = better(false);
        // What is on the wire orders the lanes of a role: small numbers, and none at all where there is nothing to order.
        let usage = LaneUsage { weight: address.weight, priority: better(true) as u32, role: address.role };
        Place { rank, usage, is_cold: fails_over && address.role == LaneRole::Active && rank > 0 }
    };
    keys.iter().zip(&config.addresses).map(place).collect()
}

/// The addresses, best first; those of a rank as they are listed.
pub(super) fn best_first(places: &[Place]) -> Vec<usize> {
    let mut order: Vec<_> = (0..places.len()).collect();
    order.sort_by_key(|index| places[*index].rank);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelKind;
    use crate::crypto::identity::NodeId;

    fn config(addresses: &[&str]) -> LinkConfig {
        let peer = NodeId::new("test", "b").unwrap();
        LinkConfig::new(peer, addresses.iter().map(|address| address.parse().unwrap()))
    }

    fn ranks(config: &LinkConfig) -> Vec<usize> {
        places(config).iter().map(|place| place.rank).collect()
    }

    const THREE: [&str; 3] = ["tcp://a:1", "tls://a:2", "tls://b:2"];

    #[test]
    fn addresses_are_equal_unless_something_is_said() {
        let places = places(&config(&THREE));
        assert!(places.iter().all(|place| *place == Place { rank: 0, usage: LaneUsage::PLAIN, is_cold: false }));
    }

    #[test]
    fn the_preferred_kind_comes_first_whatever_the_order() {
        let mut config = config(&THREE);
        config.prefer = Some(ChannelKind::Tls);
        assert_eq!(ranks(&config), [1, 0, 0]);
        assert_eq!(places(&config)[0].usage.priority, 1);
        assert_eq!(best_first(&places(&config)), [1, 2, 0]);
        config.addresses[2].priority = 200;
        assert_eq!(ranks(&config), [2, 0, 1]);
        config.prefer = Some(ChannelKind::Quic);
        assert_eq!(ranks(&config), [0, 0, 1], "a kind that no address has prefers nothing");
    }

    #[test]
    fn failover_takes_one_address_after_the_other() {
        let mut config = config(&THREE);
        config.entrances = Entrances::Failover;
        assert_eq!(ranks(&config), [0, 1, 2]);
        assert_eq!(places(&config).iter().map(|place| place.is_cold).collect::<Vec<_>>(), [false, true, true]);
        config.prefer = Some(ChannelKind::Tls);
        assert_eq!(ranks(&config), [2, 0, 1]);
    }

    #[test]
    fn standby_comes_last_and_is_kept_up() {
        let mut config = config(&THREE);
        config.entrances = Entrances::Failover;
        config.addresses[0].role = LaneRole::Standby;
        let places = places(&config);
        assert_eq!(places.iter().map(|place| place.rank).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(places[0].usage, LaneUsage { role: LaneRole::Standby, ..LaneUsage::PLAIN });
        assert!(!places[0].is_cold && places[2].is_cold);
    }
}
