use std::time::Duration;

use proptest::prelude::*;

use super::sim::World;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn twenty_endpoints_that_start_in_one_second_mesh_with_one_dial_each() {
    let mut world = World::new(20, 1);
    for node in 0..20 {
        world.boot(node);
        world.run(Duration::from_millis(50));
    }
    world.run(SECOND * 3);
    assert_eq!(world.faults(), Vec::<String>::new());
    assert_eq!(world.requests, 190);
}

#[test]
fn a_hundred_endpoints_mesh_from_a_cold_start() {
    let mut world = World::new(100, 2);
    (0..100).for_each(|node| world.boot(node));
    world.run(SECOND * 10);
    assert_eq!(world.faults(), Vec::<String>::new());
}

#[test]
fn a_killed_peer_is_linked_again_within_five_seconds_of_its_return() {
    let mut world = World::new(5, 3);
    (0..5).for_each(|node| world.boot(node));
    world.run(SECOND * 5);
    for away in [1, 20, 100] {
        world.kill(2);
        world.run(SECOND * away);
        world.boot(2);
        world.run(SECOND * 5);
        assert_eq!(world.faults(), Vec::<String>::new(), "after {away} s");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_mesh_settles_to_exactly_one_link_for_each_pair(
        seed: u64,
        nodes in 2usize..8,
        delay in 1u64..1500,
        loss in 0.0f64..0.5,
        skew in 0u64..20_000,
        one_sided in prop::collection::vec((0usize..8, 0usize..8), 0..6),
        faults in prop::collection::vec((0usize..8, 0u8..4, 0u64..8000), 0..12),
    ) {
        let mut world = World::new(nodes, seed);
        world.delay = Duration::from_millis(delay);
        world.loss = loss;
        world.skew = Duration::from_millis(skew);
        for (one, other) in one_sided {
            world.nodes[one % nodes].sees[other % nodes] = false;
        }
        for node in 0..nodes {
            world.boot(node);
            let pause = world.rng.u64(..500);
            world.run(Duration::from_millis(pause));
        }
        for (node, fault, pause) in faults {
            match fault {
                0 => world.kill(node % nodes),
                1 => { world.kill(node % nodes); world.expire(node % nodes); }
                _ => world.boot(node % nodes),
            }
            world.run(Duration::from_millis(pause));
        }
        world.boot_the_dead();
        world.run(SECOND * 60);
        world.loss = 0.0;
        world.run(SECOND * 150);
        prop_assert_eq!(world.faults(), Vec::<String>::new());
        let requests = world.requests;
        world.run(SECOND * 600);
        prop_assert_eq!(world.faults(), Vec::<String>::new());
        prop_assert_eq!(world.requests, requests, "nobody dials once all is settled");
    }
}
