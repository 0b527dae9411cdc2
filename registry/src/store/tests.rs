use proptest::prelude::*;

use super::*;

const PERIOD: Duration = Duration::from_secs(60);

/// A clock that stands still until it is told to go on.
#[derive(Clone, Copy)]
struct Clock(Now);

impl Clock {
    fn new() -> Self {
        Self(Now {
            instant: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        })
    }

    fn after(self, seconds: u64) -> Now {
        let time = Duration::from_secs(seconds);
        Now {
            instant: self.0.instant + time,
            wall: self.0.wall + time,
        }
    }
}

fn name(name: &str) -> EndpointName {
    EndpointName::new(name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn endpoint(of: &str, url: &str) -> Endpoint {
    Endpoint {
        url: Some(url.into()),
        ..Endpoint::new(name(of), [service("vl3")])
    }
}

fn registry() -> Registry {
    Registry::new(Limits::default())
}

fn register(registry: &mut Registry, endpoint: Endpoint, now: Now) -> Arc<Endpoint> {
    registry
        .register_endpoint(endpoint, None, now)
        .unwrap()
        .after
        .unwrap()
}

#[test]
fn an_endpoint_lives_for_the_shortest_of_period_token_and_wish() {
    let clock = Clock::new();
    for (wish, token, seconds) in [
        (None, None, 60),
        (Some(20), None, 20),
        (Some(600), None, 60),
        (None, Some(30), 30),
        (Some(20), Some(10), 10),
        (Some(600), Some(3600), 60),
    ] {
        let mut registry = registry();
        let mut endpoint = endpoint("a", "tcp://1");
        endpoint.expires = wish.map(|seconds| clock.after(seconds).wall);
        let token = token.map(|seconds| clock.after(seconds).wall);
        let change = registry
            .register_endpoint(endpoint, token, clock.after(0))
            .unwrap();
        assert_eq!(
            change.after.unwrap().expires,
            Some(clock.after(seconds).wall)
        );
        assert_eq!(registry.next_expiry(), Some(clock.after(seconds).instant));
    }
}

#[test]
fn what_would_have_expired_already_is_refused() {
    let clock = Clock::new();
    let past = clock.after(0).wall;
    let mut wish = endpoint("a", "tcp://1");
    wish.expires = Some(past);
    let error = registry()
        .register_endpoint(wish, None, clock.after(1))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("expiration_time: \"1.000 s ago\""),
        "{error}"
    );
    let token = registry().register_endpoint(endpoint("a", "x"), Some(past), clock.after(1));
    assert!(
        token
            .unwrap_err()
            .to_string()
            .contains("nsm-client-token-expires")
    );
}

#[test]
fn an_expired_endpoint_is_removed_once() {
    let clock = Clock::new();
    let mut registry = registry();
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(0));
    assert!(registry.expire(clock.after(59).instant).is_empty());
    let gone = registry.expire(clock.after(60).instant);
    assert!(gone.len() == 1 && gone[0].after.is_none());
    assert!(registry.expire(clock.after(61).instant).is_empty());
    assert_eq!(registry.next_expiry(), None);
}

#[test]
fn a_refresh_before_its_end_prevents_expiry() {
    let clock = Clock::new();
    let mut registry = registry();
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(0));
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(40));
    assert!(registry.expire(clock.after(99).instant).is_empty());
    assert_eq!(registry.expire(clock.after(100).instant).len(), 1);
}

#[test]
fn an_endpoint_past_its_end_is_not_found_even_before_it_is_removed() {
    let clock = Clock::new();
    let mut registry = registry();
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(0));
    let query = EndpointQuery::by_service(service("vl3"));
    assert_eq!(
        registry
            .find_endpoints(&query, clock.after(59).instant)
            .len(),
        1
    );
    assert_eq!(
        registry
            .find_endpoints(&query, clock.after(60).instant)
            .len(),
        0
    );
}

#[test]
fn setting_the_wall_clock_forward_expires_nobody() {
    let clock = Clock::new();
    let mut registry = registry();
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(0));
    let later = Now {
        instant: clock.after(1).instant,
        wall: clock.after(86_400).wall,
    };
    assert!(registry.expire(later.instant).is_empty());
    assert_eq!(
        registry
            .find_endpoints(&EndpointQuery::default(), later.instant)
            .len(),
        1
    );
}

#[test]
fn the_first_registration_time_stays_while_the_endpoint_lives() {
    let clock = Clock::new();
    let mut registry = registry();
    let first = Some(clock.after(0).wall);
    assert_eq!(
        register(&mut registry, endpoint("a", "tcp://1"), clock.after(0)).registered_at,
        first
    );
    let mut claims = endpoint("a", "tcp://1");
    claims.registered_at = Some(clock.after(5).wall);
    assert_eq!(
        register(&mut registry, claims, clock.after(40)).registered_at,
        first
    );
}

