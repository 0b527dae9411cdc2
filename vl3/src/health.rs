//! Whether the data paths of links work: probes, and when to send them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carrick_agent::{Agent, Netns};
use carrick_types::{ConnectionId, IpFamily};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::Vl3;
use crate::handle::now;
use crate::peers::Event;

/// When links are probed and what the answers mean; no I/O, no clock.
///
/// Each link is probed every [`Probing::interval`], less often where that
/// would be more than [`Schedule::RATE`] probes a second in all. After a lost
/// probe the next one follows at once, and three in a row mean that the data
/// path is dead: with the usual times within 1.5 s for up to 15 links,
/// within 2 s for up to 40; a link that never worked is dead an interval later.
#[derive(Debug, Default)]
pub struct Schedule {
    probing: Probing,
    links: BTreeMap<ConnectionId, Probed>,
}

/// The times of probes.
#[derive(Clone, Copy, Debug)]
pub struct Probing {
    /// Between two probes of a link (default 300 ms).
    pub interval: Duration,
    /// Longest wait for an answer (default 400 ms).
    pub timeout: Duration,
}

impl Default for Probing {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(300),
            timeout: Duration::from_millis(400),
        }
    }
}

#[derive(Debug)]
struct Probed {
    target: IpAddr,
    /// When the next probe is due; `None` while one is under way.
    due: Option<Instant>,
    lost: u32,
    dead: bool,
}

/// What a probe's answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The data path works again.
    Alive,
    /// The data path is dead.
    Dead,
    /// Nothing.
    None,
}

impl Schedule {
    /// Probes in a row that must be lost for a data path to be dead.
    pub const LOST: u32 = 3;
    /// Most probes in a second over all links.
    pub const RATE: u32 = 50;

    /// No links yet; they will be probed at these times.
    #[must_use]
    pub fn new(probing: Probing) -> Self {
        Self {
            probing,
            links: BTreeMap::new(),
        }
    }

    /// Sets which links there are and whom to probe; new ones, whose neighbour
    /// has just been resolved, are spread over the interval after the next.
    pub fn set_links(
        &mut self,
        links: impl IntoIterator<Item = (ConnectionId, IpAddr)>,
        now: Instant,
    ) {
        let mut old = std::mem::take(&mut self.links);
        let links: Vec<_> = links.into_iter().collect();
        let interval = self.interval_of(links.len());
        for (place, (connection, target)) in (0u32..).zip(links) {
            let known = old
                .remove(&connection)
                .filter(|probed| probed.target == target);
            let spread = interval + interval / 16 * (place % 16);
            let fresh = || Probed {
                target,
                due: Some(now + spread),
                lost: 0,
                dead: false,
            };
            self.links.insert(connection, known.unwrap_or_else(fresh));
        }
    }

    /// The probes that are due, which then count as sent.
    pub fn due(&mut self, now: Instant) -> Vec<(ConnectionId, IpAddr)> {
        let due = self
            .links
            .iter_mut()
            .filter(|(_, probed)| probed.due.is_some_and(|at| at <= now));
        due.map(|(connection, probed)| {
            probed.due = None;
            (connection.clone(), probed.target)
        })
        .collect()
    }

    /// When the next probe is due; `None` while all wait for answers.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.links.values().filter_map(|probed| probed.due).min()
    }

    /// A probe was answered, or was not.
    pub fn probed(&mut self, connection: &ConnectionId, answered: bool, now: Instant) -> Change {
        let interval = self.interval();
        let Some(probed) = self.links.get_mut(connection) else {
            return Change::None;
        };
        probed.lost = if answered {
            0
        } else {
            probed.lost.saturating_add(1)
        };
        let confirming = !answered && !probed.dead && probed.lost < Self::LOST;
        probed.due = Some(if confirming { now } else { now + interval });
        let dead = if answered {
            false
        } else {
            probed.dead || probed.lost >= Self::LOST
        };
        match (std::mem::replace(&mut probed.dead, dead), dead) {
            (false, true) => Change::Dead,
            (true, false) => Change::Alive,
            _ => Change::None,
        }
    }

    /// A probe could not be sent, which says nothing about the link.
    pub fn unsent(&mut self, connection: &ConnectionId, now: Instant) {
        let interval = self.interval();
        if let Some(probed) = self.links.get_mut(connection) {
            probed.due = Some(now + interval);
        }
    }

    /// Time between two probes of one link, given how many links there are.
    fn interval(&self) -> Duration {
        self.interval_of(self.links.len())
    }

    fn interval_of(&self, links: usize) -> Duration {
        let links = u32::try_from(links).unwrap_or(u32::MAX);
        self.probing
            .interval
            .max(Duration::from_secs(links.into()) / Self::RATE)
    }
}

/// Changes come in crowds, and to look at all links for each is much work.
const SETTLE: Duration = Duration::from_millis(50);

