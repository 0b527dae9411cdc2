use std::time::{Duration, Instant, SystemTime};

use carrick_types::{ConnectionId, EndpointName, Labels};

use super::*;

struct Bed {
    set: PeerSet,
    now: Instant,
}

fn conn(text: &str) -> ConnectionId {
    ConnectionId::new(text).unwrap()
}

fn id(name: &str) -> PeerId {
    PeerId::new(EndpointName::new(name).unwrap(), Domain::own())
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn endpoint(name: &str, registered: u64) -> Endpoint {
    Endpoint {
        id: id(name),
        url: format!("tcp://{name}"),
        registered_at: Some(at(registered)),
        node: None,
        labels: [(Endpoint::KEY, "key")].into_iter().collect(),
    }
}

/// The same as NSM's own endpoints register: without a key.
fn keyless(name: &str, registered: u64) -> Endpoint {
    Endpoint {
        labels: Labels::default(),
        ..endpoint(name, registered)
    }
}

/// The set of endpoint `m`, registered at second 100.
fn bed() -> Bed {
    let options = PeerSetOptions {
        seed: 7,
        ..PeerSetOptions::default()
    };
    let set = PeerSet::new(EndpointName::new("m").unwrap(), options);
    let mut bed = Bed {
        set,
        now: Instant::now(),
    };
    bed.tell(Event::Registered(at(100)));
    bed
}

impl Bed {
    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.set.handle(event, self.now);
        std::iter::from_fn(|| self.set.action()).collect()
    }

    fn see(&mut self, name: &str, registered: u64) -> Vec<Action> {
        self.tell(Event::Seen(endpoint(name, registered)))
    }

    /// Lets time go by; what was to be done meanwhile.
    fn wait(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut actions = Vec::new();
        while let Some(tick) = self.set.next_tick().filter(|tick| *tick <= end) {
            self.now = self.now.max(tick);
            self.set.tick(self.now);
            actions.extend(std::iter::from_fn(|| self.set.action()));
        }
        self.now = end;
        actions
    }

    fn fail(&mut self, dial: DialId, name: &str) -> Vec<Action> {
        let (peer, error) = (id(name), "refused".to_owned());
        self.tell(Event::DialFailed {
            dial,
            peer,
            reason: Reason::Unavailable,
            error,
        })
    }

    fn dialed(&mut self, dial: DialId, name: &str, connection: &str) -> Vec<Action> {
        self.tell(Event::Dialed {
            dial,
            peer: id(name),
            link: Link::new(conn(connection)),
        })
    }

    fn health(&mut self, connection: &str, alive: bool) -> Vec<Action> {
        self.tell(Event::Health {
            connection: conn(connection),
            alive,
            rtt: None,
        })
    }

    fn admit(&mut self, name: &str, connection: &str) -> (Result<(), Refusal>, Vec<Action>) {
        let verdict = self.set.admit(&id(name), &conn(connection), self.now);
        (verdict, std::iter::from_fn(|| self.set.action()).collect())
    }

    fn inbound(&mut self, name: &str, connection: &str) {
        self.admit(name, connection).0.unwrap();
        self.tell(Event::InboundUp(Link::new(conn(connection))));
    }
}

