//! The order, deadlines and exit codes of shutdown, with paused time.

use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_lifecycle::{Cause, Lifecycle, Outcome, Signal, Subsystem, Why};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn write(&self, line: impl Into<String>) {
        self.0
            .lock()
            .expect("no test panics here")
            .push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no test panics here").clone()
    }
}

/// A task that needs `time` after it was told to stop.
fn spawn_slow(subsystem: &Subsystem, time: Duration, journal: &Journal) {
    let (token, journal, name) = (subsystem.token(), journal.clone(), subsystem.name());
    subsystem.spawn("slow", async move {
        token.cancelled().await;
        journal.write(format!("{name} told"));
        sleep(time).await;
        journal.write(format!("{name} ended"));
    });
}

fn signal_after(delay: Duration) -> mpsc::Receiver<Signal> {
    signals([(delay, Signal::Terminate)])
}

/// Sends each signal at its time from now, then stays silent.
fn signals<const N: usize>(signals: [(Duration, Signal); N]) -> mpsc::Receiver<Signal> {
    let (send, receive) = mpsc::channel(N.max(1));
    let begin = Instant::now();
    tokio::spawn(async move {
        for (at, signal) in signals {
            sleep_until(begin + at).await;
            let _ = send.send(signal).await;
        }
    });
    receive
}

