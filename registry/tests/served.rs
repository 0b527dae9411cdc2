//! The server as clients see it.

mod bed;

use std::path::Path;
use std::time::{Duration, SystemTime};

use bed::{Bed, endpoint, name, next, service, until};
use carrick_proto::registry as proto;
use carrick_proto::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use carrick_registry::{EndpointQuery, Error, Limits, Match, ServerOptions, Service, ServiceQuery};
use carrick_store::Store;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request};

fn vl3() -> EndpointQuery {
    EndpointQuery::by_service(service("vl3"))
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_is_found_until_it_is_unregistered() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let registered = client.register_endpoint(&endpoint("a")).await.unwrap();
    assert!(registered.expires.is_some() && registered.registered_at.is_some());
    assert_eq!(client.find_endpoints(&vl3()).await.unwrap(), [registered]);
    let part_of_url = EndpointQuery {
        url: Some("//a:".into()),
        ..EndpointQuery::default()
    };
    assert_eq!(client.find_endpoints(&part_of_url).await.unwrap().len(), 1);
    client.unregister_endpoint(&endpoint("a")).await.unwrap();
    client.unregister_endpoint(&endpoint("a")).await.unwrap();
    assert!(client.find_endpoints(&vl3()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_service_keeps_its_rules_and_gets_a_payload() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let vl3 = Service {
        matches: vec![Match::default()],
        ..Service::new(service("vl3"))
    };
    assert_eq!(client.register_service(&vl3).await.unwrap(), vl3);
    let query = ServiceQuery::by_name(service("vl3"));
    assert_eq!(
        client.find_services(&query).await.unwrap(),
        std::slice::from_ref(&vl3)
    );
    client.unregister_service(&vl3).await.unwrap();
    assert!(client.find_services(&query).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_is_there_and_what_changes() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    client.register_endpoint(&endpoint("a")).await.unwrap();
    let mut watch = client.watch_endpoints(vl3());
    assert_eq!(until(&mut watch, "synced").await, ["+a", "synced"]);
    client.register_endpoint(&endpoint("b")).await.unwrap();
    assert_eq!(next(&mut watch).await, "+b");
    client.unregister_endpoint(&endpoint("b")).await.unwrap();
    assert_eq!(next(&mut watch).await, "-b");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_not_refreshed_expires_after_a_minute() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let mut watch = client.watch_endpoints(vl3());
    assert_eq!(next(&mut watch).await, "synced");
    let start = Instant::now();
    client.register_endpoint(&endpoint("a")).await.unwrap();
    assert_eq!(until(&mut watch, "-a").await, ["+a", "-a"]);
    let lived = start.elapsed();
    assert!(
        lived > Duration::from_secs(59) && lived < Duration::from_secs(61),
        "{lived:?}"
    );
    assert!(client.find_endpoints(&vl3()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_holds_is_refused_clearly() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    client.register_endpoint(&endpoint("a")).await.unwrap();
    let mut other = endpoint("a");
    other.url = Some("tcp://elsewhere:1".into());
    let Err(Error::Conflict { source, .. }) = client.register_endpoint(&other).await else {
        panic!("two endpoints with one name");
    };
    assert!(
        source.message().contains("held by tcp://a:5003"),
        "{source}"
    );
    assert!(matches!(
        client.unregister_endpoint(&other).await,
        Err(Error::Conflict { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_blocks_nobody_and_learns_the_last_state() {
    let bed = Bed::start(ServerOptions::default());
    let query = proto::NetworkServiceEndpointQuery {
        network_service_endpoint: None,
        watch: true,
    };
    let mut slow = NetworkServiceEndpointRegistryClient::new(bed.channel());
    let mut slow = slow.find(query).await.unwrap().into_inner();
    let client = bed.client();
    let text = "x".repeat(30 << 10);
    let mut big = endpoint("a");
    big.labels.insert(
        service("vl3"),
        [("text", text.as_str())].into_iter().collect(),
    );
    for round in 0..200 {
        big.url = Some("tcp://a:5003".into());
        big.labels
            .get_mut("vl3")
            .unwrap()
            .0
            .insert("round".into(), round.to_string());
        client.register_endpoint(&big).await.unwrap();
    }
    let mut read = 0;
    loop {
        let news = slow
            .message()
            .await
            .unwrap()
            .unwrap()
            .network_service_endpoint
            .unwrap();
        read += 1;
        if news.network_service_labels["vl3"].labels["round"] == "199" {
            break;
        }
    }
    assert!(read < 100, "{read} messages were kept for one name");
}

#[tokio::test(start_paused = true)]
async fn a_full_registry_says_so() {
    let limits = Limits {
        endpoints: 1,
        ..Limits::default()
    };
    let bed = Bed::start(ServerOptions {
        limits,
        ..ServerOptions::default()
    });
    let client = bed.client();
    client.register_endpoint(&endpoint("a")).await.unwrap();
    let Err(Error::Unavailable { source, .. }) = client.register_endpoint(&endpoint("b")).await
    else {
        panic!("a second endpoint in a registry for one");
    };
    assert_eq!(source.code(), Code::ResourceExhausted);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_endless_labels_is_refused() {
    let bed = Bed::start(ServerOptions::default());
    let mut big = endpoint("a");
    let text = "x".repeat(65 << 10);
    big.labels.insert(
        service("vl3"),
        [("text", text.as_str())].into_iter().collect(),
    );
    assert!(bed.client().register_endpoint(&big).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_path_of_a_call_is_answered_in_the_header() {
    let bed = Bed::start(ServerOptions::default());
    let mut client = NetworkServiceEndpointRegistryClient::new(bed.channel());
    let mut request = Request::new(proto::NetworkServiceEndpoint {
        name: "a".into(),
        ..Default::default()
    });
    // `{"sub":"spiffe://a","exp":1}` as the second part of a JWT.
    let token = "e30.eyJzdWIiOiJzcGlmZmU6Ly9hIiwiZXhwIjoxfQ.c2ln";
    request
        .metadata_mut()
        .insert("nsm-client-token", token.parse().unwrap());
    let expires = "2999-01-01T00:00:00Z".parse().unwrap();
    request
        .metadata_mut()
        .insert("nsm-client-token-expires", expires);
    let path = r#"{"Index":0,"PathSegments":null}"#;
    request.metadata_mut().insert("path", path.parse().unwrap());
    let answer = client.register(request).await.unwrap();
    let path = answer.metadata().get("path").unwrap().to_str().unwrap();
    let expected =
        format!(r#"{{"Index":0,"PathSegments":[{{"token":"{token}"}},{{"token":""}}]}}"#);
    assert_eq!(path, expected);
    assert_eq!(answer.into_inner().path_ids, ["spiffe://a"]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_path_or_name_is_refused() {
    let bed = Bed::start(ServerOptions::default());
    let mut client = NetworkServiceEndpointRegistryClient::new(bed.channel());
    let without_name = client
        .register(proto::NetworkServiceEndpoint::default())
        .await;
    assert_eq!(without_name.unwrap_err().code(), Code::InvalidArgument);
    let mut request = Request::new(proto::NetworkServiceEndpoint {
        name: "a".into(),
        ..Default::default()
    });
    let path = r#"{"Index":7,"PathSegments":[{"token":""}]}"#;
    request.metadata_mut().insert("path", path.parse().unwrap());
    assert_eq!(
        client.register(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn what_is_registered_survives_a_restart_with_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let mut bed = Bed::start(with(Store::open(&path).unwrap()));
    let client = bed.client();
    client
        .register_service(&Service::new(service("vl3")))
        .await
        .unwrap();
    let kept = client.register_endpoint(&endpoint("a")).await.unwrap();
    client.register_endpoint(&endpoint("b")).await.unwrap();
    client.unregister_endpoint(&endpoint("b")).await.unwrap();
    let mut short = endpoint("c");
    short.expires = Some(SystemTime::now() + Duration::from_millis(300));
    client.register_endpoint(&short).await.unwrap();

    assert!(
        bed.server
            .as_ref()
            .unwrap()
            .shutdown(Duration::from_secs(10))
            .await
    );
    bed.kill();
    while SystemTime::now() < short.expires.unwrap() {
        sleep(Duration::from_millis(20)).await;
    }
    bed.restart(reopened(&path).await);
    assert_eq!(
        bed.client()
            .find_endpoints(&EndpointQuery::default())
            .await
            .unwrap(),
        [kept]
    );
    let services = bed
        .client()
        .find_services(&ServiceQuery::default())
        .await
        .unwrap();
    assert_eq!(services.len(), 1);
    let moved = bed
        .client()
        .register_endpoint(&endpoint("a"))
        .await
        .unwrap();
    assert_eq!(moved.name, name("a"));
}

/// Opens the store again as soon as the killed server's connections let go of it.
async fn reopened(path: &Path) -> ServerOptions {
    loop {
        match Store::open(path) {
            Ok(store) => return with(store),
            Err(carrick_store::Error::Busy { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn with(store: Store) -> ServerOptions {
    ServerOptions {
        store: Some(store),
        ..ServerOptions::default()
    }
}

#[tokio::test]
async fn a_registry_is_reached_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("unix://{}/registry.sock", directory.path().display());
    let url: carrick_grpc::Url = url.parse().unwrap();
    let security = carrick_grpc::Security::insecure();
    let listener = carrick_grpc::listen(&url, &security).await.unwrap();
    let server = carrick_registry::Server::start(ServerOptions::default()).unwrap();
    let serving = tonic::transport::Server::builder().add_routes(server.routes());
    tokio::spawn(serving.serve_with_incoming(listener));
    let channel = carrick_grpc::dial(&url, &security, Duration::from_secs(5))
        .await
        .unwrap();
    let client = carrick_registry::Client::new(channel, carrick_registry::ClientOptions::default());
    let mut watch = client.watch_endpoints(vl3());
    assert_eq!(next(&mut watch).await, "synced");
    client.register_endpoint(&endpoint("a")).await.unwrap();
    assert_eq!(next(&mut watch).await, "+a");
}
