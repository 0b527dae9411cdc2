use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
    queue: mpsc::Sender<Bundle>,
    /// What goes along with the next commit.
    staged: Mutex<Bundle>,
    path: PathBuf,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    records: AtomicU64,
}

/// Batches that are written in one transaction, in their order.
type Bundle = Vec<Job>;

#[derive(Debug)]
struct Job {
    batch: Batch,
    done: Done,
}

type Done = oneshot::Sender<Result<(), Error>>;

/// A batch that was staged.
#[derive(Debug)]
pub(crate) struct Ticket(Option<oneshot::Receiver<Result<(), Error>>>);

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
            staged: Mutex::default(),
            path,
            counters,
        })
    }

    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        self.send(Some(Job { batch, done })).await?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// Has `batch` go along with the next commit, or with [`Writer::settle`].
    pub(crate) fn stage(&self, batch: Batch) -> Ticket {
        if batch.is_empty() {
            return Ticket(None);
        }
        let (done, answer) = oneshot::channel();
        self.staged().push(Job { batch, done });
        Ticket(Some(answer))
    }

    /// Waits until what was staged is durable.
    pub(crate) async fn settle(&self, ticket: Ticket) -> Result<(), Error> {
        let Some(mut answer) = ticket.0 else {
            return Ok(());
        };
        if let Ok(outcome) = answer.try_recv() {
            return outcome;
        }
        // Nothing to send where it went along with a commit.
        self.send(None).await?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// Queues what is staged and `job`, in this order.
    async fn send(&self, job: Option<Job>) -> Result<(), Error> {
        let room = self.queue.reserve().await.map_err(|_| self.stopped())?;
        // Under the lock, so that batches get into the queue as they were staged.
        let mut staged = self.staged();
        let mut bundle = std::mem::take(&mut *staged);
        bundle.extend(job);
        if !bundle.is_empty() {
            room.send(bundle);
        }
        Ok(())
    }

    /// A panic under this lock leaves the list whole.
    fn staged(&self) -> std::sync::MutexGuard<'_, Bundle> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> Error {
        Error::Stopped {
            path: self.path.clone(),
        }
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
    fn run(self, mut queue: mpsc::Receiver<Bundle>) {
        let mut bundles = Vec::new();
        while queue.blocking_recv_many(&mut bundles, QUEUE) > 0 {
            let group: Bundle = bundles.drain(..).flatten().collect();
            // The file must be released before anybody hears of the outcome: who
            // then drops the store may open the file again at once.
            let Some(outcome) = self.database.upgrade().map(|d| self.write(&d, &group)) else {
                return;
            };
            self.answer(group, &outcome);
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

    fn answer(&self, group: Bundle, outcome: &Result<(), Arc<redb::Error>>) {
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

/// Writes all `changes`, those of each record in their order, durably, or none.
fn transact<'a>(
    database: &Database,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<(), Arc<redb::Error>> {
    let mut changes: Vec<&Change> = changes.collect();
    // Each table is opened once, and changes of one record keep their order.
    changes.sort_by_key(|change| (change.table, change.key.as_str()));
    let transaction = database.begin_write().map_err(shared)?;
    for of_table in changes.chunk_by(|a, b| a.table == b.table) {
        let definition = Definition::new(of_table[0].table);
        let mut table = transaction.open_table(definition).map_err(shared)?;
        for of_record in of_table.chunk_by(|a, b| a.key == b.key) {
            // What is changed again at once was never there.
            let Some(last) = of_record.last() else {
                continue;
            };
            match &last.value {
                Some(value) => table
                    .insert(last.key.as_str(), value.as_slice())
                    .map_err(shared)?,
                None => table.remove(last.key.as_str()).map_err(shared)?,
            };
        }
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
            queue.try_send(vec![job]).expect("it fits");
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
    fn of_one_record_the_last_change_of_a_transaction_stays() {
        let database = database(Disk::default());
        let change = |key: &str, value: Option<&str>| Change {
            table: "t",
            key: key.to_owned(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        let changes = [
            change("b", Some("1")),
            change("a", Some("1")),
            change("b", None),
            change("a", Some("2")),
            change("c", None),
            change("c", Some("3")),
        ];
        transact(&database, changes.iter()).unwrap();
        let transaction = database.begin_read().unwrap();
        let table = transaction.open_table(Definition::new("t")).unwrap();
        let value = |key| table.get(key).unwrap().map(|value| value.value().to_vec());
        assert_eq!(value("a"), Some(b"2".to_vec()));
        assert_eq!(value("b"), None);
        assert_eq!(value("c"), Some(b"3".to_vec()));
    }

    #[tokio::test]
    async fn what_is_staged_goes_along_with_the_next_commit_and_before_it() {
        let database = database(Disk::default());
        let writer = Writer::start(&database, None).unwrap();
        let batch = |value: &[u8]| {
            let (mut job, _) = job(1);
            job.batch.changes[0].value = Some(value.to_vec());
            job.batch
        };
        let ticket = writer.stage(batch(b"staged"));
        assert_eq!((stored(&database), writer.commits()), (0, 0));
        writer.commit(batch(b"committed")).await.unwrap();
        writer.settle(ticket).await.unwrap();
        assert_eq!((stored(&database), writer.commits()), (1, 1));
        let transaction = database.begin_read().unwrap();
        let table = transaction.open_table(Definition::new("t")).unwrap();
        assert_eq!(table.get("1").unwrap().unwrap().value(), b"committed");
    }

    #[tokio::test]
    async fn what_is_staged_is_written_when_it_is_waited_for() {
        let database = database(Disk::default());
        let writer = Writer::start(&database, None).unwrap();
        let (one, other) = (writer.stage(job(1).0.batch), writer.stage(job(2).0.batch));
        writer.settle(other).await.unwrap();
        writer.settle(one).await.unwrap();
        assert_eq!((stored(&database), writer.commits()), (2, 1));
        writer.settle(writer.stage(Batch::new())).await.unwrap();
        assert_eq!(writer.commits(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_what_is_staged_hears_of_a_broken_disk() {
        let disk = Disk::default();
        let broken = disk.broken.clone();
        let database = database(disk);
        let writer = Writer::start(&database, None).unwrap();
        broken.store(true, Relaxed);
        let ticket = writer.stage(job(1).0.batch);
        let error = writer.settle(ticket).await.unwrap_err();
        assert!(matches!(error, Error::Write { .. }), "{error:?}");
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
        queue.try_send(vec![job]).unwrap();
        work.run(receiver);
        answer.try_recv().expect_err("nobody is left to answer");
        assert!(queue.is_closed());
    }
}
