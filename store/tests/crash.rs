//! A process is killed while it writes; what it was told is durable must be.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use carrick_store::{Batch, Store, Table};

/// Set in the child: where its store is.
const STORE: &str = "CARRICK_STORE_CRASH_TEST";

/// Set in the child: which number its records begin with.
const FIRST: &str = "CARRICK_STORE_CRASH_TEST_FIRST";

const ROUNDS: u64 = 5;
const RECORDS_PER_ROUND: u64 = 1_000_000;

/// Not a test of its own: what the killed process does. Without the variable
/// it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(path) = std::env::var(STORE) else {
        return;
    };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = Store::open(Path::new(&path)).unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        writers.spawn(write(store.clone(), first + writer));
    }
    writers.join_all().await;
}

async fn write(store: Store, first: u64) {
    let (left, right): (Table<u64>, Table<u64>) = (store.table("left"), store.table("right"));
    for n in (first..first + RECORDS_PER_ROUND).step_by(8) {
        let key = n.to_string();
        let batch = Batch::new()
            .put(&left, &key, &n)
            .and_then(|b| b.put(&right, &key, &n));
        store
            .commit(batch.expect("a number has JSON"))
            .await
            .expect("the disk takes writes");
        // One write, so that a line is there whole or not at all.
        println!("durable {n}.");
    }
}

fn start(path: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().expect("a test has a file"))
        .args(["--exact", "child", "--nocapture"])
        .env(STORE, path)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test can start itself")
}

/// Kills `child` after `count` acknowledgements; all that it was given.
fn acknowledged_until_killed(mut child: Child, count: usize) -> Vec<u64> {
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut numbers = Vec::new();
    for line in lines.map_while(Result::ok) {
        let number = line
            .strip_prefix("durable ")
            .and_then(|l| l.strip_suffix('.'));
        numbers.extend(number.and_then(|n| n.parse::<u64>().ok()));
        if numbers.len() == count {
            child.kill().expect("it is still writing");
        }
    }
    child.wait().expect("it is our child");
    numbers
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        let child = start(&path, round * RECORDS_PER_ROUND);
        let numbers = acknowledged_until_killed(child, 50 + 37 * usize::try_from(round).unwrap());
        assert!(
            numbers.len() >= 50,
            "the child ended by itself after {}",
            numbers.len()
        );
        acknowledged.extend(numbers);

        let store = Store::open(&path).unwrap();
        let left = store.table::<u64>("left").all().unwrap();
        let right = store.table::<u64>("right").all().unwrap();
        assert_eq!(left, right, "a batch was torn");
        let kept: HashSet<u64> = left.into_iter().map(|(_, n)| n).collect();
        let lost: Vec<_> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "lost in round {round}: {lost:?}");
    }
}

#[test]
fn a_process_killed_at_any_moment_of_the_first_start_leaves_no_broken_file() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..10u32 {
        let path = directory.path().join(format!("{round}.redb"));
        let mut child = start(&path, 0);
        // Watches the directory and not the clock: the later rounds are killed
        // as soon as anything of the file is to be seen.
        while directory.path().read_dir().unwrap().all(|entry| {
            !entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("{round}."))
        }) {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        Store::open(&path).unwrap();
    }
}
