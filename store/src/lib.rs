//! One crash-safe file of typed records, committed in groups.
//!
//! A [`Store`] is one redb file with one writer thread; a [`Table`] is a typed
//! view of the records under one name. Read those two first.
//!
//! Guarantees:
//! - What [`Table::put`], [`Table::remove`] and [`Store::commit`] have returned
//!   `Ok` for is on disk: a killed process or a power cut does not lose it.
//! - A [`Batch`] is written as a whole or not at all, over any number of tables.
//! - Batches of one task are applied in the order in which it awaited them.
//! - What has queued up while a transaction was on its way to the disk becomes
//!   the next transaction, so that a burst costs a few waits for the disk and
//!   not one per record.
//! - What was staged ([`Store::stage`]) goes along with the next commit.
//!
//! Caveats:
//! - A commit whose future was dropped may or may not have been written.
//! - Reads happen on the calling thread and see what has been committed.
//! - After a failed write (a full or broken disk) every further commit fails
//!   until the file is opened again; nothing acknowledged is lost.
//! - Values are JSON of at most [`MAX_VALUE_BYTES`], keys are text of at most
//!   [`MAX_KEY_BYTES`]. [`Table::all`] reads the whole table into memory.
//! - One process at a time: a second opener gets [`Error::Busy`].

mod batch;
mod create;
mod error;
mod metrics;
mod table;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::batch::{Batch, MAX_KEY_BYTES, MAX_VALUE_BYTES};
pub use self::error::Error;
pub use self::table::Table;
use self::writer::{Ticket, Writer};

/// Memory for pages of the file. Leases and connections of one node are a few
/// megabytes; redb's own default of 1 GiB would outgrow a small pod.
const CACHE_BYTES: usize = 32 << 20;

/// One file of records; cheap to clone. The file is released when the last
/// clone, the last table and the last commit under way are gone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Owned here and only borrowed by the writer, so that dropping the last
    /// `Store` releases the file.
    database: Arc<Database>,
    writer: Writer,
    path: Option<PathBuf>,
}

impl Store {
    /// Opens the file at `path`, creating it (mode 0600) and its directories
    /// (mode 0700) when they are missing. A file left by a killed process is
    /// brought back to its last commit.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when another process has it open, [`Error::Damaged`] when
    /// it is not a store or cannot be repaired, [`Error::Create`] and
    /// [`Error::Open`] for what the operating system refuses.
    pub fn open(path: &Path) -> Result<Self, Error> {
        create::ensure(path)?;
        let database = builder().open(path).map_err(|e| Error::opening(path, e))?;
        Self::start(database, Some(path.to_owned()))
    }

    /// A store that lives in memory and ends with its last clone.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] when the writer thread cannot be started.
    pub fn in_memory() -> Result<Self, Error> {
        let database = builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|e| Error::opening(Path::new(error::IN_MEMORY), e))?;
        Self::start(database, None)
    }

    fn start(database: Database, path: Option<PathBuf>) -> Result<Self, Error> {
        let database = Arc::new(database);
        let writer = Writer::start(&database, path.as_deref())?;
        Ok(Self {
            inner: Arc::new(Inner {
                database,
                writer,
                path,
            }),
        })
    }

    /// The records under `name`, which read and write as `V`. Making a table
    /// writes nothing; two tables of one name see the same records.
    #[must_use]
    pub fn table<V>(&self, name: &'static str) -> Table<V>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        Table::new(self.clone(), name)
    }

    /// Writes `batch` as a whole; it is durable when this returns `Ok`. Waits
    /// while the queue of the writer is full.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] when the disk refuses, in which case nothing of the batch
    /// is there; [`Error::Stopped`] when the writer thread is gone.
    pub async fn commit(&self, batch: Batch) -> Result<(), Error> {
        self.inner.writer.commit(batch).await
    }

    /// Has `batch` go along with the next commit, whoever's: so that who writes
    /// in several places waits for the disk once. Batches keep the order in which
    /// they were staged and committed.
    ///
    /// It is durable when [`Staged::written`] returns `Ok`; before that, and where
    /// it is not waited for, it may or may not be.
    pub fn stage(&self, batch: Batch) -> Staged {
        Staged {
            ticket: self.inner.writer.stage(batch),
            store: self.clone(),
        }
    }

    /// Where the file is; `None` for a store in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// How many transactions have been committed since the store was opened.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.inner.writer.commits()
    }

    /// How many records those transactions have put or removed.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.inner.writer.records()
    }

    fn database(&self) -> &Database {
        &self.inner.database
    }
}

/// What was staged by [`Store::stage`].
#[derive(Debug)]
#[must_use = "what was staged may never be written unless it is waited for"]
pub struct Staged {
    store: Store,
    ticket: Ticket,
}

impl Staged {
    /// Waits until it is durable; commits it unless a commit took it along.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`].
    pub async fn written(self) -> Result<(), Error> {
        self.store.inner.writer.settle(self.ticket).await
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}
