use std::error::Error;
use std::fmt;

use crate::Signal;

/// An error of a task, whatever its type.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why the process shut down.
#[derive(Debug)]
pub enum Cause {
    /// A [`Trigger`](crate::Trigger) was pulled, for this reason.
    Asked(String),
    /// A task without which the process is broken ended or failed.
    Broken(Left),
    /// A signal came.
    Signal(Signal),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(reason) => f.write_str(reason),
            Self::Broken(task) => task.fmt(f),
            Self::Signal(signal) => signal.fmt(f),
        }
    }
}

/// How a task ended which did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It returned an error; `source()` of [`Left`] has it.
    Failed,
    /// It was still running at its deadline, or when shutdown was cut short, and
    /// was aborted.
    Late,
    /// It panicked.
    Panicked,
    /// It returned before it was told to, but must not.
    TooEarly,
}

/// A task that did not end well, so that something of it may be left behind.
#[derive(Debug, thiserror::Error)]
#[error("{subsystem}: task {task} {}", explain(*why))]
pub struct Left {
    /// The subsystem it belongs to.
    pub subsystem: &'static str,
    /// Its name.
    pub task: &'static str,
    /// What happened.
    pub why: Why,
    /// What it returned, if it failed.
    #[source]
    pub source: Option<BoxError>,
}

fn explain(why: Why) -> &'static str {
    match why {
        Why::Failed => "failed",
        Why::Late => "did not end by its deadline",
        Why::Panicked => "panicked",
        Why::TooEarly => "ended although it must not",
    }
}

/// How the shutdown went.
#[derive(Debug)]
pub struct Outcome {
    /// Why it began.
    pub cause: Cause,
    /// The signal that cut it short.
    pub aborted: Option<Signal>,
    /// What did not end well.
    pub left: Vec<Left>,
}

impl Outcome {
    /// What the process should exit with: 0 when all was asked for and has ended
    /// well, 128 and the signal's number (130, 143) when a second signal cut it
    /// short, 1 when something is left or a task broke the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.aborted {
            Some(signal) => 128 + signal.number(),
            None if self.left.is_empty() && !matches!(self.cause, Cause::Broken(_)) => 0,
            None => 1,
        }
    }
}
