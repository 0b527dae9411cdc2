//! What a Request costs: connections are opened, refreshed and closed, some at a time.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};

use super::calls::{Caller, REFRESH, Transport};
use super::figures::{float, median, percentile, ratio, shown};
use super::server::{Programs, Server, Subject};
use super::{Amount, Tell};
use crate::table::Table;

/// Connections that only warm a server up have numbers from here on.
const WARM: usize = 1 << 40;

/// What one server did in one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    open: Phase,
    refresh: Phase,
    repeat: Phase,
    close: Phase,
}

/// One kind of call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phase {
    /// Calls per second.
    rate: f64,
    /// The server's processor time in milliseconds for 1,000 calls.
    cpu: f64,
    /// 99 of 100 are answered within so many milliseconds.
    p99: f64,
}

/// All rounds of one subject.
pub(crate) struct Measured {
    subject: Subject,
    rounds: Vec<Round>,
}

/// Measures all of `subjects` in turn, round by round.
pub(crate) async fn measure(
    subjects: &[Subject],
    transport: Transport,
    programs: &Programs,
    amount: &Amount,
    tell: Tell<'_>,
) -> Result<Vec<Measured>> {
    let none = |&subject| Measured {
        subject,
        rounds: Vec::new(),
    };
    let mut all: Vec<Measured> = subjects.iter().map(none).collect();
    for round in 1..=amount.rounds {
        for measured in &mut all {
            let name = measured.subject.name();
            tell(&format!(
                "{transport:?}, round {round} of {}: {name}",
                amount.rounds
            ));
            let server = Server::start(measured.subject, programs).await?;
            measured.rounds.push(one(&server, transport, amount).await?);
        }
    }
    Ok(all)
}

async fn one(server: &Server, transport: Transport, amount: &Amount) -> Result<Round> {
    let caller = Caller::new(server, transport).await?;
    let at_once = amount.concurrency;
    // What the first calls need besides is not the calls' cost.
    for number in WARM..WARM + at_once {
        let held = caller.open(number).await?;
        caller.close(held).await?;
    }
    let numbers = 0..amount.connections;
    let (open, held) = phase(server, at_once, numbers, |number| caller.open(number)).await?;
    let later = |held| caller.refresh(held, REFRESH);
    let (refresh, held) = phase(server, at_once, held, later).await?;
    let (repeat, held) = phase(server, at_once, held, later).await?;
    let (close, _) = phase(server, at_once, held, |held| caller.close(held)).await?;
    Ok(Round {
        open,
        refresh,
        repeat,
        close,
    })
}

async fn phase<I, T, F>(
    server: &Server,
    at_once: usize,
    items: impl IntoIterator<Item = I>,
    call: impl Fn(I) -> F,
) -> Result<(Phase, Vec<T>)>
where
    F: Future<Output = Result<T>>,
{
    let timed = |item| {
        let (begin, call) = (Instant::now(), call(item));
        async move { Ok::<_, anyhow::Error>((call.await?, begin.elapsed())) }
    };
    let (cpu, begin) = (server.cpu()?, Instant::now());
    let calls = stream::iter(items).map(timed).buffer_unordered(at_once);
    let answers: Vec<(T, Duration)> = calls.try_collect().await?;
    let (time, cpu) = (begin.elapsed(), server.cpu()?.saturating_sub(cpu));
    let (answers, mut latencies): (Vec<T>, Vec<Duration>) = answers.into_iter().unzip();
    let count = float(answers.len());
    let phase = Phase {
        rate: count / time.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1000.0 / count * 1000.0,
        p99: percentile(&mut latencies, 99),
    };
    Ok((phase, answers))
}

/// Picks one kind of call.
type Kind = fn(&Round) -> Phase;

/// Picks one figure of it.
type Figure = fn(&Phase) -> f64;

const KINDS: [(&str, Kind); 4] = [
    ("new connection", |round| round.open),
    ("refresh", |round| round.refresh),
    ("refresh, nothing new", |round| round.repeat),
    ("close", |round| round.close),
];

const FIGURES: [(&str, Figure); 3] = [
    ("per second", |phase| phase.rate),
    ("CPU ms per 1,000", |phase| phase.cpu),
    ("p99 ms", |phase| phase.p99),
];

impl Measured {
    /// The median over the rounds.
    fn figure(&self, kind: Kind, figure: Figure) -> Option<f64> {
        median(self.rounds.iter().map(|round| figure(&kind(round))))
    }
}

/// The medians side by side, with ratios to the last but one and the last where these are Go and the echo.
pub(crate) fn table(title: &str, all: &[Measured]) -> Table {
    let of = |subject| all.iter().find(|measured| measured.subject == subject);
    let baselines = [Subject::Go, Subject::Echo].map(|subject| (subject, of(subject)));
    let mut table = Table::new(title, &[""]);
    let names = all
        .iter()
        .map(|measured| measured.subject.name().to_owned());
    table.head.extend(names);
    let ours = Subject::Carrick.name();
    let ratios = baselines
        .iter()
        .map(|(subject, _)| format!("{ours} : {}", subject.name()));
    table.head.extend(ratios);
    for (figure_name, figure) in FIGURES {
        for (kind_name, kind) in KINDS {
            let mut row = vec![format!("{kind_name}, {figure_name}")];
            let figures = all.iter().map(|measured| measured.figure(kind, figure));
            row.extend(figures.map(shown));
            let ours = of(Subject::Carrick).and_then(|ours| ours.figure(kind, figure));
            let theirs = |(_, other): &(Subject, Option<&Measured>)| {
                ratio(ours, other.and_then(|other| other.figure(kind, figure)))
            };
            row.extend(baselines.iter().map(theirs));
            table.rows.push(row);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(subject: Subject, rates: &[f64]) -> Measured {
        let round = |&rate: &f64| Round {
            open: Phase {
                rate,
                ..Phase::default()
            },
            ..Round::default()
        };
        Measured {
            subject,
            rounds: rates.iter().map(round).collect(),
        }
    }

    #[test]
    fn the_table_has_medians_and_their_ratios() {
        let all = [
            measured(Subject::Carrick, &[100.0, 900.0, 300.0]),
            measured(Subject::Echo, &[600.0]),
        ];
        let table = table("t", &all);
        assert_eq!(
            table.head,
            ["", "Carrick", "echo", "Carrick : Go", "Carrick : echo"]
        );
        let expected = ["new connection, per second", "300", "600", "–", "0.50"];
        assert_eq!(table.rows[0], expected);
        assert_eq!(table.rows.len(), 12);
    }
}
