//! The packet program and its model agree: random packets and random tables go
//! through both, and everything is compared after every packet: the verdict,
//! the frame, and all tables with all counters. Needs root and `CAP_BPF`.
//!
//! `CARRICK_AGREEMENT_PACKETS=5000000` says how many packets; without it as many
//! as take some seconds.

#![allow(
    clippy::unwrap_used,
    reason = "a test says what is wrong by ending there"
)]

mod agreement {
    mod life;
    pub(crate) mod packets;
    pub(crate) mod rig;
    pub(crate) mod state;
}

use std::cell::RefCell;

use agreement::packets::{Following, Fresh, following, fresh};
use agreement::rig::{Links, Pair};
use agreement::state::{
    SERVERS, SERVICES, ServiceState, State, server, service, sizes, state, write_service,
};
use carrick_lb::kernel::Hook;
use carrick_lb::tables::{Server, Table};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The other VIP tables are in force.
    Activate,
    /// Time passes.
    Clock(u32),
    /// A packet out of nothing, on one of two CPUs.
    Fresh(bool, Fresh),
    /// A packet after one that was there before or came out.
    Following(bool, prop::sample::Index, Following),
    /// A server has that many live flows.
    Load(u16, u64),
    /// A server changes.
    Server(usize, Server),
    /// A service changes.
    Service(u16, ServiceState),
    /// An entry of a flow table is being written, or is freed.
    Write(Table, prop::sample::Index, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let table = prop::sample::select(vec![
        Table::Flows4,
        Table::Flows6,
        Table::Nats4,
        Table::Nats6,
    ]);
    prop_oneof![
        1 => Just(Step::Activate),
        4 => prop_oneof![4 => 1..5_u32, 1 => 30..5000_u32].prop_map(Step::Clock),
        40 => (any::<bool>(), fresh()).prop_map(|(cpu, packet)| Step::Fresh(cpu, packet)),
        40 => (any::<bool>(), any::<prop::sample::Index>(), following())
            .prop_map(|(cpu, of, packet)| Step::Following(cpu, of, packet)),
        1 => (1..=SERVERS, 0..9_u64).prop_map(|(server, load)| Step::Load(server, load)),
        2 => (0..usize::from(SERVERS), server()).prop_map(|(at, server)| Step::Server(at, server)),
        1 => (1..=SERVICES, service()).prop_map(|(at, service)| Step::Service(at, service)),
        1 => (table, any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(table, at, free)| Step::Write(table, at, free)),
    ]
}

/// How many packets go through both in each test.
fn packets() -> u32 {
    let asked = std::env::var("CARRICK_AGREEMENT_PACKETS").ok();
    asked.map_or(8_000, |text| {
        text.parse().expect("CARRICK_AGREEMENT_PACKETS is a number")
    })
}

/// Buckets that hardly ever are full.
const ROOMY: u32 = 16;
/// How many of the last frames others follow from.
const RECENT: usize = 6;
/// Steps of a case; most of them are packets.
const STEPS: usize = 60;

/// Runs random cases at a hook with tables of that shape.
fn agree(hook: Hook, slices: u32, buckets: u32) {
    let links = Links::new();
    links.within(|| {
        let Some(pair) = Pair::load(&links, hook, sizes(slices, buckets)) else {
            return;
        };
        let pair = RefCell::new(pair);
        let cases = (state(), proptest::collection::vec(step(), 1..STEPS));
        let config = Config {
            cases: packets() / (u32::try_from(STEPS).unwrap() / 3),
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..Config::default()
        };
        let result = TestRunner::new(config).run(&cases, |(state, steps)| {
            let mut pair = pair.borrow_mut();
            let result = case(&mut pair, &state, &steps);
            pair.note_reasons();
            result.map_err(TestCaseError::fail)
        });
        match result {
            Err(TestError::Fail(reason, (state, steps))) => {
                panic!("program and model disagree: {reason}\nafter {steps:?}\nin {state:?}")
            }
            Err(TestError::Abort(reason)) => panic!("{reason}"),
            Ok(()) => {}
        }
        let pair = pair.into_inner();
        println!(
            "{} packets, {} slices of {buckets} buckets: {:?}",
            pair.packets, slices, pair.reasons
        );
        let never: Vec<_> = pair
            .reasons
            .iter()
            .filter(|(name, count)| **count == 0 && (**name != "full" || buckets < ROOMY))
            .collect();
        assert!(
            pair.packets < 100_000 || never.is_empty(),
            "hardly tested, as these never happened: {never:?}"
        );
    });
}