fn dials(actions: &[Action]) -> Vec<(DialId, &str)> {
    let dial = |action| match action {
        &Action::Dial {
            dial, ref endpoint, ..
        } => Some((dial, endpoint.id.name.as_str())),
        _ => None,
    };
    actions.iter().filter_map(dial).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_newer_dials_the_older_at_once() {
    assert_eq!(dials(&bed().see("a", 50)), [(1, "a")]);
}

#[test]
fn the_older_waits_for_the_newer_and_dials_after_the_grace() {
    let mut bed = bed();
    assert!(bed.see("a", 200).is_empty());
    assert!(bed.wait(SECOND * 9).is_empty());
    assert_eq!(dials(&bed.wait(SECOND * 2)), [(1, "a")]);
}

#[test]
fn endpoints_of_one_instant_go_by_their_names() {
    assert_eq!(dials(&bed().see("a", 100)).len(), 1);
    assert_eq!(dials(&bed().see("z", 100)).len(), 0);
}

#[test]
fn ourselves_are_never_dialled_or_admitted() {
    let mut bed = bed();
    assert!(bed.see("m", 50).is_empty());
    assert_eq!(bed.admit("m", "c").0, Err(Refusal::Itself));
    assert!(bed.wait(SECOND * 60).is_empty());
}

#[test]
fn nobody_is_dialled_before_the_own_registration() {
    let mut set = PeerSet::new(EndpointName::new("m").unwrap(), PeerSetOptions::default());
    set.handle(Event::Seen(endpoint("a", 50)), Instant::now());
    assert_eq!(set.action(), None);
    set.handle(Event::Registered(at(100)), Instant::now());
    assert!(matches!(set.action(), Some(Action::Dial { .. })));
}

#[test]
fn a_peer_that_refuses_three_times_is_dialled_a_fourth() {
    let mut bed = bed();
    let mut actions = bed.see("a", 50);
    for attempt in 1..=4 {
        let [(dial, _)] = dials(&actions)[..] else {
            panic!("{actions:?} at {attempt}")
        };
        assert_eq!(dial, attempt);
        actions = if attempt < 4 {
            bed.fail(dial, "a")
        } else {
            bed.dialed(dial, "a", "c")
        };
        actions.extend(bed.wait(SECOND * 2));
    }
    assert!(actions.is_empty());
    assert_eq!(bed.set.status(bed.now)[0].attempts, 4);
    assert_eq!(bed.set.status(bed.now)[0].state, PeerState::Linked);
}

#[test]
fn the_delay_is_forgotten_when_the_peer_moves() {
    let mut bed = bed();
    let mut actions = bed.see("a", 50);
    for _ in 0..10 {
        let dial = dials(&actions)[0].0;
        bed.fail(dial, "a");
        actions = bed.wait(SECOND * 31);
        actions.truncate(1);
    }
    let dial = dials(&actions)[0].0;
    bed.fail(dial, "a");
    assert_eq!(dials(&bed.see("a", 60)).len(), 1);
}

#[test]
fn at_most_sixteen_dials_are_in_flight() {
    let mut bed = bed();
    let mut actions = Vec::new();
    for i in 0..40 {
        actions.extend(bed.see(&format!("a{i}"), 50));
    }
    assert_eq!(dials(&actions).len(), 16);
    assert_eq!(dials(&bed.fail(1, "a0")).len(), 1);
}

#[test]
fn a_crossing_dial_yields_to_the_greater_name() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.see("z", 60);
    assert_eq!(bed.admit("a", "ca").0, Err(Refusal::Crossed));
    assert_eq!(bed.admit("z", "cz").0, Ok(()));
    bed.tell(Event::InboundUp(Link::new(conn("cz"))));
    let actions = bed.dialed(2, "z", "mine");
    assert_eq!(
        actions,
        [Action::Close {
            connection: conn("mine")
        }]
    );
}

#[test]
fn a_dial_that_failed_before_does_not_shut_out_the_other_side() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.fail(1, "a");
    bed.wait(SECOND);
    assert_eq!(bed.admit("a", "ca").0, Ok(()));
    let actions = bed.dialed(2, "a", "mine");
    assert_eq!(
        actions,
        [
            Action::Evict {
                connection: conn("ca")
            },
            Action::Install {
                connection: conn("mine")
            }
        ]
    );
}

#[test]
fn a_second_dial_of_a_peer_replaces_its_first() {
    let mut bed = bed();
    bed.inbound("z", "c1");
    let (verdict, actions) = bed.admit("z", "c2");
    assert_eq!(
        (verdict, actions),
        (
            Ok(()),
            vec![Action::Evict {
                connection: conn("c1")
            }]
        )
    );
    assert!(bed.tell(Event::InboundClosed(conn("c1"))).is_empty());
    assert_eq!(bed.set.peer_of(&conn("c2")), Some(&id("z")));
}

#[test]
fn a_refresh_of_an_admitted_link_is_admitted() {
    let mut bed = bed();
    bed.inbound("z", "c1");
    assert_eq!(bed.admit("z", "c1"), (Ok(()), vec![]));
}

#[test]
fn a_dead_data_path_loses_its_routes_and_the_peer_is_dialled_at_once() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.dialed(1, "a", "c");
    let actions = bed.health("c", false);
    assert_eq!(
        actions[0],
        Action::Withdraw {
            connection: conn("c")
        }
    );
    assert_eq!(dials(&actions), [(2, "a")]);
    let actions = bed.dialed(2, "a", "c2");
    assert_eq!(
        actions,
        [
            Action::Close {
                connection: conn("c")
            },
            Action::Install {
                connection: conn("c2")
            }
        ]
    );
}

#[test]
fn a_dead_peer_that_is_registered_is_asked_every_two_seconds_at_least() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.dialed(1, "a", "c");
    let mut actions = bed.health("c", false);
    for _ in 0..20 {
        let dial = dials(&actions).last().unwrap().0;
        bed.fail(dial, "a");
        actions = bed.wait(SECOND * 2);
        assert_eq!(dials(&actions).len(), 1, "{actions:?}");
    }
}

#[test]
fn a_data_path_that_returns_gets_its_routes_back() {
    let mut bed = bed();
    bed.inbound("z", "c");
    assert_eq!(
        bed.health("c", false),
        [Action::Withdraw {
            connection: conn("c")
        }]
    );
    assert_eq!(
        bed.health("c", true),
        [Action::Install {
            connection: conn("c")
        }]
    );
    assert!(bed.health("c", true).is_empty());
}

#[test]
fn a_dead_link_is_dropped_in_the_end() {
    let mut bed = bed();
    bed.inbound("z", "c");
    bed.health("c", false);
    assert_eq!(
        bed.wait(SECOND * 31),
        [Action::Evict {
            connection: conn("c")
        }]
    );
    assert!(bed.set.is_empty());
}

