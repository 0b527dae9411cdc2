//! Many idle connections: what they hold, and what becomes of them when all are refreshed at once.

use std::time::Duration;

use anyhow::{Context, Result};
use carrick_grpc::Channel;
use futures::{StreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};

use super::calls::{Caller, Held, REFRESH, Transport, renewed, request};
use super::figures::{float, percentile, ratio, shown};
use super::server::{Programs, Server, Subject};
use super::{Amount, Tell};
use crate::table::Table;

/// How long an NSM client waits before it tries again (NSM `retry`).
const RETRY: Duration = Duration::from_millis(200);

/// How long it waits for one answer.
const TRY: Duration = Duration::from_secs(15);

/// How long a connection lives on that is not refreshed: it is lost after this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Idle connections of one subject.
pub(crate) struct Idle {
    subject: Subject,
    transport: Transport,
    /// Connections, resident memory in KiB, and what was resident before the first.
    steps: Vec<(usize, f64, f64)>,
    storms: Vec<Storm>,
    /// Why there are no further steps.
    cut: Option<String>,
}

/// All connections were refreshed at once.
pub(crate) struct Storm {
    connections: usize,
    /// Times from the beginning to the answer.
    p50: f64,
    p99: f64,
    last: f64,
    refused: usize,
    lost: usize,
}

/// Opens up to each of `steps` connections, as far as the time for it allows.
pub(crate) async fn measure(
    subject: Subject,
    transport: Transport,
    programs: &Programs,
    steps: &[usize],
    amount: &Amount,
    tell: Tell<'_>,
) -> Result<Idle> {
    let server = Server::start(subject, programs).await?;
    let caller = Caller::new(&server, transport).await?;
    let warm = caller.open(usize::MAX).await?;
    caller.close(warm).await?;
    let empty = server.resident_kib()?;
    let mut idle = Idle {
        subject,
        transport,
        steps: Vec::new(),
        storms: Vec::new(),
        cut: None,
    };
    let (mut held, mut streams) = (Vec::new(), Vec::new());
    let end = Instant::now() + amount.patience;
    for &step in steps {
        tell(&format!(
            "{step} idle connections, {transport:?}: {}",
            subject.name()
        ));
        let begun = held.len();
        let mut opened = stream::iter(begun..step)
            .map(|number| caller.open(number))
            .buffer_unordered(amount.concurrency * 2);
        while let Ok(Some(answer)) = timeout_at(end, opened.next()).await {
            held.push(answer?);
        }
        drop(opened);
        if held.len() < step {
            let seconds = amount.patience.as_secs();
            idle.cut = Some(format!("{} opened within {seconds} s", held.len()));
            break;
        }
        if transport == Transport::Dialled {
            for one in &held[begun..] {
                streams.push(caller.follow(one).await?);
            }
        }
        // What was freed goes back to the system.
        sleep(amount.settle).await;
        idle.steps.push((step, server.resident_kib()?, empty));
        if transport == Transport::Shared && step >= amount.storm {
            tell(&format!(
                "all {step} are refreshed at once: {}",
                subject.name()
            ));
            let (storm, survivors) = storm(&server, held).await?;
            idle.storms.push(storm);
            held = survivors;
        }
    }
    Ok(idle)
}

/// Refreshes all at once; each is tried again as NSM's clients do.
async fn storm(server: &Server, held: Vec<Held>) -> Result<(Storm, Vec<Held>)> {
    let connections = held.len();
    let mut channels = Vec::new();
    for _ in 0..connections.div_ceil(1000) {
        channels.push(server.channel().await?);
    }
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for (number, one) in held.into_iter().enumerate() {
        let channel = channels[number % channels.len()].clone();
        tasks.spawn(persist(channel, one, begin));
    }
    let (mut survivors, mut times, mut refused) = (Vec::new(), Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (one, tries) = done.context("a call panicked")?;
        refused += tries;
        if let Some((one, time)) = one {
            survivors.push(one);
            times.push(time);
        }
    }
    let storm = Storm {
        connections,
        p50: percentile(&mut times, 50),
        p99: percentile(&mut times, 99),
        last: percentile(&mut times, 100),
        refused,
        lost: connections - survivors.len(),
    };
    Ok((storm, survivors))
}

