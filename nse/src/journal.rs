use carrick_chain::{BoxError, Journal};
use carrick_store::{Store, Table};
use carrick_types::{Connection, ConnectionId};
use futures::future::BoxFuture;

/// Last answers, kept over a restart in the endpoint's store.
#[derive(Clone, Debug)]
pub(crate) struct Answers(Table<Connection>);

impl Answers {
    pub(crate) fn open(store: &Store) -> Self {
        Self(store.table("connections"))
    }

    /// What a former process answered and did not close.
    pub(crate) fn all(&self) -> Result<Vec<Connection>, carrick_store::Error> {
        let all = self.0.all()?;
        Ok(all.into_iter().map(|(_, connection)| connection).collect())
    }
}

impl Journal for Answers {
    fn put(&self, connection: &Connection) -> BoxFuture<'_, Result<(), BoxError>> {
        let connection = connection.clone();
        Box::pin(async move { Ok(self.0.put(connection.id.as_str(), &connection).await?) })
    }

    fn remove(&self, id: &ConnectionId) -> BoxFuture<'_, Result<(), BoxError>> {
        let id = id.clone();
        Box::pin(async move { Ok(self.0.remove(id.as_str()).await?) })
    }
}
