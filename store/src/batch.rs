use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Table};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 4 << 10;

/// The longest value, in bytes of JSON.
pub const MAX_VALUE_BYTES: usize = 16 << 20;

/// Changes that are written together or not at all, in their order.
#[derive(Debug, Default)]
#[must_use = "a batch changes nothing until it is committed"]
pub struct Batch {
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) table: &'static str,
    pub(crate) key: String,
    /// `None` removes the record.
    pub(crate) value: Option<Vec<u8>>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the record `key` of `table` to `value`.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] when `value` has no JSON form, [`Error::TooLong`] when
    /// key or value are longer than a record may be.
    pub fn put<V>(mut self, table: &Table<V>, key: &str, value: &V) -> Result<Self, Error>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let table = table.name();
        limit(table, key, "key", key.len(), MAX_KEY_BYTES)?;
        let value = serde_json::to_vec(value).map_err(|source| Error::Encode {
            table,
            key: key.to_owned(),
            source,
        })?;
        limit(table, key, "value", value.len(), MAX_VALUE_BYTES)?;
        self.changes.push(Change {
            table,
            key: key.to_owned(),
            value: Some(value),
        });
        Ok(self)
    }

    /// Removes the record `key` of `table`; a missing one is no error.
    pub fn remove<V>(mut self, table: &Table<V>, key: &str) -> Self
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.changes.push(Change {
            table: table.name(),
            key: key.to_owned(),
            value: None,
        });
        self
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }
}

fn limit(
    table: &'static str,
    key: &str,
    what: &'static str,
    length: usize,
    limit: usize,
) -> Result<(), Error> {
    if length <= limit {
        return Ok(());
    }
    let key = key.chars().take(64).collect();
    Err(Error::TooLong {
        table,
        key,
        what,
        length,
        limit,
    })
}
