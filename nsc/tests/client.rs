//! A client against an endpoint in the same process, over a unix socket.

mod support;

use std::os::unix::fs::MetadataExt;

use carrick_lifecycle::Signal;
use carrick_nsc::{ConnectionState, Status};
use carrick_types::State;

use support::{Place, Running, Server, is_up, within};

#[tokio::test]
async fn a_client_comes_up_with_what_the_endpoint_answers() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[]);
    let status = client.until(is_up).await;

    let connection = &status.connections[0];
    assert_eq!(connection.id.as_str(), "nsc-0");
    assert_eq!(connection.network_service.as_str(), "vl3");
    assert_eq!(connection.interface.as_str(), "nsm-1");
    assert_eq!(connection.src_addrs, ["10.0.0.1/32".parse().unwrap()]);
    assert_eq!(connection.routes, ["10.0.0.0/16 via 10.0.0.0"]);
    assert_eq!(connection.last_error, None);

    let held = server.connection();
    let mechanism = held.mechanism.as_ref().unwrap();
    // Over a unix socket it goes along as a descriptor.
    let own = std::fs::metadata("/proc/self/ns/net").unwrap();
    let own = format!("inode://{}/{}", own.dev(), own.ino());
    assert_eq!(mechanism.parameter("inodeURL"), Some(own.as_str()));
    assert_eq!(mechanism.parameter("name"), Some("nsm-1"));
    assert_eq!(mechanism.parameter("nodeName"), Some("node-1"));
    assert_eq!(held.labels.value("podName"), Some("web"));
    assert_eq!(held.path.client().unwrap().name, "nsc");
    client.end().await;
}

#[tokio::test]
async fn two_services_are_two_connections() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let services = "kernel://vl3/nsm-1,kernel://other/nsm-2";
    let mut client = Running::start(&place, &[("NSM_NETWORK_SERVICES", services)]);
    let status = client.until(is_up).await;
    let ids: Vec<_> = status.connections.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids, ["nsc-0", "nsc-1"]);
    assert_ne!(
        status.connections[0].src_addrs,
        status.connections[1].src_addrs
    );
    assert_eq!(server.endpoint.connections().len(), 2);
    client.end().await;
}

#[tokio::test]
async fn an_endpoint_that_comes_late_is_waited_for() {
    let place = Place::new();
    let mut client = Running::start(&place, &[]);
    let waiting = client
        .until(|status| status.connections[0].last_error.is_some())
        .await;
    assert_eq!(waiting.connections[0].state, ConnectionState::Connecting);
    let _server = Server::start(&place).await;
    client.until(is_up).await;
    client.end().await;
}

#[tokio::test]
async fn a_sigterm_closes_the_connections() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[]);
    client.until(is_up).await;
    let outcome = client.end().await;
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    assert_eq!(server.count.closes(), 1);
    assert!(server.endpoint.connections().is_empty());
}

#[tokio::test]
async fn a_sigterm_leaves_the_connections_when_asked_to() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[("CARRICK_CLOSE_AT_EXIT", "false")]);
    client.until(is_up).await;
    let outcome = client.end().await;
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    assert_eq!(server.count.closes(), 0);
    assert_eq!(server.endpoint.connections().len(), 1);
}

#[tokio::test]
async fn the_exit_code_tells_that_a_connection_is_left() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[("CARRICK_SHUTDOWN_GRACE", "500ms")]);
    client.until(is_up).await;
    server.stop().await;
    let outcome = client.end().await;
    assert_eq!(outcome.exit_code(), 1, "{outcome:?}");
    let left: Vec<_> = outcome.left.iter().map(|left| left.subsystem).collect();
    assert_eq!(left, ["connections"]);
}

#[tokio::test]
async fn a_client_that_waits_for_an_endpoint_ends_at_once() {
    let place = Place::new();
    let mut client = Running::start(&place, &[]);
    client
        .until(|status| status.connections[0].attempts > 0)
        .await;
    let outcome = client.end().await;
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
}

#[tokio::test]
async fn a_restarted_endpoint_gets_the_same_connection() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[]);
    let before = client.until(is_up).await.connections[0].clone();
    server.stop().await;
    client
        .until(|status| status.connections[0].state == ConnectionState::Healing)
        .await;

    let server = Server::start(&place).await;
    let after = client.until(is_up).await.connections[0].clone();
    assert_eq!(after.id, before.id);
    assert_eq!(after.src_addrs, before.src_addrs);
    let held = server.connection();
    assert_eq!(held.path.client().unwrap().id, "nsc-0");
    client.end().await;
    assert_eq!(server.count.closes(), 1);
}

