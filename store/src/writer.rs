use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread;

use redb::Database;
use tokio::sync::{mpsc, oneshot};

use crate::batch::{Batch, Change};
use crate::table::Definition;
use crate::{Error, error};

/// How many batches may wait. A caller beyond that waits in `commit`.
const QUEUE: usize = 1024;

/// The sending end of the writer thread.
///
/// A thread and not a task: the commit waits for the disk, and must not end with
/// a runtime that is shut down while records are queued.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
    path: PathBuf,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    records: AtomicU64,
}

#[derive(Debug)]
struct Job {
    batch: Batch,
    done: oneshot::Sender<Result<(), Error>>,
}

impl Writer {
    /// Starts the thread. It ends when the returned value and all waiting commits
    /// are gone, or when `database` is.
    pub(crate) fn start(database: &Arc<Database>, path: Option<&Path>) -> Result<Self, Error> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let path = error::shown(path);
        let counters = Arc::<Counters>::default();
        let work = Work {
            database: Arc::downgrade(database),
            path: path.clone(),
            counters: counters.clone(),
        };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || work.run(jobs))
            .map_err(|source| Error::Thread {
                path: path.clone(),
                source,
            })?;
        Ok(Self {
            queue,
            path,
            counters,
        })
    }

    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let stopped = || Error::Stopped {
            path: self.path.clone(),
        };
        self.queue
            .send(Job { batch, done })
            .await
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    pub(crate) fn commits(&self) -> u64 {
        self.counters.commits.load(Relaxed)
    }

    pub(crate) fn records(&self) -> u64 {
        self.counters.records.load(Relaxed)
    }
}

struct Work {
    database: Weak<Database>,
    path: PathBuf,
    counters: Arc<Counters>,
}

impl Work {
    fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(QUEUE);
        while jobs.blocking_recv_many(&mut group, QUEUE) > 0 {
            // The file must be released before anybody hears of the outcome: who
            // then drops the store may open the file again at once.
            let Some(outcome) = self.database.upgrade().map(|d| self.write(&d, &group)) else {
                return;
            };
            self.answer(group.drain(..), &outcome);
        }
    }

    fn write(&self, database: &Database, group: &[Job]) -> Result<(), Arc<redb::Error>> {
        let changes = || group.iter().flat_map(|job| &job.batch.changes);
        let records = changes().count();
        transact(database, changes())?;
        self.counters.commits.fetch_add(1, Relaxed);
        self.counters.records.fetch_add(records as u64, Relaxed);

        Ok(())
    }

    fn answer(&self, group: impl Iterator<Item = Job>, outcome: &Result<(), Arc<redb::Error>>) {
        for job in group {
            let outcome = outcome.clone().map_err(|source| Error::Write {
                path: self.path.clone(),
                source,
            });
            // Whoever dropped the future does not want to know.
            let _ = job.done.send(outcome);
        }
    }
}

/// Writes all `changes` in their order, durably, or none.
fn transact<'a>(
    database: &Database,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<(), Arc<redb::Error>> {
    let transaction = database.begin_write().map_err(shared)?;
    for change in changes {
        let mut table = transaction
            .open_table(Definition::new(change.table))
            .map_err(shared)?;
        match &change.value {
            Some(value) => table
                .insert(change.key.as_str(), value.as_slice())
                .map_err(shared)?,
            None => table.remove(change.key.as_str()).map_err(shared)?,
        };
    }
    transaction.commit().map_err(shared)
}

fn shared(error: impl Into<redb::Error>) -> Arc<redb::Error> {
    Arc::new(error.into())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicBool;

    use redb::backends::InMemoryBackend;
    use redb::{ReadableDatabase, ReadableTableMetadata, StorageBackend};

    use super::*;

    type Answer = oneshot::Receiver<Result<(), Error>>;

    /// A disk that can be told to break.
    #[derive(Debug, Default)]
    struct Disk {
        memory: InMemoryBackend,
        broken: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> Result<(), io::Error> {
            if self.broken.load(Relaxed) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            Ok(())
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> Result<u64, io::Error> {
            self.memory.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
            self.memory.read(offset, out)
        }
        fn set_len(&self, len: u64) -> Result<(), io::Error> {
            self.check()?;
            self.memory.set_len(len)
        }
        fn sync_data(&self) -> Result<(), io::Error> {
            self.check()?;
            self.memory.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
            self.check()?;
            self.memory.write(offset, data)
        }
    }

    fn database(disk: Disk) -> Arc<Database> {
        Arc::new(
            crate::builder()
                .create_with_backend(disk)
                .expect("memory takes it"),
        )
    }

    fn work(database: &Arc<Database>) -> Work {
        let (database, path) = (Arc::downgrade(database), PathBuf::from("store.redb"));
        Work {
            database,
            path,
            counters: Arc::default(),
        }
    }

    fn job(n: usize) -> (Job, Answer) {
        let (done, answer) = oneshot::channel();
        let change = Change {
            table: "t",
            key: n.to_string(),
            value: Some(b"1".to_vec()),
        };
        (
            Job {
                batch: Batch {
                    changes: vec![change],
                },
                done,
            },
            answer,
        )
    }

    /// Queues `count` records and lets the writer find them all there.
    fn run(database: &Arc<Database>, count: usize) -> (Arc<Counters>, Vec<Answer>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (jobs, answers): (Vec<_>, Vec<_>) = (0..count).map(job).unzip();
        for job in jobs {
            queue.try_send(job).expect("it fits");
        }
        drop(queue);
        let work = work(database);
        let counters = work.counters.clone();
        work.run(receiver);
        (counters, answers)
    }

    fn stored(database: &Database) -> u64 {
        let transaction = database.begin_read().unwrap();
        transaction
            .open_table(Definition::new("t"))
            .map_or(0, |t| t.len().unwrap())
    }

    #[test]
    fn all_that_is_queued_is_one_commit() {
        let database = database(Disk::default());
        let (counters, answers) = run(&database, 1000);
        assert_eq!(counters.commits.load(Relaxed), 1);
        assert_eq!(counters.records.load(Relaxed), 1000);
        assert_eq!(stored(&database), 1000);
        for mut answer in answers {
            answer
                .try_recv()
                .expect("each is answered")
                .expect("each is written");
        }
    }

    #[test]
    fn all_hear_of_a_broken_disk_and_nothing_is_counted() {
        let disk = Disk::default();
        let broken = disk.broken.clone();
        let database = database(disk);
        broken.store(true, Relaxed);
        let (counters, answers) = run(&database, 10);
        for mut answer in answers {
            let error = answer.try_recv().expect("each is answered").unwrap_err();
            assert!(matches!(error, Error::Write { .. }), "{error:?}");
        }
        assert_eq!(counters.commits.load(Relaxed), 0);
        assert_eq!(counters.records.load(Relaxed), 0);
    }

    #[test]
    fn a_commit_whose_future_is_gone_is_written_all_the_same() {
        let database = database(Disk::default());
        let (_, answers) = run(&database, 1);
        drop(answers);
        assert_eq!(stored(&database), 1);
    }

    #[test]
    fn a_writer_without_a_database_answers_that_it_stopped() {
        let database = database(Disk::default());
        let work = work(&database);
        drop(database);
        let (queue, receiver) = mpsc::channel(1);
        let (job, mut answer) = job(1);
        queue.try_send(job).unwrap();
        work.run(receiver);
        answer.try_recv().expect_err("nobody is left to answer");
        assert!(queue.is_closed());
    }
}
