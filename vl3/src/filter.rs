//! Which prefixes are taken from a peer.

use std::collections::BTreeMap;

use carrick_types::Prefix;

use crate::peers::PeerId;

/// Why an announced prefix is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum PrefixRefusal {
    /// A peer that is linked holds it, or part of it.
    #[error("another endpoint holds it")]
    Held,
    /// The peer announces more than it may.
    #[error("the endpoint announces too many")]
    Many,
    /// It is not inside the network.
    #[error("it lies outside the network")]
    Outside,
    /// It is ours, or part of ours.
    #[error("it is this endpoint's own")]
    Own,
}

impl PrefixRefusal {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Held, Self::Many, Self::Outside, Self::Own];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Many => "many",
            Self::Outside => "outside",
            Self::Own => "own",
        }
    }
}

/// The ground on which announcements are judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// The network, one prefix for each family.
    pub networks: Vec<Prefix>,
    /// What this endpoint itself holds.
    pub own: Vec<Prefix>,
}

impl Ground {
    /// Whether a prefix lies inside the network without being all of it.
    #[must_use]
    pub fn has_inside(&self, prefix: Prefix) -> bool {
        self.networks
            .iter()
            .any(|net| net.covers(prefix) && *net != prefix)
    }
}

/// Who holds which prefixes, beside us.
#[derive(Debug)]
pub struct Holdings {
    max_per_peer: usize,
    held: BTreeMap<PeerId, Vec<Prefix>>,
}

/// What is taken of an announcement, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Taken, in the order announced.
    pub accepted: Vec<Prefix>,
    /// Not taken, and why.
    pub refused: Vec<(Prefix, PrefixRefusal)>,
}

impl Holdings {
    /// Nobody holds anything; a peer may hold `max_per_peer` prefixes.
    #[must_use]
    pub fn new(max_per_peer: usize) -> Self {
        Self {
            max_per_peer,
            held: BTreeMap::new(),
        }
    }

    /// Judges all that `peer` announces; what is accepted replaces what it held.
    ///
    /// A whole network is passed over without a word: Go endpoints announce it
    /// as their way out (NSM `vl3` server: `globalIPNet`). A prefix whose
    /// holder is not `linked` goes to the one that announces it now.
    pub fn accept(
        &mut self,
        peer: &PeerId,
        announced: impl IntoIterator<Item = Prefix>,
        ground: &Ground,
        linked: &dyn Fn(&PeerId) -> bool,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        for prefix in announced {
            if ground.networks.contains(&prefix) || verdict.accepted.contains(&prefix) {
                continue;
            }
            match self.judge(peer, prefix, ground, verdict.accepted.len(), linked) {
                Ok(()) => verdict.accepted.push(prefix),
                Err(_) if verdict.refused.len() >= self.max_per_peer => break,
                Err(reason) => verdict.refused.push((prefix, reason)),
            }
        }
        self.take(peer, &verdict.accepted);
        verdict
    }

    /// What a peer holds.
    #[must_use]
    pub fn of(&self, peer: &PeerId) -> &[Prefix] {
        self.held.get(peer).map_or(&[], Vec::as_slice)
    }

