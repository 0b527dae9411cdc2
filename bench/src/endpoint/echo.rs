//! The baseline: a tonic server that answers each Request with itself.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use carrick_grpc::{Security, ServerOptions, Url, listen};
use carrick_proto::connection::Connection;
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_server::{NetworkService, NetworkServiceServer};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

struct Echo;

#[tonic::async_trait]
impl NetworkService for Echo {
    async fn request(
        &self,
        request: Request<NetworkServiceRequest>,
    ) -> Result<Response<Connection>, Status> {
        let connection = request.into_inner().connection;
        let mut connection = connection.ok_or_else(|| Status::invalid_argument("connection"))?;
        // What a client needs to see so as not to refresh without pause.
        let expires = SystemTime::now() + Duration::from_secs(600);
        if let Some(segment) = connection
            .path
            .as_mut()
            .and_then(|path| path.path_segments.last_mut())
        {
            segment.expires = Some(expires.into());
        }
        Ok(Response::new(connection))
    }

    async fn close(&self, _: Request<Connection>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

/// Serves at `socket` until it is killed.
pub(crate) async fn serve(socket: &Path) -> Result<()> {
    let listener = listen(&Url::unix(socket), &Security::insecure()).await?;
    let routes = Routes::new(NetworkServiceServer::new(Echo));
    let forever = CancellationToken::new();
    Ok(carrick_grpc::serve(listener, routes, &ServerOptions::default(), forever).await?)
}