/// What is left of a connection, when it was, and how often it was refused.
async fn persist(
    channel: Channel,
    held: Held,
    begin: Instant,
) -> (Option<(Held, Duration)>, usize) {
    let asked = renewed(held.connection, REFRESH);
    for refused in 0.. {
        let answer = timeout_at(
            Instant::now() + TRY,
            request(channel.clone(), asked.clone()),
        );
        let answer = answer
            .await
            .unwrap_or_else(|_| Err(Status::new(Code::DeadlineExceeded, "")));
        if let Ok(connection) = answer {
            return (Some((Held::shared(connection), begin.elapsed())), refused);
        }
        if begin.elapsed() > PATIENCE {
            return (None, refused + 1);
        }
        sleep(RETRY).await;
    }
    unreachable!("the loop ends by returning")
}

/// What idle connections hold.
pub(crate) fn memory(all: &[Idle]) -> Table {
    let head = ["", "connections", "resident MiB", "KiB each", "Go : this"];
    let mut table = Table::new("Resident memory of idle connections", &head);
    let each = |(count, resident, empty): &(usize, f64, f64)| (resident - empty) / float(*count);
    for idle in all {
        let with = match idle.transport {
            Transport::Dialled => ", each with an HTTP/2 connection and a monitor stream",
            Transport::Shared => "",
        };
        for step in &idle.steps {
            let go = all
                .iter()
                .filter(|other| other.subject == Subject::Go && other.transport == idle.transport)
                .flat_map(|go| &go.steps)
                .find(|other| other.0 == step.0);
            table.rows.push(vec![
                format!("{}{with}", idle.subject.name()),
                step.0.to_string(),
                shown(Some(step.1 / 1024.0)),
                shown(Some(each(step))),
                ratio(go.map(each), Some(each(step))),
            ]);
        }
        if let Some(why) = &idle.cut {
            let row = [format!("{}{with}", idle.subject.name()), why.clone()];
            let blank = std::iter::repeat_n(String::new(), 3);
            table.rows.push(row.into_iter().chain(blank).collect());
        }
    }
    table
}

/// What became of connections that were refreshed at once.
pub(crate) fn storms(all: &[Idle]) -> Table {
    let head = [
        "",
        "connections",
        "p50 s",
        "p99 s",
        "last s",
        "tries refused",
        "lost",
    ];
    let mut table = Table::new("All connections refreshed at once", &head);
    for idle in all {
        for storm in &idle.storms {
            let seconds = |ms: f64| shown(Some(ms / 1000.0));
            table.rows.push(vec![
                idle.subject.name().to_owned(),
                storm.connections.to_string(),
                seconds(storm.p50),
                seconds(storm.p99),
                seconds(storm.last),
                storm.refused.to_string(),
                storm.lost.to_string(),
            ]);
        }
    }
    table
}

/// Whether no connection was lost.
pub(crate) fn is_whole(all: &[Idle]) -> bool {
    all.iter()
        .flat_map(|idle| &idle.storms)
        .all(|storm| storm.lost == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_for_each_connection_and_beside_go() {
        let idle = |subject, resident| Idle {
            subject,
            transport: Transport::Shared,
            steps: vec![(1000, resident, 10_000.0)],
            storms: Vec::new(),
            cut: None,
        };
        let all = [
            idle(Subject::Carrick, 15_000.0),
            idle(Subject::Go, 60_000.0),
        ];
        let rows = memory(&all).rows;
        assert_eq!(rows[0], ["Carrick", "1000", "14.6", "5.00", "10.00"]);
        assert_eq!(rows[1], ["Go", "1000", "58.6", "50.0", "1.00"]);
    }
}
