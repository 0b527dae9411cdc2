use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use carrick_types::Connection;

use crate::{BoxError, Element, Error, Kind, Next};

/// What recording elements have done, in order; a clone is the same log.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Appends a line.
    pub fn add(&self, line: impl Into<String>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.into());
    }

    /// The lines so far; the log is empty afterwards.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Writes `+label` at a first Request, `=label` at a refresh and `-label` at
/// its Close.
#[derive(Clone, Debug)]
pub struct Record {
    log: Log,
    label: String,
}

impl Record {
    /// Records to `log` under `label`.
    pub fn new(log: &Log, label: impl Into<String>) -> Self {
        Self {
            log: log.clone(),
            label: label.into(),
        }
    }
}

impl Element for Record {
    const NAME: &'static str = "record";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        let sign = if state.replace(()).is_some() {
            '='
        } else {
            '+'
        };
        self.log.add(format!("{sign}{}", self.label));
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        self.log.add(format!("-{}", self.label));
        Ok(())
    }
}

/// Counts the Requests and the Closes that reach it; a clone is the same count.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<(AtomicUsize, AtomicUsize)>);

impl Count {
    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Closes so far.
    #[must_use]
    pub fn closes(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Element for Count {
    const NAME: &'static str = "count";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        *state = Some(());
        self.0.0.fetch_add(1, Ordering::SeqCst);
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        self.0.1.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Looks at each Request and may change it or refuse it.
pub struct Check(Box<Look>);

type Look = dyn Fn(&mut Connection) -> Result<(), BoxError> + Send + Sync;

impl Check {
    /// Looks with `look`, whose error is the Request's.
    pub fn new(
        look: impl Fn(&mut Connection) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(look))
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Check").finish_non_exhaustive()
    }
}

impl Element for Check {
    const NAME: &'static str = "check";
    type State = ();

    async fn request(
        &self,
        mut connection: Connection,
        _: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        (self.0)(&mut connection)
            .map_err(|error| Error::request(Self::NAME, &connection, Kind::Invalid, error))?;
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}
