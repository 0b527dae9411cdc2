//! What happens to flows that live while servers come and go.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carrick_traffic::watch::Gauge;
use carrick_traffic::{Watch, WatchReport};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::netns::within;
use super::ours::{Config, Ours, Plane};
use super::world::{BALANCER, CLIENT, World, sources, target};
use super::{Options, Tell};

/// Each flow is asked once in this time, and if there is little time.
const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(250)];
/// Longest wait until all flows are open.
const OPENING: Duration = Duration::from_secs(60);

/// What became of the flows of one balancer.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    /// What balanced.
    pub balancer: String,
    /// Flows that were open.
    pub flows: u64,
    /// Changes of servers meanwhile.
    pub changes: usize,
    /// Flows with servers that were removed; they may break.
    pub removed: u64,
    /// Flows with all others that were reset, closed, moved or silent at the end: none should be.
    pub broken: u64,
    /// Flows that never opened.
    pub failed: u64,
    /// Stalls that ended with an answer.
    pub resumed: u64,
    /// The longest time without an answer, in milliseconds.
    pub longest_stall_ms: u64,
}

pub(super) fn measure(options: &Options, world: &World, tell: &mut Tell) -> Result<Vec<Live>> {
    let mut rows = Vec::new();
    for plane in [Plane::Xdp, Plane::Tc, Plane::Nftables] {
        tell(&format!("live: {}", plane.name()));
        let config = config(plane, world.servers().map(|address| (address, 1)).collect());
        match Ours::start(&options.carrick, BALANCER, &config) {
            Ok(ours) => rows.push(one(options, ours, &config, tell)?),
            Err(error) => tell(&format!("  left out: {error:#}")),
        }
    }
    Ok(rows)
}

fn config(plane: Plane, servers: Vec<(Ipv4Addr, u16)>) -> Config {
    Config {
        plane,
        policy: "weighted-round-robin",
        mode: "nat",
        more: String::new(),
        servers,
    }
}

/// Changes that follow each other: what the list of servers is after each.
fn changes(all: &[(Ipv4Addr, u16)]) -> Vec<(&'static str, Vec<(Ipv4Addr, u16)>)> {
    let (first, rest) = (all[..1].to_vec(), all[1..].to_vec());
    let added = (Ipv4Addr::new(10, 1, 250, 1), 1);
    let with_new: Vec<_> = rest.iter().copied().chain([added]).collect();
    let drained: Vec<_> = with_new
        .iter()
        .enumerate()
        .map(|(n, (at, _))| (*at, u16::from(n % 10 != 0)))
        .collect();
    let weighted = with_new
        .iter()
        .enumerate()
        .map(|(n, (at, _))| (*at, if n % 2 == 0 { 3 } else { 1 }));
    let whole = first.into_iter().chain(rest.iter().copied()).collect();
    vec![
        ("a server is removed", rest.clone()),
        ("another is added", with_new.clone()),
        ("every tenth is drained", drained),
        (
            "every other gets three times the weight",
            weighted.collect(),
        ),
        ("as in the beginning", whole),
    ]
}

fn one(options: &Options, mut ours: Ours, config: &Config, tell: &mut Tell) -> Result<Live> {
    let interval = INTERVALS[usize::from(options.quick)];
    let flows = if options.quick {
        500
    } else {
        options.connections
    };
    let watch = Watch {
        flows,
        interval,
        stall: interval,
        concurrency: 128,
        sources: Some(sources()),
        seed: fastrand::u64(..),
        ..Watch::new(target())
    };
    let (gauge, stop) = (Arc::<Gauge>::default(), CancellationToken::new());
    let watching = std::thread::spawn({
        let (gauge, stop) = (gauge.clone(), stop.clone());
        move || watch_flows(&watch, gauge, stop)
    });
    let done = change(&mut ours, config, &gauge, (flows, interval), tell);
    stop.cancel();
    let report = watching
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let changes = done?;
    ours.tell_reasons(tell)?;
    let removed = config
        .servers
        .first()
        .map(|(address, _)| address.to_string())
        .unwrap_or_default();
    Ok(Live::of(config.plane.name(), &report, changes, &removed))
}

fn watch_flows(watch: &Watch, gauge: Arc<Gauge>, stop: CancellationToken) -> Result<WatchReport> {
    within(CLIENT, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = watch.run(gauge, stop, |_| ());
        runtime.block_on(run).context("the flows could not begin")
    })
}

/// Waits until all flows are open and changes servers under them; how often.
fn change(
    ours: &mut Ours,
    config: &Config,
    gauge: &Gauge,
    (flows, interval): (u64, Duration),
    tell: &mut Tell,
) -> Result<usize> {
    let begin = std::time::Instant::now();
    while !gauge.all_tried(flows) {
        if begin.elapsed() > OPENING {
            bail!(
                "only {} of {flows} flows opened in {OPENING:?}",
                gauge.seen().opened
            );
        }
        super::rest(Duration::from_millis(50));
    }
    let changes = changes(&config.servers);
    for (what, servers) in &changes {
        tell(&format!("  {what}"));
        ours.change(&Config {
            servers: servers.clone(),
            ..config.clone()
        })?;
        // Every flow is asked at least once after each change.
        super::rest(interval + interval / 2);
    }
    // What is silent by then is broken.
    super::rest(2 * interval);
    Ok(changes.len())
}

impl Live {
    fn of(balancer: &str, report: &WatchReport, changes: usize, removed: &str) -> Self {
        let lost = |is_removed: bool| -> u64 {
            let hosts = report
                .hosts
                .iter()
                .filter(|(host, _)| (*host == removed) == is_removed);
            hosts.map(|(_, held)| held.lost).sum()
        };
        let of_removed = report
            .hosts
            .get(removed)
            .map_or(0, |held| held.lost + held.lasting);
        Self {
            balancer: balancer.to_owned(),
            flows: report.flows - report.failed,
            changes,
            removed: of_removed,
            broken: lost(false),
            failed: report.failed,
            resumed: report.resumed,
            longest_stall_ms: u64::try_from(report.longest_stall.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
