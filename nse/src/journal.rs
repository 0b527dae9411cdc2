use carrick_chain::{BoxError, Journal};
use carrick_store::{Batch, Store, Table};
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
        let batch = Batch::new().put(&self.0, connection.id.as_str(), connection);
        Box::pin(async move { Ok(self.0.store().commit(batch?).await?) })
    }

    /// Goes along with what the elements take off the disk meanwhile.
    fn remove(&self, id: &ConnectionId) -> BoxFuture<'_, Result<(), BoxError>> {
        let removal = Batch::new().remove(&self.0, id.as_str());
        let staged = self.0.store().stage(removal);
        Box::pin(async move { Ok(staged.written().await?) })
    }
}
