//! Ordered start and shutdown: signals, named subsystems, deadlines.
//!
//! A [`Lifecycle`] holds the subsystems of a process in the order in which they
//! are to end; a [`Subsystem`] is one of them, given to whoever spawns its tasks.
//! Read those two first.
//!
//! ```
//! use std::time::Duration;
//! use carrick_lifecycle::{Lifecycle, Signal};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let mut lifecycle = Lifecycle::new(Duration::from_secs(25));
//! // The order of these lines is the order of shutdown.
//! let registration = lifecycle.subsystem("registration", Duration::from_secs(5));
//! let server = lifecycle.subsystem("server", Duration::from_secs(10));
//!
//! registration.at_shutdown("unregister", async { Ok::<_, std::io::Error>(()) });
//! let stop = server.token();
//! server.spawn_fatal("listener", async move {
//!     stop.cancelled().await;
//!     Ok::<_, std::io::Error>(())
//! });
//!
//! let (send, signals) = tokio::sync::mpsc::channel(1);
//! send.send(Signal::Terminate).await.unwrap();
//! let outcome = lifecycle.run(signals).await;
//! assert_eq!(outcome.exit_code(), 0);
//! # }
//! ```
//!
//! Guarantees:
//! - A subsystem is told to stop (its token is cancelled) when all tasks of those
//!   before it have ended or their deadline has passed, not earlier.
//! - A task that is still running at its subsystem's deadline is aborted, so that
//!   it does not use what later subsystems take away, and is named in [`Outcome`].
//! - The whole takes no longer than the ceiling; a second signal ends it at once.
//!
//! Caveats:
//! - A task that blocks its thread cannot be aborted; the process must exit.
//! - What a subsystem spawns after its turn is awaited like the rest only if it
//!   is spawned while another of its tasks still runs.

mod outcome;
mod signal;
mod subsystem;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use self::outcome::{BoxError, Cause, Left, Outcome, Why};
pub use self::signal::{Signal, Signals, UnixSignals};
use self::subsystem::Shared;
pub use self::subsystem::{Subsystem, Trigger};

/// The subsystems of a process, in the order in which they end.
#[derive(Debug)]
pub struct Lifecycle {
    shared: Arc<Shared>,
    subsystems: Vec<Subsystem>,
    ceiling: Duration,
}

impl Lifecycle {
    /// A process without subsystems yet, whose shutdown takes at most `ceiling`.
    /// Under Kubernetes that must be less than the pod's
    /// `terminationGracePeriodSeconds`, or the kubelet kills it half way.
    #[must_use]
    pub fn new(ceiling: Duration) -> Self {
        Self {
            shared: Arc::default(),
            subsystems: Vec::new(),
            ceiling,
        }
    }

    /// Adds a subsystem, which ends after those added before. It has `deadline`
    /// to do so, counted from its turn.
    pub fn subsystem(&mut self, name: &'static str, deadline: Duration) -> Subsystem {
        let subsystem = Subsystem::new(name, deadline, self.shared.clone());
        self.subsystems.push(subsystem.clone());
        subsystem
    }

    /// What starts the shutdown from inside.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        Trigger::new(self.shared.clone())
    }

    /// Waits for a signal, a trigger or the end of a task that must not end, then
    /// shuts down in order.
    pub async fn run(self, mut signals: impl Signals) -> Outcome {
        tokio::select! {
            // A fatal end that is there already is the better explanation.
            biased;
            () = self.shared.stopping() => {}
            signal = signals.next() => self.shared.stop(Cause::Signal(signal)),
        }
        self.drain_in_order(signals).await
    }

    /// Shuts down in order, at once. The cause is [`Cause::Asked`] unless there
    /// is another already.
    pub async fn drain_in_order(self, mut signals: impl Signals) -> Outcome {
        self.shared
            .stop(Cause::Asked("the process is done".to_owned()));
        let aborted = tokio::select! {
            biased;
            signal = signals.next() => Some(signal),
            () = self.drain() => None,
        };
        if let Some(signal) = aborted {
            tracing::warn!(%signal, "second signal, shutdown is cut short");
            self.subsystems.iter().for_each(Subsystem::abandon);
        }
        self.shared.outcome(aborted)
    }

    async fn drain(&self) {
        let end = Instant::now() + self.ceiling;
        for subsystem in &self.subsystems {
            let begin = Instant::now();
            let deadline = end.min(begin + subsystem.deadline());
            subsystem.begin_stop();
            let in_time = timeout_at(deadline, subsystem.ended()).await.is_ok();
            if !in_time {
                subsystem.abandon();
            }
            tracing::info!(
                subsystem = subsystem.name(),
                in_time,
                took = ?begin.elapsed(),
                "subsystem stopped"
            );
        }
    }
}