    /// Forgets those peers that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&PeerId) -> bool) {
        self.held.retain(|peer, _| keep(peer));
    }

    fn judge(
        &self,
        peer: &PeerId,
        prefix: Prefix,
        ground: &Ground,
        accepted: usize,
        linked: &dyn Fn(&PeerId) -> bool,
    ) -> Result<(), PrefixRefusal> {
        let held = |(holder, prefixes): (&PeerId, &Vec<Prefix>)| {
            holder != peer && prefixes.iter().any(|held| held.overlaps(prefix)) && linked(holder)
        };
        if !ground.has_inside(prefix) {
            Err(PrefixRefusal::Outside)
        } else if ground.own.iter().any(|own| own.overlaps(prefix)) {
            Err(PrefixRefusal::Own)
        } else if self.held.iter().any(held) {
            Err(PrefixRefusal::Held)
        } else if accepted >= self.max_per_peer {
            Err(PrefixRefusal::Many)
        } else {
            Ok(())
        }
    }

    fn take(&mut self, peer: &PeerId, accepted: &[Prefix]) {
        for (holder, prefixes) in &mut self.held {
            if holder != peer {
                prefixes.retain(|held| !accepted.iter().any(|prefix| prefix.overlaps(*held)));
            }
        }
        self.held.insert(peer.clone(), accepted.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use carrick_types::EndpointName;
    use proptest::prelude::*;

    use super::*;
    use crate::peers::Domain;

    fn peer(name: &str) -> PeerId {
        PeerId::new(EndpointName::new(name).unwrap(), Domain::own())
    }

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ground() -> Ground {
        Ground {
            networks: prefixes(&["10.0.0.0/16", "2001:db8::/64"]),
            own: prefixes(&["10.0.0.0/24"]),
        }
    }

    fn reasons(verdict: &Verdict) -> Vec<PrefixRefusal> {
        verdict.refused.iter().map(|(_, reason)| *reason).collect()
    }

    #[test]
    fn only_prefixes_inside_the_network_are_taken() {
        let announced = prefixes(&[
            "10.0.1.0/24",
            "8.8.8.0/24",
            "0.0.0.0/0",
            "2001:db8::1:0/112",
        ]);
        let verdict = Holdings::new(64).accept(&peer("a"), announced, &ground(), &|_| true);
        assert_eq!(
            verdict.accepted,
            prefixes(&["10.0.1.0/24", "2001:db8::1:0/112"])
        );
        assert_eq!(reasons(&verdict), [PrefixRefusal::Outside; 2]);
    }

    #[test]
    fn neither_our_prefix_nor_a_part_or_cover_of_it_is_taken() {
        let announced = prefixes(&["10.0.0.0/24", "10.0.0.7/32", "10.0.0.0/20"]);
        let verdict = Holdings::new(64).accept(&peer("a"), announced, &ground(), &|_| true);
        assert_eq!(reasons(&verdict), [PrefixRefusal::Own; 3]);
    }

    #[test]
    fn the_whole_network_is_passed_over_without_a_refusal() {
        let announced = prefixes(&["10.0.0.0/16", "10.0.1.0/24"]);
        let verdict = Holdings::new(64).accept(&peer("a"), announced, &ground(), &|_| true);
        assert_eq!(verdict.accepted, prefixes(&["10.0.1.0/24"]));
        assert!(verdict.refused.is_empty());
    }

    #[test]
    fn a_prefix_of_a_linked_peer_is_not_taken_and_that_of_a_dead_one_is() {
        let mut holdings = Holdings::new(64);
        let announced = prefixes(&["10.0.1.0/24"]);
        holdings.accept(&peer("a"), announced.clone(), &ground(), &|_| true);
        let refused = holdings.accept(&peer("b"), announced.clone(), &ground(), &|_| true);
        assert_eq!(reasons(&refused), [PrefixRefusal::Held]);
        let taken = holdings.accept(&peer("b"), announced.clone(), &ground(), &|_| false);
        assert_eq!(taken.accepted, announced);
        assert!(holdings.of(&peer("a")).is_empty());
    }

    #[test]
    fn what_a_peer_no_longer_announces_is_free() {
        let mut holdings = Holdings::new(64);
        holdings.accept(&peer("a"), prefixes(&["10.0.1.0/24"]), &ground(), &|_| true);
        holdings.accept(&peer("a"), prefixes(&["10.0.2.0/24"]), &ground(), &|_| true);
        let verdict = holdings.accept(&peer("b"), prefixes(&["10.0.1.0/24"]), &ground(), &|_| true);
        assert!(verdict.refused.is_empty());
    }

    #[test]
    fn a_flood_of_prefixes_is_cut() {
        let flood = (0..=255u8).flat_map(|i| [format!("10.0.{i}.0/30"), format!("11.0.{i}.0/30")]);
        let flood = flood.map(|text| text.parse().unwrap());
        let verdict = Holdings::new(8).accept(&peer("a"), flood, &ground(), &|_| true);
        assert!(!verdict.accepted.is_empty() && verdict.accepted.len() <= 8);
        assert_eq!(verdict.refused.len(), 8);
    }

    proptest! {
        #[test]
        fn linked_peers_never_hold_the_same_address(
            announcements in prop::collection::vec((0u8..4, 0u32..0x2_0000, 17u8..=32), 0..40)
        ) {
            let mut holdings = Holdings::new(64);
            let peers = ["a", "b", "c", "d"].map(peer);
            for (who, bits, length) in announcements {
                let address = std::net::Ipv4Addr::from(0x0a00_0000 | bits);
                let prefix = Prefix::of(address.into(), length).unwrap();
                holdings.accept(&peers[usize::from(who)], [prefix], &ground(), &|_| true);
            }
            for one in &peers {
                for other in peers.iter().filter(|other| *other != one) {
                    let overlap = |p: &Prefix| holdings.of(other).iter().any(|o| o.overlaps(*p));
                    prop_assert!(!holdings.of(one).iter().any(overlap));
                }
            }
        }
    }
}