#[test]
fn a_working_link_outlives_its_registration_by_the_grace() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.dialed(1, "a", "c");
    assert!(bed.tell(Event::Gone(id("a"))).is_empty());
    assert_eq!(bed.set.status(bed.now)[0].state, PeerState::Gone);
    assert!(bed.wait(SECOND * 59).is_empty());
    assert_eq!(
        bed.wait(SECOND * 2),
        [Action::Close {
            connection: conn("c")
        }]
    );
    assert!(bed.set.is_empty());
}

#[test]
fn a_peer_that_is_both_dead_and_gone_is_dropped_at_once() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.dialed(1, "a", "c");
    bed.tell(Event::Gone(id("a")));
    let actions = bed.health("c", false);
    assert!(
        actions.contains(&Action::Close {
            connection: conn("c")
        }),
        "{actions:?}"
    );
    assert!(bed.set.is_empty());
}

#[test]
fn a_peer_that_closes_in_order_and_unregistered_is_forgotten() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.dialed(1, "a", "c");
    bed.tell(Event::Gone(id("a")));
    assert!(bed.tell(Event::OutgoingClosed(conn("c"))).is_empty());
    assert!(bed.set.is_empty());
}

#[test]
fn what_a_registry_does_not_repeat_is_gone() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.see("b", 50);
    bed.tell(Event::Resync(Domain::own()));
    bed.see("a", 50);
    let actions = bed.tell(Event::Synced(Domain::own()));
    assert_eq!(actions, [Action::Cancel { dial: 2 }]);
    assert_eq!(bed.set.len(), 1);
}

#[test]
fn a_registry_that_never_says_that_it_is_through_is_taken_at_its_word_in_time() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.tell(Event::Resync(Domain::own()));
    assert_eq!(bed.wait(SECOND * 6), [Action::Cancel { dial: 1 }]);
}

#[test]
fn a_peer_unknown_to_our_registries_is_kept_while_it_is_linked() {
    let mut bed = bed();
    bed.inbound("x", "c");
    assert!(bed.wait(SECOND * 3600).is_empty());
    bed.tell(Event::InboundClosed(conn("c")));
    assert!(bed.set.is_empty());
}

#[test]
fn a_late_answer_of_a_given_up_dial_is_closed() {
    let mut bed = bed();
    bed.see("a", 50);
    assert!(bed.see("a", 60).contains(&Action::Cancel { dial: 1 }));
    assert_eq!(
        bed.dialed(1, "a", "c"),
        [Action::Close {
            connection: conn("c")
        }]
    );
}

#[test]
fn the_number_of_peers_is_bounded() {
    let options = PeerSetOptions {
        max_peers: 2,
        ..PeerSetOptions::default()
    };
    let mut set = PeerSet::new(EndpointName::new("m").unwrap(), options);
    for name in ["a", "b", "c", "d"] {
        set.handle(Event::Seen(endpoint(name, 50)), Instant::now());
    }
    assert_eq!((set.len(), set.refused_peers()), (2, 2));
    assert_eq!(
        set.admit(&id("e"), &conn("c"), Instant::now()),
        Err(Refusal::Full(2))
    );
}

#[test]
fn a_link_of_ours_yields_to_a_dial_of_the_greater_name_and_is_closed() {
    let mut bed = bed();
    bed.see("z", 50);
    bed.dialed(1, "z", "mine");
    let close = Action::Close {
        connection: conn("mine"),
    };
    assert_eq!(bed.admit("z", "cz"), (Ok(()), vec![close]));
}

#[test]
fn a_working_link_of_ours_does_not_yield_to_the_lesser_name_unless_that_restarted() {
    let mut bed = bed();
    bed.see("a", 50);
    bed.dialed(1, "a", "mine");
    assert_eq!(bed.admit("a", "ca").0, Err(Refusal::AlreadyLinked));
    bed.see("a", 200);
    let close = Action::Close {
        connection: conn("mine"),
    };
    assert_eq!(bed.admit("a", "ca"), (Ok(()), vec![close]));
}

#[test]
fn a_dial_of_an_endpoint_without_a_key_is_never_refused_whatever_its_name() {
    let mut bed = bed();
    bed.tell(Event::Seen(keyless("a", 50)));
    assert_eq!(bed.admit("a", "ca").0, Ok(()));
    bed.tell(Event::InboundUp(Link::new(conn("ca"))));
    let close = |text| Action::Close {
        connection: conn(text),
    };
    assert_eq!(bed.dialed(1, "a", "mine"), [close("mine")]);

    bed.tell(Event::InboundClosed(conn("ca")));
    assert_eq!(dials(&bed.wait(SECOND * 5)), [(2, "a")]);
    bed.dialed(2, "a", "again");
    assert_eq!(bed.admit("a", "cb"), (Ok(()), vec![close("again")]));
}
