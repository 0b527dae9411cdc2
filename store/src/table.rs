use std::any::type_name;
use std::marker::PhantomData;

use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Batch, Error, Store, error};

pub(crate) type Definition = TableDefinition<'static, &'static str, &'static [u8]>;

/// The records under one name, by key. Cheap to clone.
pub struct Table<V> {
    store: Store,
    name: &'static str,
    value: PhantomData<fn() -> V>,
}

impl<V> Table<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    pub(crate) fn new(store: Store, name: &'static str) -> Self {
        Self {
            store,
            name,
            value: PhantomData,
        }
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The store it is part of, to commit over several tables at once.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Sets the record `key` to `value`; durable when it returns `Ok`.
    ///
    /// # Errors
    ///
    /// As [`Batch::put`] and [`Store::commit`].
    pub async fn put(&self, key: &str, value: &V) -> Result<(), Error> {
        let batch = Batch::new().put(self, key, value)?;
        self.store.commit(batch).await
    }

    /// Removes the record `key`; durable when it returns `Ok`. A missing one is
    /// no error.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`].
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        self.store.commit(Batch::new().remove(self, key)).await
    }

    /// The record `key`, as it was last committed.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] when it does not read as `V`, [`Error::Read`] and
    /// [`Error::Damaged`] when the file cannot be read.
    pub fn value(&self, key: &str) -> Result<Option<V>, Error> {
        let Some(records) = self.records()? else {
            return Ok(None);
        };
        match records.get(key).map_err(|e| self.failed(e))? {
            Some(value) => self.decode(key, value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// All records of the table in the order of their keys, as of one commit.
    ///
    /// # Errors
    ///
    /// As [`Table::value`]; one record that cannot be read fails the whole, since
    /// a caller that went on without it could give its lease to someone else.
    pub fn all(&self) -> Result<Vec<(String, V)>, Error> {
        let Some(records) = self.records()? else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for record in records.iter().map_err(|e| self.failed(e))? {
            let (key, value) = record.map_err(|e| self.failed(e))?;
            all.push((
                key.value().to_owned(),
                self.decode(key.value(), value.value())?,
            ));
        }
        Ok(all)
    }

    /// `None` as long as nothing was ever written to the table.
    fn records(&self) -> Result<Option<ReadOnlyTable<&'static str, &'static [u8]>>, Error> {
        let transaction = self
            .store
            .database()
            .begin_read()
            .map_err(|e| self.failed(e))?;
        match transaction.open_table(Definition::new(self.name)) {
            Ok(records) => Ok(Some(records)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    fn decode(&self, key: &str, value: &[u8]) -> Result<V, Error> {
        serde_json::from_slice(value).map_err(|source| Error::Decode {
            path: error::shown(self.store.path()),
            table: self.name,
            key: key.to_owned(),
            expected: type_name::<V>(),
            source,
        })
    }

    fn failed(&self, error: impl Into<redb::Error>) -> Error {
        Error::reading(self.store.path(), error.into())
    }
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            name: self.name,
            value: PhantomData,
        }
    }
}

impl<V> std::fmt::Debug for Table<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
