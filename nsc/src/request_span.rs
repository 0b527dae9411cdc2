use carrick_chain::{Element, Error, Next};
use carrick_types::Connection;
use tracing::{Instrument, info_span};

/// Makes each Request the root of a trace of its own. Without it the traces of
/// all Requests of a connection would be one, as long as the connection lives.
pub(crate) struct RequestSpan;

impl Element for RequestSpan {
    const NAME: &'static str = "request";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        _: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        let span = info_span!(
            parent: None,
            "Request",
            connection.id = %connection.id,
            network_service = %connection.network_service,
        );
        // The rest of the chain begins inside, so that its spans are within this one.
        async { next.request(connection).await }
            .instrument(span)
            .await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}
