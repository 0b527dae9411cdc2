use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::{Limits, Now, Registry};

fn now() -> Now {
    Now {
        instant: Instant::now(),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn endpoint(name: &str, services: &[&str]) -> Endpoint {
    Endpoint::new(
        EndpointName::new(name).unwrap(),
        services.iter().map(|name| service(name)),
    )
}

/// A registry with its watchers.
struct Bed {
    registry: Registry,
    watchers: Watchers<Endpoint>,
    now: Now,
}

impl Bed {
    fn new() -> Self {
        Self {
            registry: Registry::new(Limits::default()),
            watchers: Watchers::new(20_000),
            now: now(),
        }
    }

    fn watch(&mut self, query: EndpointQuery) -> Arc<Mailbox<Endpoint>> {
        let initial = self.registry.find_endpoints(&query, self.now.instant);
        self.watchers.open(query, initial).unwrap().1
    }

    /// Returns how many watches were looked at.
    fn register(&mut self, endpoint: Endpoint) -> usize {
        let change = self
            .registry
            .register_endpoint(endpoint, None, self.now)
            .unwrap();
        self.watchers.publish(&change)
    }

    fn unregister(&mut self, endpoint: &Endpoint) {
        if let Some(change) = self.registry.unregister_endpoint(endpoint).unwrap() {
            self.watchers.publish(&change);
        }
    }
}

fn read(mailbox: &Mailbox<Endpoint>) -> Vec<(String, bool)> {
    std::iter::from_fn(|| mailbox.next())
        .map(|news| (news.item.name.to_string(), news.deleted))
        .collect()
}

#[test]
fn a_watch_begins_with_what_is_there() {
    let mut bed = Bed::new();
    bed.register(endpoint("a", &["vl3"]));
    bed.register(endpoint("b", &["lb"]));
    let watch = bed.watch(EndpointQuery::by_service(service("vl3")));
    assert_eq!(read(&watch), [("a".into(), false)]);
    bed.register(endpoint("c", &["vl3", "lb"]));
    bed.unregister(&endpoint("a", &[]));
    assert_eq!(read(&watch), [("c".into(), false), ("a".into(), true)]);
}

#[test]
fn what_no_longer_matches_is_deleted_for_the_watcher() {
    let mut bed = Bed::new();
    let watch = bed.watch(EndpointQuery::by_service(service("vl3")));
    bed.register(endpoint("a", &["vl3"]));
    assert_eq!(read(&watch), [("a".into(), false)]);
    bed.register(endpoint("a", &["lb"]));
    assert_eq!(read(&watch), [("a".into(), true)]);
    bed.register(endpoint("a", &["vl3"]));
    assert_eq!(read(&watch), [("a".into(), false)]);
}

#[test]
fn a_slow_watcher_reads_the_last_state_of_each_name_once() {
    let mut bed = Bed::new();
    let watch = bed.watch(EndpointQuery::default());
    for _ in 0..1000 {
        bed.register(endpoint("a", &["vl3"]));
        bed.register(endpoint("b", &["vl3"]));
    }
    bed.unregister(&endpoint("b", &[]));
    assert_eq!(read(&watch), [("a".into(), false)]);
}

#[test]
fn endless_names_do_not_fill_the_mailbox_of_a_watcher_that_sleeps() {
    let mut bed = Bed::new();
    let watch = bed.watch(EndpointQuery::default());
    for number in 0..1000 {
        let endpoint = endpoint(&format!("nse-{number}"), &["vl3"]);
        bed.register(endpoint.clone());
        bed.unregister(&endpoint);
        assert_eq!(watch.len(), 0);
    }
    assert_eq!(watch.lock().order.len(), 0);
}

#[test]
fn a_registration_costs_the_watches_it_concerns_and_no_others() {
    let mut bed = Bed::new();
    for number in 0..10_000 {
        let name = format!("nse-{number}");
        let by_name = EndpointQuery::by_name(EndpointName::new(&name).unwrap());
        bed.watch(by_name);
        bed.watch(EndpointQuery::by_service(service(&format!(
            "service-{number}"
        ))));
        assert_eq!(bed.register(endpoint(&name, &["vl3"])), 1);
    }
    assert_eq!(
        bed.register(endpoint("nse-77", &["service-5", "service-5"])),
        2
    );
}

#[test]
fn a_closed_watch_leaves_nothing() {
    let mut bed = Bed::new();
    let (id, _) = bed
        .watchers
        .open(EndpointQuery::default(), Vec::new())
        .unwrap();
    bed.watchers.close(&id);
    bed.watchers.close(&id);
    assert_eq!((bed.watchers.count, bed.watchers.by_key.len()), (0, 0));
}

#[test]
fn too_many_watches_are_refused() {
    let mut watchers = Watchers::<Service>::new(1);
    assert!(watchers.open(ServiceQuery::default(), Vec::new()).is_ok());
    let error = watchers
        .open(ServiceQuery::default(), Vec::new())
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "the registry is full: it takes at most 1 watches"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Read,
    Register(u8, bool),
    Unregister(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Read),
        (0..5_u8, any::<bool>()).prop_map(|(name, matches)| Step::Register(name, matches)),
        (0..5_u8).prop_map(Step::Unregister),
    ]
}

proptest! {
    #[test]
    fn a_reader_always_ends_up_with_what_is_there(steps in prop::collection::vec(step(), 0..100)) {
        let mut bed = Bed::new();
        let query = EndpointQuery::by_service(service("vl3"));
        let watch = bed.watch(query.clone());
        let mut known = BTreeSet::new();
        let mut apply = |news: News<Endpoint>| {
            let name = news.item.name.clone();
            if news.deleted { known.remove(&name) } else { known.insert(name) }
        };
        for step in steps {
            match step {
                Step::Read => if let Some(news) = watch.next() {
                    let deleted = news.deleted;
                    prop_assert!(apply(news) || !deleted, "deleted what was never told");
                },
                Step::Register(name, matches) => {
                    let services: &[&str] = if matches { &["vl3"] } else { &["lb"] };
                    bed.register(endpoint(&format!("nse-{name}"), services));
                }
                Step::Unregister(name) => bed.unregister(&endpoint(&format!("nse-{name}"), &[])),
            }
        }
        while let Some(news) = watch.next() {
            apply(news);
        }
        let found = bed.registry.find_endpoints(&query, bed.now.instant);
        prop_assert_eq!(known, found.iter().map(|endpoint| endpoint.name.clone()).collect());
    }
}