/// Probes the links of a network in the namespace `netns` until `stop`.
///
/// A probe that the agent cannot send says nothing about the link.
pub async fn run(
    vl3: Vl3,
    agent: Arc<dyn Agent>,
    netns: Netns,
    probing: Probing,
    stop: CancellationToken,
) {
    let (mut changes, mut look) = (vl3.changes(), Some(now()));
    let (mut schedule, mut probes) = (Schedule::new(probing), JoinSet::new());
    loop {
        if look.take_if(|at| *at <= now()).is_some() {
            schedule.set_links(targets(&vl3), now());
        }
        for (connection, target) in schedule.due(now()) {
            match source_for(&vl3, target) {
                Some(source) => {
                    let probe = probe(
                        Arc::clone(&agent),
                        netns.clone(),
                        source,
                        target,
                        probing.timeout,
                        connection,
                    );
                    probes.spawn(probe);
                }
                None => schedule.unsent(&connection, now()),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed(), if look.is_none() => look = Some(now() + SETTLE),
            () = until(schedule.next().into_iter().chain(look).min()) => {}
            Some(Ok((connection, outcome))) = probes.join_next() => {
                report(&vl3, &mut schedule, connection, &outcome);
            }
        }
    }
}

/// What became of a probe.
enum Outcome {
    Answered(Duration),
    Lost,
    Unsent,
}

async fn probe(
    agent: Arc<dyn Agent>,
    netns: Netns,
    source: IpAddr,
    target: IpAddr,
    timeout: Duration,
    connection: ConnectionId,
) -> (ConnectionId, Outcome) {
    let outcome = match agent.ping(&netns, source, target, timeout).await {
        Ok(Some(rtt)) => Outcome::Answered(rtt),
        Ok(None) => Outcome::Lost,
        Err(error) => {
            tracing::debug!(%connection, %error, "probe not sent");
            Outcome::Unsent
        }
    };
    (connection, outcome)
}

fn report(vl3: &Vl3, schedule: &mut Schedule, connection: ConnectionId, outcome: &Outcome) {
    let rtt = match outcome {
        Outcome::Answered(rtt) => Some(*rtt),
        Outcome::Lost => None,
        Outcome::Unsent => return schedule.unsent(&connection, now()),
    };
    let change = schedule.probed(&connection, rtt.is_some(), now());
    match change {
        Change::Dead => {
            tracing::warn!(connection.id = %connection, "data path of a peer link is dead");
        }
        Change::Alive => {
            tracing::info!(connection.id = %connection, "data path of a peer link works again");
        }
        Change::None => return vl3.measured(&connection, rtt),
    }
    vl3.handle(Event::Health {
        connection,
        alive: change == Change::Alive,
        rtt,
    });
}

fn targets(vl3: &Vl3) -> Vec<(ConnectionId, IpAddr)> {
    let links = vl3.links().into_iter();
    links
        .filter_map(|(_, link, _)| Some((link.connection, *link.addresses.first()?)))
        .collect()
}

fn source_for(vl3: &Vl3, target: IpAddr) -> Option<IpAddr> {
    let family = IpFamily::of(target);
    vl3.addresses()
        .into_iter()
        .find(|address| IpFamily::of(*address) == family)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u32) -> (ConnectionId, IpAddr) {
        let id = ConnectionId::new(format!("c{number}")).unwrap();
        (id, std::net::Ipv4Addr::from(0x0a00_0000 + number).into())
    }

    /// Runs for `time`, every probe answered after `rtt` or lost; when links
    /// were found dead, and how many probes were sent.
    fn run(links: u32, lost: bool, time: Duration) -> (Vec<Duration>, u32) {
        let (mut now, mut schedule) = (Instant::now(), Schedule::default());
        let (start, mut sent, mut dead) = (now, 0, Vec::new());
        schedule.set_links((0..links).map(link), now);
        let mut under_way: Vec<(Instant, ConnectionId)> = Vec::new();
        let takes = if lost {
            Probing::default().timeout
        } else {
            Duration::from_millis(1)
        };
        while now - start < time {
            for (connection, _) in schedule.due(now) {
                sent += 1;
                under_way.push((now + takes, connection));
            }
            let (done, rest): (Vec<_>, _) = under_way.into_iter().partition(|(at, _)| *at <= now);
            under_way = rest;
            for (_, connection) in done {
                if schedule.probed(&connection, !lost, now) == Change::Dead {
                    dead.push(now - start);
                }
            }
            now += Duration::from_millis(1);
        }
        (dead, sent)
    }

    #[test]
    fn three_lost_probes_are_a_dead_path_within_two_seconds() {
        let (dead, _) = run(15, true, Duration::from_secs(2));
        assert_eq!(dead.len(), 15);
        assert!(
            dead.iter()
                .all(|after| *after <= Duration::from_millis(1810))
        );
        assert!(
            dead.iter()
                .all(|after| *after >= Probing::default().timeout * 3)
        );
    }

    #[test]
    fn many_links_are_probed_less_often() {
        let (_, sent) = run(500, false, Duration::from_secs(30));
        assert!(sent <= 30 * Schedule::RATE + 500, "{sent}");
        assert!(sent >= 20 * Schedule::RATE, "{sent}");
    }

    #[test]
    fn one_lost_probe_changes_nothing() {
        let (now, mut schedule) = (Instant::now(), Schedule::default());
        let (connection, target) = link(1);
        schedule.set_links([(connection.clone(), target)], now);
        let answers = [false, false, true, false, false, true];
        assert!(
            answers
                .iter()
                .all(|answer| schedule.probed(&connection, *answer, now) == Change::None)
        );
    }

    #[test]
    fn one_answer_brings_a_dead_path_back() {
        let (now, mut schedule) = (Instant::now(), Schedule::default());
        let (connection, target) = link(1);
        schedule.set_links([(connection.clone(), target)], now);
        let lost: Vec<_> = (0..4)
            .map(|_| schedule.probed(&connection, false, now))
            .collect();
        assert_eq!(
            lost,
            [Change::None, Change::None, Change::Dead, Change::None]
        );
        assert_eq!(schedule.probed(&connection, true, now), Change::Alive);
    }

    #[test]
    fn a_link_that_stays_keeps_what_is_known_of_it() {
        let (now, mut schedule) = (Instant::now(), Schedule::default());
        let (connection, target) = link(1);
        schedule.set_links([(connection.clone(), target)], now);
        schedule.probed(&connection, false, now);
        schedule.probed(&connection, false, now);
        schedule.set_links([link(0), (connection.clone(), target)], now);
        assert_eq!(schedule.probed(&connection, false, now), Change::Dead);
    }
}