#[test]
fn an_endpoint_brings_its_first_registration_time_back() {
    let clock = Clock::new();
    let mut back = endpoint("a", "tcp://1");
    back.registered_at = Some(clock.after(5).wall);
    let registered = register(&mut registry(), back.clone(), clock.after(40));
    assert_eq!(registered.registered_at, back.registered_at);
    back.registered_at = Some(clock.after(90).wall);
    let registered = register(&mut registry(), back, clock.after(40));
    assert_eq!(
        registered.registered_at,
        Some(clock.after(40).wall),
        "not in the future"
    );
}

#[test]
fn two_endpoints_cannot_have_one_name() {
    let clock = Clock::new();
    let mut registry = registry();
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(0));
    let other = endpoint("a", "tcp://2");
    let error = registry
        .register_endpoint(other.clone(), None, clock.after(1))
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("name a is held by tcp://1") && text.contains("tcp://2"),
        "{text}"
    );
    assert!(
        registry.unregister_endpoint(&other).is_err(),
        "nor take the other away"
    );
    assert!(
        registry
            .register_endpoint(other, None, clock.after(60))
            .is_ok(),
        "expired by then"
    );
}

#[test]
fn a_restarted_endpoint_takes_its_name_over() {
    let clock = Clock::new();
    let keyed = |url, key: &str| {
        let mut endpoint = endpoint("a", url);
        let labels = [(Endpoint::KEY_LABEL, key)].into_iter().collect();
        endpoint.labels.insert(service("vl3"), labels);
        endpoint
    };
    let mut registry = registry();
    register(&mut registry, keyed("tcp://1", "k"), clock.after(0));
    let moved = register(&mut registry, keyed("tcp://2", "k"), clock.after(1));
    assert_eq!(moved.registered_at, Some(clock.after(0).wall));
    let thief = registry.register_endpoint(keyed("tcp://3", "other"), None, clock.after(2));
    assert!(matches!(thief, Err(Refused::Conflict { .. })));
    register(&mut registry, keyed("tcp://2", "other"), clock.after(3));
}

#[test]
fn unregistering_twice_is_no_error() {
    let clock = Clock::new();
    let mut registry = registry();
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(0));
    let by_name = Endpoint::new(name("a"), []);
    assert!(registry.unregister_endpoint(&by_name).unwrap().is_some());
    assert!(registry.unregister_endpoint(&by_name).unwrap().is_none());
    assert_eq!(registry.next_expiry(), None);
}

#[test]
fn a_full_registry_still_refreshes() {
    let clock = Clock::new();
    let mut registry = Registry::new(Limits {
        endpoints: 1,
        services: 1,
        ..Limits::default()
    });
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(0));
    let second = registry.register_endpoint(endpoint("b", "tcp://2"), None, clock.after(0));
    let full = "the registry is full: it takes at most 1 endpoints";
    assert_eq!(second.unwrap_err().to_string(), full);
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(1));
    let services = ["a", "b"].map(|name| registry.register_service(Service::new(service(name))));
    assert!(services[0].is_ok() && services[1].is_err());
    assert!(
        registry
            .register_service(Service::new(service("a")))
            .is_ok()
    );
}

#[test]
fn an_endpoint_that_changes_its_services_is_found_by_the_new_ones() {
    let clock = Clock::new();
    let mut registry = registry();
    register(&mut registry, endpoint("a", "tcp://1"), clock.after(0));
    let mut changed = endpoint("a", "tcp://1");
    changed.services = vec![service("lb")];
    register(&mut registry, changed, clock.after(1));
    let count = |of| {
        let query = EndpointQuery::by_service(service(of));
        registry
            .find_endpoints(&query, clock.after(1).instant)
            .len()
    };
    assert_eq!((count("vl3"), count("lb")), (0, 1));
}

#[test]
fn a_stored_endpoint_comes_back_unless_it_has_expired() {
    let clock = Clock::new();
    let mut stored = endpoint("a", "tcp://1");
    stored.expires = Some(clock.after(60).wall);
    let mut registry = registry();
    assert!(
        registry
            .restore_endpoint(stored.clone(), clock.after(60))
            .is_none()
    );
    assert!(registry.restore_endpoint(stored, clock.after(50)).is_some());
    assert_eq!(registry.expire(clock.after(60).instant).len(), 1);
}

#[test]
fn services_are_found_by_name_and_by_payload() {
    let mut registry = registry();
    registry
        .register_service(Service::new(service("vl3")))
        .unwrap();
    let find = |query: &ServiceQuery| registry.find_services(query).len();
    assert_eq!(find(&ServiceQuery::by_name(service("vl3"))), 1);
    assert_eq!(find(&ServiceQuery::by_name(service("vl"))), 0);
    let ethernet = ServiceQuery {
        payload: Some(carrick_types::Payload::Ethernet),
        name: None,
    };
    assert_eq!((find(&ServiceQuery::default()), find(&ethernet)), (1, 0));
}

