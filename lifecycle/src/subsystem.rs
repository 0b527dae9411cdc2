use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{BoxError, Cause, Left, Outcome, Signal, Why};

/// A part of the process with tasks of its own, which end together. Cheap to
/// clone; all clones are the same subsystem.
#[derive(Clone, Debug)]
pub struct Subsystem {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: &'static str,
    deadline: Duration,
    shared: Arc<Shared>,
    token: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<u64, Running>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Running {
    task: &'static str,
    /// Comes a moment after the task itself.
    abort: Option<AbortHandle>,
}

impl Subsystem {
    pub(crate) fn new(name: &'static str, deadline: Duration, shared: Arc<Shared>) -> Self {
        let inner = Inner {
            name,
            deadline,
            shared,
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            next: AtomicU64::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Its name in logs and in [`Outcome`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.inner.name
    }

    /// How long it has to end, from its turn on.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.inner.deadline
    }

    /// Is cancelled when it is this subsystem's turn to end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.inner.token.clone()
    }

    /// What starts the shutdown of the whole process.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        Trigger::new(self.inner.shared.clone())
    }

    /// Runs a task that may end at any time, and has to when the token is
    /// cancelled. A panic is reported in [`Outcome`].
    pub fn spawn<F>(&self, task: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(task, false, async move {
            future.await;
            Ok(())
        });
    }

    /// Runs a task without which the process is broken: when it returns or
    /// panics before its token is cancelled, the process shuts down with
    /// [`Cause::Broken`]. An error it returns later is reported as left.
    pub fn spawn_fatal<F, E>(&self, task: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.start(task, true, async move { future.await.map_err(Into::into) });
    }

    /// Runs `future` when it is this subsystem's turn, beside the ends of its
    /// tasks. An error is reported as left.
    pub fn at_shutdown<F, E>(&self, task: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let token = self.token();
        self.start(task, false, async move {
            token.cancelled().await;
            future.await.map_err(Into::into)
        });
    }

    fn start<F>(&self, task: &'static str, fatal: bool, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let id = self.inner.next.fetch_add(1, Relaxed);
        lock(&self.inner.running).insert(id, Running { task, abort: None });
        let watched = Watched {
            inner: self.inner.clone(),
            id,
            task,
            fatal,
            end: End::Open,
        };
        let abort = self.inner.tracker.spawn(watched.run(future)).abort_handle();
        match lock(&self.inner.running).get_mut(&id) {
            Some(running) => running.abort = Some(abort),
            // It has ended, or was abandoned while it was being spawned.
            None => abort.abort(),
        }
    }

    pub(crate) fn begin_stop(&self) {
        self.inner.token.cancel();
        self.inner.tracker.close();
    }

    pub(crate) async fn ended(&self) {
        self.inner.tracker.wait().await;
    }

    /// Aborts what still runs and writes it down.
    pub(crate) fn abandon(&self) {
        self.begin_stop();
        let running = std::mem::take(&mut *lock(&self.inner.running));
        for Running { task, abort } in running.into_values() {
            self.inner.left(task, Why::Late, None);
            if let Some(abort) = abort {
                abort.abort();
            }
        }
    }
}

impl Inner {
    fn left(&self, task: &'static str, why: Why, source: Option<BoxError>) {
        let left = Left {
            subsystem: self.name,
            task,
            why,
            source,
        };
        self.shared.left(left);
    }
}

enum End {
    /// Dropped before it returned: aborted, or unwinding from a panic.
    Open,
    Returned(Option<BoxError>),
}

/// Sees a task end, in whatever way.
struct Watched {
    inner: Arc<Inner>,
    id: u64,
    task: &'static str,
    fatal: bool,
    end: End,
}

impl Watched {
    async fn run(mut self, future: impl Future<Output = Result<(), BoxError>>) {
        self.end = End::Returned(future.await.err());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Not there any more: it was abandoned and is written down already.
        if lock(&self.inner.running).remove(&self.id).is_none() {
            return;
        }
        let early = self.fatal && !self.inner.token.is_cancelled();
        let (why, source) = match std::mem::replace(&mut self.end, End::Open) {
            End::Returned(Some(error)) => (Why::Failed, Some(error)),
            End::Returned(None) if early => (Why::TooEarly, None),
            End::Open if std::thread::panicking() => (Why::Panicked, None),
            End::Returned(None) | End::Open => return,
        };
        let left = Left {
            subsystem: self.inner.name,
            task: self.task,
            why,
            source,
        };
        if early {
            self.inner.shared.stop(Cause::Broken(left));
        } else {
            self.inner.shared.left(left);
        }
    }
}

/// Starts the shutdown from inside the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trigger {
    shared: Arc<Shared>,
}

impl Trigger {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Shuts the process down. The first reason counts; later ones change
    /// nothing.
    pub fn shut_down(&self, reason: impl fmt::Display) {
        self.shared.stop(Cause::Asked(reason.to_string()));
    }

    /// Is cancelled as soon as shutdown begins, before the first subsystem ends.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stopping.clone()
    }
}

/// What all subsystems of one process know.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stopping: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cause: Option<Cause>,
    left: Vec<Left>,
}

impl Shared {
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Begins the shutdown; of several causes the first counts, but a further
    /// broken task is not forgotten.
    pub(crate) fn stop(&self, cause: Cause) {
        let mut state = lock(&self.state);
        match (&state.cause, cause) {
            (None, cause) => state.cause = Some(cause),
            (Some(_), Cause::Broken(left)) => state.left.push(left),
            (Some(_), Cause::Asked(_) | Cause::Signal(_)) => {}
        }
        drop(state);
        self.stopping.cancel();
    }

    fn left(&self, left: Left) {
        lock(&self.state).left.push(left);
    }

    pub(crate) fn outcome(&self, aborted: Option<Signal>) -> Outcome {
        let state = std::mem::take(&mut *lock(&self.state));
        let cause = state.cause.expect("draining sets a cause first");
        Outcome {
            cause,
            aborted,
            left: state.left,
        }
    }
}

/// Nothing that panics is done under these locks, so a poisoned one is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
