//! The largest packet that every link of the network carries.

use std::collections::{BTreeMap, HashMap};

use carrick_types::{ConnectionId, Mtu};

/// The network-wide minimum and whose link sets it; pure.
///
/// NSM `vl3mtu` keeps the lowest value for ever; here it rises again when the
/// link that needs it is gone. A link's limit is what its Request says, unless
/// that is only what we told it before.
#[derive(Debug)]
pub struct Minimum {
    start: Mtu,
    links: HashMap<ConnectionId, LinkMtu>,
    /// How many links have each limit, so that a Request costs the same with
    /// many links as with few.
    limits: BTreeMap<Mtu, usize>,
}

#[derive(Clone, Copy, Debug)]
struct LinkMtu {
    limit: Option<Mtu>,
    told: Mtu,
}

impl Minimum {
    /// Without links it is `start`.
    #[must_use]
    pub fn new(start: Mtu) -> Self {
        Self {
            start,
            links: HashMap::new(),
            limits: BTreeMap::new(),
        }
    }

    /// What every link carries.
    #[must_use]
    pub fn current(&self) -> Mtu {
        let lowest = self.limits.first_key_value();
        lowest.map_or(self.start, |(limit, _)| self.start.min(*limit))
    }

    /// What a Request that says `asked` is to be told: at most the minimum.
    #[must_use]
    pub fn offer(&self, link: &ConnectionId, asked: Option<Mtu>) -> Mtu {
        let own = self.links.get(link).and_then(|link| link.limit);
        let mut others = self.limits.iter();
        let lowest = others.find(|(limit, count)| own != Some(**limit) || **count > 1);
        let others = lowest.map_or(self.start, |(limit, _)| self.start.min(*limit));
        self.limit(link, asked)
            .map_or(others, |limit| limit.min(others))
    }

    /// A link that asked for `asked` and was offered `offered` was answered
    /// with `answered`. Says whether the minimum is another than before.
    pub fn set(
        &mut self,
        link: &ConnectionId,
        asked: Option<Mtu>,
        offered: Mtu,
        answered: Mtu,
    ) -> bool {
        let before = self.current();
        let limit = if answered < offered {
            Some(answered)
        } else {
            self.limit(link, asked)
        };
        let told = answered;
        let known = self.links.insert(link.clone(), LinkMtu { limit, told });
        self.forget(known);
        if let Some(limit) = limit {
            *self.limits.entry(limit).or_default() += 1;
        }
        self.current() != before
    }

    /// A link is gone. Says whether the minimum is another than before.
    pub fn remove(&mut self, link: &ConnectionId) -> bool {
        let before = self.current();
        let known = self.links.remove(link);
        self.forget(known);
        self.current() != before
    }

    /// A limit no longer counts.
    fn forget(&mut self, known: Option<LinkMtu>) {
        let Some(limit) = known.and_then(|link| link.limit) else {
            return;
        };
        if let Some(count) = self.limits.get_mut(&limit) {
            *count -= 1;
            if *count == 0 {
                self.limits.remove(&limit);
            }
        }
    }

    /// What a link itself can carry, given what its Request says now.
    fn limit(&self, link: &ConnectionId, asked: Option<Mtu>) -> Option<Mtu> {
        match self.links.get(link) {
            Some(known) if asked.is_none_or(|asked| asked == known.told) => known.limit,
            _ => asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> ConnectionId {
        ConnectionId::new(text).unwrap()
    }

    fn mtu(bytes: u32) -> Mtu {
        Mtu::new(bytes).unwrap()
    }

    /// A Request whose link carries what it is offered.
    fn request(minimum: &mut Minimum, link: &str, asked: Option<u32>) -> (u32, bool) {
        let asked = asked.map(mtu);
        let offered = minimum.offer(&id(link), asked);
        (
            offered.bytes(),
            minimum.set(&id(link), asked, offered, offered),
        )
    }

    #[test]
    fn the_slowest_link_sets_the_minimum_and_its_leaving_lifts_it() {
        let mut minimum = Minimum::new(Mtu::JUMBO);
        assert_eq!(request(&mut minimum, "a", None), (9000, false));
        assert_eq!(request(&mut minimum, "b", Some(1500)), (1500, true));
        assert_eq!(request(&mut minimum, "a", None), (1500, false));
        assert!(minimum.remove(&id("b")));
        assert_eq!(request(&mut minimum, "a", Some(1500)), (9000, false));
    }

    #[test]
    fn a_link_that_repeats_what_it_was_told_keeps_its_own_limit() {
        let mut minimum = Minimum::new(Mtu::JUMBO);
        request(&mut minimum, "slow", Some(1400));
        assert_eq!(request(&mut minimum, "a", Some(1450)), (1400, false));
        assert_eq!(request(&mut minimum, "a", Some(1400)), (1400, false));
        assert!(minimum.remove(&id("slow")));
        assert_eq!(minimum.current(), mtu(1450));
    }

    #[test]
    fn a_link_that_turns_out_slower_than_offered_lowers_the_minimum() {
        let mut minimum = Minimum::new(Mtu::JUMBO);
        assert!(minimum.set(&id("a"), None, mtu(9000), mtu(1450)));
        assert_eq!(minimum.current(), mtu(1450));
    }

    proptest! {
        #[test]
        fn the_minimum_is_that_of_the_links_there_are(
            steps in proptest::collection::vec((0..4_u8, proptest::option::of(1280..1290_u32)), 0..60)
        ) {
            let mut minimum = Minimum::new(Mtu::JUMBO);
            for (link, asked) in steps {
                let link = id(&link.to_string());
                let before = minimum.current();
                let changed = if let Some(asked) = asked {
                    let offered = minimum.offer(&link, Some(mtu(asked)));
                    minimum.set(&link, Some(mtu(asked)), offered, offered)
                } else {
                    minimum.remove(&link)
                };
                let lowest = minimum.links.values().filter_map(|link| link.limit).min();
                prop_assert_eq!(minimum.current(), lowest.unwrap_or(Mtu::JUMBO));
                prop_assert_eq!(changed, minimum.current() != before);
            }
        }
    }

    #[test]
    fn removing_an_unknown_link_changes_nothing() {
        assert!(!Minimum::new(Mtu::ETHERNET).remove(&id("a")));
    }
}
