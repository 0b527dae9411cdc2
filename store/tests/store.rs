//! What a store promises, on a real file.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use carrick_store::{Batch, Error, MAX_KEY_BYTES, MAX_VALUE_BYTES, Store, Table};
use serde::{Deserialize, Serialize};
use together::join_all;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    prefix: String,
    seconds: u64,
}

fn lease(seconds: u64) -> Lease {
    Lease {
        prefix: format!("10.0.0.{seconds}/32"),
        seconds,
    }
}

/// Awaits all of them at once, on tasks of their own.
mod together {
    pub(crate) async fn join_all<F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut tasks: tokio::task::JoinSet<_> = tokio::task::JoinSet::new();
        futures.for_each(|future| drop(tasks.spawn(future)));
        tasks.join_all().await
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata()
        .expect("the path exists")
        .permissions()
        .mode()
        & 0o777
}

#[tokio::test]
async fn what_was_put_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let leases: Table<Lease> = Store::open(&path).unwrap().table("leases");
    leases.put("a", &lease(1)).await.unwrap();
    leases.put("b", &lease(2)).await.unwrap();
    leases.put("a", &lease(3)).await.unwrap();
    leases.remove("b").await.unwrap();
    leases.remove("never there").await.unwrap();
    drop(leases);

    let leases: Table<Lease> = Store::open(&path).unwrap().table("leases");
    assert_eq!(leases.value("a").unwrap(), Some(lease(3)));
    assert_eq!(leases.value("b").unwrap(), None);
    assert_eq!(leases.all().unwrap(), [("a".to_owned(), lease(3))]);
}

#[test]
fn a_table_never_written_is_empty() {
    let table: Table<Lease> = Store::in_memory().unwrap().table("leases");
    assert_eq!(table.value("a").unwrap(), None);
    assert_eq!(table.all().unwrap(), []);
}

#[tokio::test]
async fn tables_of_one_store_do_not_mix() {
    let store = Store::in_memory().unwrap();
    let numbers: Table<u64> = store.table("numbers");
    let words: Table<String> = store.table("words");
    numbers.put("a", &1).await.unwrap();
    words.put("a", &"one".to_owned()).await.unwrap();
    numbers.remove("a").await.unwrap();
    assert_eq!(numbers.all().unwrap(), []);
    assert_eq!(words.value("a").unwrap().as_deref(), Some("one"));
}

#[tokio::test]
async fn a_batch_is_applied_over_tables_and_in_its_order() {
    let store = Store::in_memory().unwrap();
    let leases: Table<Lease> = store.table("leases");
    let owners: Table<String> = store.table("owners");
    let batch = Batch::new()
        .put(&leases, "a", &lease(1))
        .unwrap()
        .remove(&leases, "a")
        .put(&leases, "b", &lease(2))
        .unwrap()
        .put(&owners, "b", &"nsc".to_owned())
        .unwrap();
    assert_eq!(batch.len(), 4);
    store.commit(batch).await.unwrap();
    assert_eq!(leases.all().unwrap(), [("b".to_owned(), lease(2))]);
    assert_eq!(owners.value("b").unwrap().as_deref(), Some("nsc"));
    assert_eq!((store.commits(), store.records()), (1, 4));
}

#[tokio::test]
async fn an_empty_batch_costs_no_commit() {
    let store = Store::in_memory().unwrap();
    store.commit(Batch::new()).await.unwrap();
    assert_eq!(store.commits(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_records_shares_a_few_commits() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.redb")).unwrap();
    let table: Table<u64> = store.table("numbers");
    let puts = (0..1000u64).map(|n| {
        let table = table.clone();
        async move { table.put(&n.to_string(), &n).await }
    });
    for put in join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(store.records(), 1000);
    assert_eq!(table.all().unwrap().len(), 1000);
    assert!(
        store.commits() <= 500,
        "{} commits for 1000 records",
        store.commits()
    );
}

#[test]
fn a_new_store_is_readable_by_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("var/lib/store.redb");
    let store = Store::open(&path).unwrap();
    assert_eq!(store.path(), Some(path.as_path()));
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&directory.path().join("var/lib")), 0o700);
    assert_eq!(mode(&directory.path().join("var")), 0o700);
    let left: Vec<_> = path.parent().unwrap().read_dir().unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_second_opener_hears_that_the_file_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let first = Store::open(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(path.to_str().unwrap()) && text.contains("in use"),
        "{text}"
    );
    drop(first);
    Store::open(&path).unwrap();
}

#[test]
fn a_file_that_is_no_store_is_named_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    std::fs::write(&path, "not a store ".repeat(1000)).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    assert!(error.source().is_some());
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "not a store ".repeat(1000)
    );
}

#[tokio::test]
async fn a_store_cut_short_is_damaged_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let table: Table<u64> = Store::open(&path).unwrap().table("numbers");
    table.put("a", &1).await.unwrap();
    drop(table);
    let whole = std::fs::read(&path).unwrap();
    for length in [1, 9, 64, 320, 4096, 8192, whole.len() / 2] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(
            matches!(error, Error::Damaged { .. }),
            "{length} bytes: {error:?}"
        );
    }
}

#[test]
fn a_directory_in_place_of_the_file_is_an_error_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains(directory.path().to_str().unwrap())
    );
}

#[test]
fn a_file_where_a_directory_must_be_is_an_error_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("store.redb")).unwrap_err();
    assert!(matches!(error, Error::Create { .. }), "{error:?}");
    assert!(error.to_string().contains(file.to_str().unwrap()));
}

#[tokio::test]
async fn a_record_of_another_type_is_named() {
    let store = Store::in_memory().unwrap();
    store
        .table::<String>("leases")
        .put("a", &"old form".to_owned())
        .await
        .unwrap();
    let leases: Table<Lease> = store.table("leases");
    for error in [leases.value("a").unwrap_err(), leases.all().unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, Error::Decode { .. }), "{error:?}");
        assert!(text.contains("\"a\"") && text.contains("leases") && text.contains("Lease"));
    }
}

#[tokio::test]
async fn what_is_too_long_or_has_no_json_is_refused_before_it_is_queued() {
    let store = Store::in_memory().unwrap();
    let words: Table<String> = store.table("words");
    let error = words
        .put(&"k".repeat(MAX_KEY_BYTES + 1), &String::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::TooLong { what: "key", .. }),
        "{error}"
    );
    assert!(error.to_string().len() < 200, "{error}");
    let error = words
        .put("a", &"v".repeat(MAX_VALUE_BYTES))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::TooLong { what: "value", .. }),
        "{error}"
    );

    let maps: Table<BTreeMap<Vec<u8>, u8>> = store.table("maps");
    let error = maps
        .put("a", &BTreeMap::from([(vec![1], 1)]))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Encode { .. }), "{error}");
    assert_eq!(store.commits(), 0);
}