/// Runs one case from empty tables.
fn case(pair: &mut Pair, state: &State, steps: &[Step]) -> Result<(), String> {
    pair.reset();
    pair.change(|memory| state.write(memory));
    let mut frames = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let (cpu, frame) = match step {
            Step::Fresh(cpu, packet) => (*cpu, packet.frame()),
            Step::Following(cpu, of, packet) => {
                let recent = frames.len().min(RECENT);
                if recent == 0 {
                    continue;
                }
                let earlier: &Vec<u8> = &frames[frames.len() - 1 - of.index(recent)];
                let Some(frame) = packet.frame(earlier) else {
                    continue;
                };
                (*cpu, frame)
            }
            step => {
                change(pair, state, step);
                continue;
            }
        };
        if !pair.takes(&frame) {
            continue;
        }
        let result = pair.treat(cpu, &frame);
        let outcome = result.map_err(|wrong| format!("at step {number}, a packet\n{wrong}"))?;
        // What was translated can be answered; what was wrapped cannot.
        if outcome.frame.len() == frame.len() && outcome.frame[14..] != frame[14..] {
            frames.push(outcome.frame);
        }
        frames.push(frame);
    }
    Ok(())
}

/// A step that is no packet.
fn change(pair: &mut Pair, state: &State, step: &Step) {
    pair.change(|memory| match step {
        Step::Activate => {
            let mut settings = memory.settings();
            settings.active ^= 1;
            memory.set_settings(&settings);
        }
        Step::Clock(ticks) => {
            let mut settings = memory.settings();
            settings.clock = settings.clock.wrapping_add(*ticks);
            memory.set_settings(&settings);
        }
        Step::Load(server, load) => {
            let at = usize::from(*server) * 8;
            memory.bytes_mut(Table::Loads)[at..at + 8].copy_from_slice(&load.to_le_bytes());
        }
        Step::Server(at, server) => state.write_server(memory, *at, server),
        Step::Service(number, new) => {
            let mut new = new.clone();
            new.service.mode = state.services[usize::from(*number) - 1].service.mode;
            write_service(memory, *number, &new);
        }
        Step::Write(table, at, free) => {
            let (entry, meta) = shape(*table);
            let places = memory.bytes(*table).len() / entry;
            let at = at.index(places) * entry + meta;
            let word: u32 = if *free { 0 } else { 3 << 18 | 1 };
            memory.bytes_mut(*table)[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        Step::Fresh(..) | Step::Following(..) => {}
    });
}

/// Bytes of an entry, and where its meta is.
fn shape(table: Table) -> (usize, usize) {
    match table {
        Table::Flows6 => (40, 36),
        Table::Nats4 => (32, 24),
        Table::Nats6 => (80, 72),
        _ => (16, 12),
    }
}

#[test]
fn xdp_agrees_with_the_model_in_roomy_tables() {
    agree(Hook::Xdp, 1, 2 * ROOMY);
}

#[test]
fn xdp_agrees_with_the_model_in_narrow_tables() {
    agree(Hook::Xdp, 2, 1);
}

#[test]
fn tc_agrees_with_the_model_in_roomy_tables() {
    agree(Hook::Tc, 2, ROOMY);
}

#[test]
fn tc_agrees_with_the_model_in_narrow_tables() {
    agree(Hook::Tc, 1, 2);
}
