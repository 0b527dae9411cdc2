use std::sync::Arc;
use std::time::Duration;

use carrick_types::Connection;
use tokio::time::Instant;

use super::Remote;
use crate::{Element, Error, Next};

/// The last element of a client's chain: the call to the next hop.
pub(super) struct Call(pub(super) Arc<dyn Remote>);

/// Time the next hop has for a Close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

impl Element for Call {
    const NAME: &'static str = "remote";

    /// What the next hop holds for us, by its path.
    type State = Connection;

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<Connection>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        if connection.path.following().is_some() {
            // The next hop may know it from before. What it does not know it
            // cannot close, since it is the next hop that gives the id.
            state.get_or_insert_with(|| connection.clone());
        }
        let answer = self.0.request(connection, next.deadline()).await?;
        *state = Some(answer.clone());
        next.request(answer).await
    }

    async fn close(&self, _: &Connection, state: &mut Connection) -> Result<(), Error> {
        self.0
            .close(state.clone(), Instant::now() + CLOSE_TIMEOUT)
            .await
    }
}