fn left(outcome: &Outcome) -> Vec<(&'static str, &'static str, Why)> {
    outcome
        .left
        .iter()
        .map(|l| (l.subsystem, l.task, l.why))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_subsystem_is_told_when_those_before_it_have_ended() {
    let journal = Journal::default();
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    for name in ["registration", "server", "metrics"] {
        spawn_slow(
            &lifecycle.subsystem(name, 10 * SECOND),
            3 * SECOND,
            &journal,
        );
    }
    let begin = Instant::now();
    let outcome = lifecycle.run(signal_after(5 * SECOND)).await;
    assert_eq!(
        journal.lines(),
        [
            "registration told",
            "registration ended",
            "server told",
            "server ended",
            "metrics told",
            "metrics ended"
        ]
    );
    assert_eq!(begin.elapsed(), (5 + 9) * SECOND);
    assert!(matches!(outcome.cause, Cause::Signal(Signal::Terminate)));
    assert_eq!(outcome.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_before_a_signal_comes() {
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    let subsystem = lifecycle.subsystem("server", SECOND);
    let (token, trigger) = (subsystem.token(), lifecycle.trigger());
    let run = tokio::spawn(lifecycle.run(signal_after(100 * SECOND)));
    sleep(99 * SECOND).await;
    assert!(!token.is_cancelled() && !trigger.stopping().is_cancelled());
    sleep(2 * SECOND).await;
    assert!(token.is_cancelled() && trigger.stopping().is_cancelled());
    assert_eq!(run.await.unwrap().exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_over_its_deadline_is_aborted_and_named_and_the_next_has_its_turn() {
    let journal = Journal::default();
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    spawn_slow(
        &lifecycle.subsystem("connections", 2 * SECOND),
        30 * SECOND,
        &journal,
    );
    spawn_slow(&lifecycle.subsystem("agent", 2 * SECOND), SECOND, &journal);
    let begin = Instant::now();
    let outcome = lifecycle.run(signal_after(Duration::ZERO)).await;
    assert_eq!(begin.elapsed(), 3 * SECOND);
    assert_eq!(left(&outcome), [("connections", "slow", Why::Late)]);
    assert_eq!(outcome.exit_code(), 1);
    sleep(60 * SECOND).await;
    assert_eq!(
        journal.lines(),
        ["connections told", "agent told", "agent ended"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_whole_never_takes_longer_than_the_ceiling() {
    let journal = Journal::default();
    let mut lifecycle = Lifecycle::new(5 * SECOND);
    for name in ["first", "second", "third"] {
        spawn_slow(
            &lifecycle.subsystem(name, 4 * SECOND),
            100 * SECOND,
            &journal,
        );
    }
    let idle = lifecycle.subsystem("idle", SECOND);
    let begin = Instant::now();
    let outcome = lifecycle.run(signal_after(Duration::ZERO)).await;
    assert_eq!(begin.elapsed(), 5 * SECOND);
    assert_eq!(
        left(&outcome),
        [
            ("first", "slow", Why::Late),
            ("second", "slow", Why::Late),
            ("third", "slow", Why::Late)
        ]
    );
    assert!(idle.token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_aborts_at_once() {
    let journal = Journal::default();
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    spawn_slow(
        &lifecycle.subsystem("connections", 30 * SECOND),
        20 * SECOND,
        &journal,
    );
    spawn_slow(
        &lifecycle.subsystem("metrics", 30 * SECOND),
        SECOND,
        &journal,
    );
    let begin = Instant::now();
    let two = signals([(SECOND, Signal::Terminate), (2 * SECOND, Signal::Interrupt)]);
    let outcome = lifecycle.run(two).await;
    assert_eq!(begin.elapsed(), 2 * SECOND);
    assert_eq!(outcome.aborted, Some(Signal::Interrupt));
    assert_eq!(outcome.exit_code(), 130);
    assert_eq!(left(&outcome).len(), 2);
    assert_eq!(journal.lines(), ["connections told"]);
}

#[tokio::test(start_paused = true)]
async fn the_silent_end_of_a_fatal_task_shuts_down_with_its_name() {
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    let server = lifecycle.subsystem("server", SECOND);
    server.spawn_fatal("listener", async {
        sleep(7 * SECOND).await;
        Ok::<_, io::Error>(())
    });
    let begin = Instant::now();
    let outcome = lifecycle.run(signals([])).await;
    assert_eq!(begin.elapsed(), 7 * SECOND);
    assert_eq!(
        outcome.cause.to_string(),
        "server: task listener ended although it must not"
    );
    assert_eq!(outcome.exit_code(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_fatal_task_is_the_source_of_the_cause() {
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    let server = lifecycle.subsystem("server", SECOND);
    server.spawn_fatal("listener", async {
        Err(io::Error::other("no more sockets"))
    });
    let outcome = lifecycle.run(signals([])).await;
    let Cause::Broken(broken) = outcome.cause else {
        panic!("{:?}", outcome.cause)
    };
    assert_eq!(broken.why, Why::Failed);
    assert_eq!(broken.source.unwrap().to_string(), "no more sockets");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_fatal_task_shuts_down() {
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    let server = lifecycle.subsystem("server", SECOND);
    server.spawn_fatal::<_, io::Error>("listener", async { panic!("a bug") });
    let outcome = lifecycle.run(signals([])).await;
    assert_eq!(outcome.cause.to_string(), "server: task listener panicked");
    assert_eq!(outcome.exit_code(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fatal_task_that_breaks_while_others_drain_is_reported_too() {
    let journal = Journal::default();
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    spawn_slow(
        &lifecycle.subsystem("connections", 10 * SECOND),
        5 * SECOND,
        &journal,
    );
    let agent = lifecycle.subsystem("agent", 10 * SECOND);
    agent.spawn_fatal("client", async {
        sleep(2 * SECOND).await;
        Ok::<_, io::Error>(())
    });
    let outcome = lifecycle.run(signal_after(SECOND)).await;
    assert!(matches!(outcome.cause, Cause::Signal(_)));
    assert_eq!(left(&outcome), [("agent", "client", Why::TooEarly)]);
    assert_eq!(outcome.exit_code(), 1);
    assert_eq!(journal.lines(), ["connections told", "connections ended"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_ordinary_task_leaves_the_process_up_but_shows_at_the_end() {
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    let server = lifecycle.subsystem("server", SECOND);
    server.spawn("request", async { panic!("a bug") });
    server.spawn("other", async {});
    let begin = Instant::now();
    let outcome = lifecycle.run(signal_after(10 * SECOND)).await;
    assert_eq!(begin.elapsed(), 10 * SECOND);
    assert_eq!(left(&outcome), [("server", "request", Why::Panicked)]);
}

#[tokio::test(start_paused = true)]
async fn work_for_the_shutdown_runs_in_its_turn_and_its_error_is_left() {
    let journal = Journal::default();
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    spawn_slow(
        &lifecycle.subsystem("readiness", 10 * SECOND),
        SECOND,
        &journal,
    );
    let registration = lifecycle.subsystem("registration", 10 * SECOND);
    let copy = journal.clone();
    registration.at_shutdown("unregister", async move {
        copy.write("unregistered");
        Err(io::Error::other("the registry is away"))
    });
    let outcome = lifecycle.run(signal_after(SECOND)).await;
    assert_eq!(
        journal.lines(),
        ["readiness told", "readiness ended", "unregistered"]
    );
    assert_eq!(
        left(&outcome),
        [("registration", "unregister", Why::Failed)]
    );
    assert_eq!(outcome.exit_code(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_trigger_shuts_down_with_its_first_reason() {
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    let trigger = lifecycle.subsystem("server", SECOND).trigger();
    trigger.shut_down("the demo is over");
    trigger.shut_down("something else");
    let outcome = lifecycle.run(signals([])).await;
    assert_eq!(outcome.cause.to_string(), "the demo is over");
    assert_eq!(outcome.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn draining_without_a_cause_is_a_clean_end() {
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    let token = lifecycle.subsystem("server", SECOND).token();
    let outcome = lifecycle.drain_in_order(signals([])).await;
    assert!(token.is_cancelled());
    assert_eq!(outcome.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_spawned_after_its_turn_began_is_awaited() {
    let journal = Journal::default();
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    let server = lifecycle.subsystem("server", 10 * SECOND);
    let (copy, lines) = (server.clone(), journal.clone());
    server.at_shutdown("hand over", async move {
        copy.spawn("last words", async move {
            sleep(SECOND).await;
            lines.write("said");
        });
        Ok::<_, io::Error>(())
    });
    let outcome = lifecycle.run(signal_after(SECOND)).await;
    assert_eq!(journal.lines(), ["said"]);
    assert_eq!(outcome.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_its_token_is_late() {
    let mut lifecycle = Lifecycle::new(60 * SECOND);
    lifecycle.subsystem("deaf", SECOND).spawn("task", pending());
    let outcome = lifecycle.run(signal_after(SECOND)).await;
    assert_eq!(left(&outcome), [("deaf", "task", Why::Late)]);
    assert_eq!(
        outcome.left[0].to_string(),
        "deaf: task task did not end by its deadline"
    );
}