#[tokio::test]
async fn a_killed_client_is_succeeded_without_a_close() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[]);
    let before = client.until(is_up).await.connections[0].clone();
    let id = server.connection().id.clone();
    client.kill();

    let mut client = Running::start(&place, &[]);
    let after = client.until(is_up).await.connections[0].clone();
    assert_eq!(after.src_addrs, before.src_addrs);
    assert_eq!(server.connection().id, id);
    assert_eq!(server.count.closes(), 0);
    let asked = server.last_request();
    assert_eq!(asked.mechanism, None);
    assert_eq!(asked.context.ip.src_addrs, before.src_addrs);
    client.end().await;
    assert!(server.endpoint.connections().is_empty());
}

#[tokio::test]
async fn an_adopted_connection_survives_a_failed_request() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[]);
    client.until(is_up).await;
    client.kill();

    server.refuse(1);
    let mut client = Running::start(&place, &[]);
    let status = client.until(is_up).await;
    assert_eq!(status.connections[0].attempts, 2);
    assert_eq!(server.count.closes(), 0);
    client.end().await;
}

#[tokio::test]
async fn a_service_that_is_no_longer_wanted_is_closed() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[]);
    client.until(is_up).await;
    client.kill();

    let mut client = Running::start(&place, &[("NSM_NETWORK_SERVICES", "other/nsm-1")]);
    client.until(is_up).await;
    assert_eq!(server.count.closes(), 1);
    assert_eq!(server.connection().network_service.as_str(), "other");
    client.end().await;
}

#[tokio::test]
async fn an_adopted_connection_that_is_refused_is_asked_for_anew() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[]);
    client.until(is_up).await;
    client.kill();

    server.refuse(usize::MAX);
    let mut client = Running::start(&place, &[]);
    client.until(is_up).await;
    assert_eq!(server.last_request().state, State::ReselectRequested);
    client.end().await;
}

#[tokio::test]
async fn a_dead_data_path_is_reselected() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[]);
    client.until(is_up).await;
    let closed = server.until_closed();
    client.cut();
    within(closed).await;
    client.mend();
    client.until(is_up).await;
    assert_eq!(server.last_request().state, State::ReselectRequested);
    client.end().await;
}

#[tokio::test]
async fn the_admin_listener_tells_status_readiness_and_metrics() {
    let place = Place::new();
    let admin = format!("unix://{}", place.path("admin.sock").display());
    let mut client = Running::start(&place, &[("CARRICK_ADMIN", admin.leak())]);
    client
        .until(|status| status.connections[0].last_error.is_some())
        .await;
    let (code, missing) = place.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(missing.contains("nsc-0: "), "{missing}");

    let _server = Server::start(&place).await;
    let known = client.until(is_up).await;
    let (code, body) = place.get("/status").await;
    assert_eq!(code, 200);
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!((status.name.as_str(), status.connections.len()), ("nsc", 1));
    assert_eq!(
        status.connections[0].src_addrs,
        known.connections[0].src_addrs
    );
    assert_eq!(place.get("/readyz").await.0, 200);
    let (_, metrics) = place.get("/metrics").await;
    assert!(metrics.contains("carrick_nsc_up 1\n"), "{metrics}");
    client.end().await;
    assert!(!place.path("admin.sock").exists());
}

#[tokio::test]
async fn a_second_signal_ends_a_client_that_hangs() {
    let place = Place::new();
    let server = Server::start(&place).await;
    let mut client = Running::start(&place, &[("CARRICK_SHUTDOWN_GRACE", "60s")]);
    client.until(is_up).await;
    server.stop().await;
    client.signal(Signal::Terminate).await;
    let outcome = client.end().await;
    assert_eq!(outcome.exit_code(), 128 + 15);
}

#[test]
fn a_malformed_url_is_told_with_its_variable() {
    let source = std::collections::BTreeMap::from([
        ("NSM_CONNECT_TO", "unix://no/slash"),
        ("NSM_NETWORK_SERVICES", "memif://vl3/nsm-1"),
    ]);
    let mistakes = carrick_nsc::Config::read(&source).unwrap_err().to_string();
    for variable in ["NSM_CONNECT_TO", "NSM_NETWORK_SERVICES"] {
        assert!(mistakes.contains(variable), "{mistakes}");
    }
}

#[tokio::test]
async fn an_admin_url_that_cannot_be_listened_on_is_no_start() {
    let place = Place::new();
    let config = place.config(&[("CARRICK_ADMIN", "tcp://localhost:1")]);
    let error = carrick_nsc::Nsc::new(config).unwrap_err();
    assert!(error.to_string().contains("CARRICK_ADMIN"), "{error}");
}
