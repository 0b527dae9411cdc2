//! Peers that refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use carrick_grpc::Channel;
use carrick_grpc::{Security, ServerOptions, Url, dial, listen, serve};
use carrick_proto::connection::monitor_connection_client::MonitorConnectionClient;
use carrick_proto::connection::monitor_connection_server::{
    MonitorConnection, MonitorConnectionServer,
};
use carrick_proto::connection::{Connection, ConnectionEvent, MonitorScopeSelector};
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_client::NetworkServiceClient;
use carrick_proto::networkservice::network_service_server::{NetworkService, NetworkServiceServer};
use carrick_tests::PATIENCE;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::lab;

/// Stands before an endpoint and refuses the first Requests.
struct Front {
    endpoint: Channel,
    refusals: u32,
    requests: Arc<AtomicU32>,
}

impl Front {
    /// Serves at `at` what is served at `endpoint`, except for the first
    /// `refusals` Requests; how many came is counted in `requests`. Ends when
    /// what is returned is dropped.
    async fn start(
        at: &str,
        endpoint: &str,
        refusals: u32,
        requests: &Arc<AtomicU32>,
    ) -> DropGuard {
        let security = Security::insecure();
        let listener = listen(&Url::unix(at), &security).await.unwrap();
        let front = Arc::new(Self {
            endpoint: dial(&Url::unix(endpoint), &security, PATIENCE)
                .await
                .unwrap(),
            refusals,
            requests: Arc::clone(requests),
        });
        let routes = Routes::new(NetworkServiceServer::from_arc(Arc::clone(&front)))
            .add_service(MonitorConnectionServer::from_arc(front));
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move { serve(listener, routes, &ServerOptions::default(), stop).await });
        guard
    }
}

/// The same request for the next server: what this one knows of its sender stays here.
fn pass<T>(request: Request<T>) -> Request<T> {
    let (metadata, _, message) = request.into_parts();
    Request::from_parts(metadata, Extensions::default(), message)
}

#[tonic::async_trait]
impl NetworkService for Front {
    async fn request(
        &self,
        request: Request<NetworkServiceRequest>,
    ) -> Result<Response<Connection>, Status> {
        if self.requests.fetch_add(1, Ordering::Relaxed) < self.refusals {
            return Err(Status::unavailable("the peer does not want to"));
        }
        let mut endpoint = NetworkServiceClient::new(self.endpoint.clone());
        endpoint.request(pass(request)).await
    }

    async fn close(&self, request: Request<Connection>) -> Result<Response<()>, Status> {
        let mut endpoint = NetworkServiceClient::new(self.endpoint.clone());
        endpoint.close(pass(request)).await
    }
}

#[tonic::async_trait]
impl MonitorConnection for Front {
    type MonitorConnectionsStream = Streaming<ConnectionEvent>;

    async fn monitor_connections(
        &self,
        request: Request<MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, Status> {
        let mut endpoint = MonitorConnectionClient::new(self.endpoint.clone());
        endpoint.monitor_connections(pass(request)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_refuses_three_times_is_linked_at_the_fourth_dial_and_all_are_counted() {
    let mut lab = lab(&["one"]).await;
    let (at, older) = (lab.path("front.sock"), lab.socket("older"));
    let requests = Arc::default();
    let _front = Front::start(&at, &older, 3, &requests).await;
    let advertise = [("CARRICK_ADVERTISE", format!("unix://{at}"))];
    lab.start_nse("older", "one", "one", "one", &advertise);
    lab.ready("older").await;
    lab.start_nse("newer", "one", "one", "one", &[]);
    let nses = ["newer".to_owned(), "older".to_owned()];
    let took = lab.meshed(&nses, PATIENCE).await;

    println!("linked {took:?} after the start, at the fourth dial");
    assert_eq!(requests.load(Ordering::Relaxed), 4);
    let status = lab.status("newer").await.unwrap();
    assert_eq!(status["peers"][0]["attempts"], 4);
    let metrics = lab.metrics("newer").await.unwrap();
    for line in [
        "nse_vl3_performed_conn_requests_total 4",
        "nse_vl3_failed_conn_requests_total{cause=\"unavailable\"} 3",
        "nse_vl3_links_total 1",
        "nse_vl3_linked_peers 1",
    ] {
        assert!(metrics.lines().any(|is| is == line), "{line} in {metrics}");
    }
    lab.settled(&nses, 0).await;
}
