//! A store behaves as a map of maps, also over batches and reopening.

use std::collections::BTreeMap;

use carrick_store::{Batch, Store, Table};
use proptest::prelude::*;

const TABLES: [&str; 2] = ["left", "right"];

#[derive(Clone, Debug)]
enum Change {
    Put(usize, String, u32),
    Remove(usize, String),
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>),
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    let (table, key) = (0..TABLES.len(), "[a-d]{0,2}");
    prop_oneof![
        2 => (table.clone(), key, any::<u32>()).prop_map(|(t, k, v)| Change::Put(t, k, v)),
        1 => (table, key).prop_map(|(t, k)| Change::Remove(t, k)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => proptest::collection::vec(change(), 0..6).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

fn batch(tables: &[Table<u32>], changes: &[Change]) -> Batch {
    changes
        .iter()
        .fold(Batch::new(), |batch, change| match change {
            Change::Put(t, key, value) => batch
                .put(&tables[*t], key, value)
                .expect("a number has JSON"),
            Change::Remove(t, key) => batch.remove(&tables[*t], key),
        })
}

fn apply(model: &mut [BTreeMap<String, u32>], changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(t, key, value) => model[*t].insert(key.clone(), *value),
            Change::Remove(t, key) => model[*t].remove(key),
        };
    }
}

fn tables(store: &Store) -> Vec<Table<u32>> {
    TABLES.iter().map(|name| store.table(name)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_store_always_holds_what_the_model_holds(
        steps in proptest::collection::vec(step(), 1..20),
    ) {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("store.redb");
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let mut store = Store::open(&path).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let mut model = vec![BTreeMap::new(); TABLES.len()];
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    let batch = batch(&tables(&store), &changes);
                    prop_assert!(runtime.block_on(store.commit(batch)).is_ok());
                    apply(&mut model, &changes);
                }
                Step::Reopen => {
                    drop(store);
                    store = Store::open(&path).map_err(|e| TestCaseError::fail(e.to_string()))?;
                }
            }
            for (table, model) in tables(&store).iter().zip(&model) {
                let all: BTreeMap<_, _> = table.all().expect("it reads").into_iter().collect();
                prop_assert_eq!(&all, model);
                for (key, value) in model {
                    prop_assert_eq!(table.value(key).expect("it reads"), Some(*value));
                }
            }
        }
    }
}
