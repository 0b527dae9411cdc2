//! The services that every gRPC server has: health and reflection.

use crate::common::{self, Served, options};
use carrick_grpc::Health;
use futures::stream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

fn question(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

#[tokio::test]
async fn health_follows_readiness() {
    let served = Served::start(&common::unix(), &options()).await;
    let mut client = HealthClient::new(served.channel());
    let watched = client.watch(question("")).await.unwrap();
    let mut watched = watched.into_inner();
    let mut next = async || watched.message().await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::NotServing);
    for (ready, status) in [
        (true, ServingStatus::Serving),
        (false, ServingStatus::NotServing),
    ] {
        served.health.set_ready(ready).await;
        for service in Health::ENDPOINT.iter().chain(&[""]) {
            let answer = client.check(question(service)).await.unwrap().into_inner();
            assert_eq!(answer.status(), status, "{service:?}");
        }
        assert_eq!(next().await, status);
    }
    let unknown = client.check(question("nonsense")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_shows_it() {
    let served = Served::start(&common::unix(), &options()).await;
    let mut client = ServerReflectionClient::new(served.channel());
    let mut ask = async |question| {
        let request = ServerReflectionRequest {
            message_request: Some(question),
            ..Default::default()
        };
        let answers = client
            .server_reflection_info(stream::iter([request]))
            .await
            .unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap();
        answer.message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) =
        ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let mut services: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    services.sort();
    let expected = [
        "connection.MonitorConnection",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "networkservice.NetworkService",
    ];
    assert_eq!(services, expected);
    for service in expected {
        let symbol = MessageRequest::FileContainingSymbol(service.into());
        assert!(
            matches!(
                ask(symbol).await,
                MessageResponse::FileDescriptorResponse(_)
            ),
            "{service}"
        );
    }
}