#[test]
fn refreshing_ten_thousand_endpoints_leaves_nothing_behind() {
    let clock = Clock::new();
    let mut registry = registry();
    for round in 0..3 {
        for number in 0..10_000 {
            let endpoint = endpoint(&format!("nse-{number}"), &format!("tcp://{number}"));
            register(&mut registry, endpoint, clock.after(round * 40));
        }
    }
    // Each index is a balanced tree of as many entries as there are endpoints,
    // so that one registration costs a few steps down each.
    let sizes = (
        registry.endpoints.len(),
        registry.by_service.len(),
        registry.expiries.len(),
    );
    assert_eq!(sizes, (10_000, 10_000, 10_000));
    assert_eq!(registry.expire(clock.after(140).instant).len(), 10_000);
    assert!(registry.by_service.is_empty() && registry.expiries.is_empty());
}

// === against a model ===

/// A registry as one would write it for ten entries.
#[derive(Default)]
struct Model(Vec<Endpoint>);

impl Model {
    fn register(&mut self, mut endpoint: Endpoint, now: Now) -> bool {
        let live = |old: &&Endpoint| old.name == endpoint.name && old.expires > Some(now.wall);
        if let Some(old) = self.0.iter().find(live) {
            if old.url != endpoint.url {
                return false;
            }
            endpoint.registered_at = old.registered_at;
        }
        endpoint.registered_at.get_or_insert(now.wall);
        endpoint.expires = Some(now.wall + PERIOD);
        self.0.retain(|old| old.name != endpoint.name);
        self.0.push(endpoint);
        self.0.sort_by(|a, b| a.name.cmp(&b.name));
        true
    }

    fn unregister(&mut self, endpoint: &Endpoint) {
        self.0
            .retain(|old| old.name != endpoint.name || old.url != endpoint.url);
    }

    fn expire(&mut self, now: Now) -> usize {
        let before = self.0.len();
        self.0.retain(|endpoint| endpoint.expires > Some(now.wall));
        before - self.0.len()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Expire,
    Register(u8, u8, Vec<u8>),
    Unregister(u8, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let services = prop::collection::vec(0..3_u8, 0..4);
    prop_oneof![
        1 => Just(Step::Expire),
        5 => (0..4_u8, 0..2_u8, services).prop_map(|(name, url, of)| Step::Register(name, url, of)),
        2 => (0..4_u8, 0..2_u8).prop_map(|(name, url)| Step::Unregister(name, url)),
        2 => (1..40_u64).prop_map(Step::Wait),
    ]
}

fn made(of: u8, url: u8, services: &[u8]) -> Endpoint {
    Endpoint {
        url: Some(format!("tcp://{url}")),
        ..Endpoint::new(
            name(&format!("nse-{of}")),
            services.iter().map(|of| service(&format!("service-{of}"))),
        )
    }
}

proptest! {
    #[test]
    fn the_registry_always_agrees_with_the_model(steps in prop::collection::vec(step(), 0..80)) {
        let clock = Clock::new();
        let (mut registry, mut model, mut time) = (registry(), Model::default(), 0);
        for step in steps {
            let now = clock.after(time);
            match step {
                Step::Expire => prop_assert_eq!(registry.expire(now.instant).len(), model.expire(now)),
                Step::Register(name, url, of) => {
                    let endpoint = made(name, url, &of);
                    let registered = registry.register_endpoint(endpoint.clone(), None, now);
                    prop_assert_eq!(registered.is_ok(), model.register(endpoint, now));
                }
                Step::Unregister(name, url) => {
                    let endpoint = made(name, url, &[]);
                    let _ = registry.unregister_endpoint(&endpoint);
                    model.unregister(&endpoint);
                }
                Step::Wait(seconds) => time += seconds,
            }
            let now = clock.after(time);
            let queries = (0..3).map(|of| EndpointQuery::by_service(service(&format!("service-{of}"))));
            for query in queries.chain([EndpointQuery::default(), EndpointQuery::by_name(name("nse-1"))]) {
                let found = registry.find_endpoints(&query, now.instant);
                let live = |endpoint: &&Endpoint| endpoint.expires > Some(now.wall) && query.matches(endpoint);
                let expected: Vec<_> = model.0.iter().filter(live).collect();
                prop_assert_eq!(found.iter().map(AsRef::as_ref).collect::<Vec<_>>(), expected);
            }
            let next = model.0.iter().filter_map(|endpoint| endpoint.expires).min();
            prop_assert_eq!(registry.next_expiry(), next.map(|time| clock.0.until(time)));
        }
    }
}
