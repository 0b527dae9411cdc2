//! An endpoint with a small chain, served and called over sockets in a
//! temporary directory, loopback TCP and in-memory pipes.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{self, Served, client_tokens, options, request};
use carrick_chain::{Chain, Client, ClientOptions, EventKind, Kind, MonitorEnd, Remote, Selector};
use carrick_grpc::{Channels, RemoteEndpoint, RemoteError, ServerOptions, Url};
use carrick_types::{Connection, Path, State};
use futures::StreamExt;
use tokio::time::Instant;
use tonic::Code;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]
fn remote(served: &Served) -> RemoteEndpoint {
    RemoteEndpoint::dial(&common::channels(), &served.url, client_tokens()).unwrap()
}

#[tokio::test]
async fn a_connection_is_made_refreshed_watched_and_closed() {
    for url in [common::unix(), common::tcp("127.0.0.1"), common::tcp("::1")] {
        let served = Served::start(&url, &options()).await;
        let remote = remote(&served);
        let mut events = remote.monitor(Selector::default()).await.unwrap();
        let first = events.next().await.unwrap().unwrap();
        assert_eq!(first.kind, EventKind::InitialStateTransfer);
        assert!(first.connections.is_empty());

        let answer = remote.request(request("vl3"), soon()).await.unwrap();
        assert_eq!(answer.id.as_str(), "client-1");
        assert_eq!(answer.path.index, 0);
        assert_eq!(answer.path.segments[1].name, "nse");
        assert!(answer.path.segments[1].expires.is_some());
        assert_eq!(
            answer.context.ip.src_addrs,
            ["10.0.0.1/32".parse().unwrap()]
        );

        let again = remote.request(answer.clone(), soon()).await.unwrap();
        assert_eq!(again.path.segments[1].id, answer.path.segments[1].id);
        assert_eq!(again.context.ip, answer.context.ip);

        remote.close(again, soon()).await.unwrap();
        loop {
            let event = events.next().await.unwrap().unwrap();
            assert_eq!(event.connections[0].id.as_str(), answer.path.segments[1].id);
            match event.kind {
                EventKind::Delete => break,
                kind => assert_eq!(kind, EventKind::Update),
            }
        }
        assert!(served.endpoint.connections().is_empty());
        drop((events, remote));
        served.stop().await;
    }
}

#[tokio::test]
async fn the_callers_token_is_put_into_the_callers_segment() {
    let served = Served::start(&common::unix(), &options()).await;
    let tokens = client_tokens();
    let remote =
        RemoteEndpoint::dial(&common::channels(), &served.url, Arc::clone(&tokens)).unwrap();
    let mut request = request("vl3");
    request.path.segments[0].token = "stale".into();
    request.path.segments[0].expires = None;
    let answer = remote.request(request, soon()).await.unwrap();
    let token = tokens.token(None).unwrap();
    assert_eq!(answer.path.segments[0].token, token.value);
    assert_eq!(answer.path.segments[0].expires, Some(token.expires));
}

#[tokio::test]
async fn what_the_chain_says_reaches_the_client_with_its_causes() {
    let served = Served::start(&common::unix(), &options()).await;
    let error = remote(&served)
        .request(request("full"), soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Exhausted);
    let cause = error.source.downcast_ref::<RemoteError>().unwrap();
    assert_eq!(cause.code(), Code::ResourceExhausted);
    let text = cause.to_string();
    assert!(text.contains("addresses: Request of connection"), "{text}");
    assert!(text.ends_with("failed: no free address"), "{text}");
}

#[tokio::test]
async fn a_malformed_message_is_refused_with_the_name_of_its_field() {
    let served = Served::start(&common::unix(), &options()).await;
    let mut wire = carrick_grpc::convert::request_to_wire(&request("vl3"));
    let connection = wire.connection.as_mut().unwrap();
    let ip = connection
        .context
        .as_mut()
        .unwrap()
        .ip_context
        .as_mut()
        .unwrap();
    ip.src_ip_addrs = vec!["10.0.0.1/32".into(), "10.0.0.0/33".into()];
    let close = connection.clone();
    let mut client = served.raw_client();
    let refused = [
        client.request(wire).await.unwrap_err(),
        client.close(close).await.unwrap_err(),
        client
            .request(carrick_proto::networkservice::NetworkServiceRequest::default())
            .await
            .unwrap_err(),
    ];
    for status in &refused {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    let field = "connection.context.ip_context.src_ip_addrs[1]: \"10.0.0.0/33\" is not an address";
    assert!(
        refused[0].message().starts_with(field),
        "{}",
        refused[0].message()
    );
    assert!(
        refused[1].message().starts_with(field),
        "{}",
        refused[1].message()
    );
    assert!(
        refused[2].message().starts_with("connection:"),
        "{}",
        refused[2].message()
    );
}

#[tokio::test]
async fn a_path_that_points_past_its_end_is_refused() {
    let served = Served::start(&common::unix(), &options()).await;
    let mut request = request("vl3");
    request.path = Path {
        index: 7,
        ..request.path
    };
    let error = remote(&served).request(request, soon()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
}

#[tokio::test]
async fn the_clients_deadline_is_the_servers() {
    let served = Served::start(&common::unix(), &options()).await;
    let mut message = tonic::Request::new(carrick_grpc::convert::request_to_wire(&request("slow")));
    message.set_timeout(Duration::from_millis(400));
    let begin = Instant::now();
    let status = served.raw_client().request(message).await.unwrap_err();
    // The server's word, not the transport's (which would be Cancelled).
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(served.endpoint.connections().is_empty());
}

#[tokio::test]
async fn a_client_that_names_no_deadline_does_not_wait_forever() {
    let options = ServerOptions {
        default_timeout: Duration::from_millis(100),
        ..options()
    };
    let served = Served::start(&common::unix(), &options).await;
    let wire = carrick_grpc::convert::request_to_wire(&request("slow"));
    let status = served.raw_client().request(wire).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test]
async fn our_own_deadline_is_told_as_such() {
    let served = Served::start(&common::unix(), &options()).await;
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = remote(&served)
        .request(request("slow"), deadline)
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::DeadlineExceeded, "{error:?}");
}

#[tokio::test]
async fn too_many_requests_are_refused_and_not_queued() {
    let options = ServerOptions {
        max_requests: 1,
        ..options()
    };
    let served = Served::start(&common::unix(), &options).await;
    let remote = remote(&served);
    let slow = tokio::spawn({
        let remote = remote.clone();
        async move { remote.request(request("slow"), soon()).await }
    });
    served.slow_begun().await;
    let error = remote.request(request("vl3"), soon()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    slow.abort();
}

#[tokio::test]
async fn a_client_that_is_alone_hears_that_nobody_is_there() {
    let url = common::unix();
    let remote = RemoteEndpoint::dial(&common::channels(), &url, client_tokens()).unwrap();
    let error = remote.request(request("vl3"), soon()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    let cause = error.source.downcast_ref::<RemoteError>().unwrap();
    assert!(!cause.is_answer());
    // It connects as soon as somebody is there.
    let served = Served::start(&url, &options()).await;
    remote.request(request("vl3"), soon()).await.unwrap();
    served.stop().await;
    let served = Served::start(&url, &options()).await;
    remote.request(request("vl3"), soon()).await.unwrap();
    drop(served);
}

#[tokio::test]
async fn a_client_heals_when_its_endpoint_was_restarted() {
    let url = common::unix();
    let served = Served::start(&url, &options()).await;
    let client_options = ClientOptions::new("client", common::tokens("client"));
    let client = Client::new(client_options, Chain::default(), remote(&served));
    let wanted = Connection {
        path: Path::default(),
        ..request("vl3")
    };
    let connection = client.connect(wanted);
    let first = connection.up().await.unwrap();
    served.stop().await;

    let served = Served::start(&url, &options()).await;
    let mut events = served.endpoint.monitor(Selector::default());
    let healed = async {
        while events.next().await.unwrap().connections.is_empty() {}
        served.endpoint.connections().remove(0)
    };
    let healed = tokio::time::timeout(Duration::from_secs(30), healed)
        .await
        .unwrap();
    assert_eq!(healed.path.segments[1].id, first.path.segments[1].id);
    assert_eq!(healed.context.ip, first.context.ip);
    assert!(connection.close(Duration::from_secs(5)).await);
    assert!(served.endpoint.connections().is_empty());
}

#[tokio::test]
async fn a_monitor_stream_ends_as_unavailable_with_the_endpoint() {
    let served = Served::start(&common::unix(), &options()).await;
    let remote = remote(&served);
    remote.request(request("vl3"), soon()).await.unwrap();
    let mut events = remote.monitor(Selector::default()).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().connections.len(), 1);
    assert!(served.endpoint.shutdown(Duration::from_secs(5)).await);
    let delete = events.next().await.unwrap().unwrap();
    assert_eq!(delete.kind, EventKind::Delete);
    lost(events.next().await, "the endpoint is ending");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_monitor_stream_ends_as_unavailable_with_the_server() {
    let served = Served::start(&common::unix(), &options()).await;
    let mut events = remote(&served).monitor(Selector::default()).await.unwrap();
    events.next().await.unwrap().unwrap();
    served.stop().await;
    lost(events.next().await, "the endpoint is ending");
}

#[tokio::test]
async fn a_server_that_dies_is_no_reason_to_stop_healing() {
    let (url, server) = common::dying_server().await;
    let remote = RemoteEndpoint::dial(&common::channels(), &url, client_tokens()).unwrap();
    let mut events = remote.monitor(Selector::default()).await.unwrap();
    events.next().await.unwrap().unwrap();
    server.die();
    lost(events.next().await, "");
}

#[tokio::test]
async fn a_server_that_says_cancelled_means_it() {
    let url = common::cancelling_server().await;
    let remote = RemoteEndpoint::dial(&common::channels(), &url, client_tokens()).unwrap();
    let mut events = remote.monitor(Selector::default()).await.unwrap();
    events.next().await.unwrap().unwrap();
    assert_eq!(events.next().await, Some(Err(MonitorEnd::Cancelled)));
    assert!(events.next().await.is_none());
}

fn lost(end: Option<Result<carrick_chain::ConnectionEvent, MonitorEnd>>, why: &str) {
    match end {
        Some(Err(MonitorEnd::Lost(text))) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_selector_chooses_what_is_watched() {
    let served = Served::start(&common::unix(), &options()).await;
    let remote = remote(&served);
    remote.request(request("vl3"), soon()).await.unwrap();
    let mut ours = remote
        .monitor(Selector::segment("client", "client-1"))
        .await
        .unwrap();
    let event = ours.next().await.unwrap().unwrap();
    assert_eq!(event.connections[0].state, State::Up);
    let mut others = remote
        .monitor(Selector::segment("client", "other"))
        .await
        .unwrap();
    assert!(others.next().await.unwrap().unwrap().connections.is_empty());
}

#[tokio::test]
async fn too_many_monitor_streams_are_refused_and_ended_ones_are_not_counted() {
    let options = ServerOptions {
        max_monitors: 1,
        ..options()
    };
    let served = Served::start(&common::unix(), &options).await;
    let remote = remote(&served);
    let first = remote.monitor(Selector::default()).await.unwrap();
    let Err(error) = remote.monitor(Selector::default()).await else {
        panic!()
    };
    assert_eq!(error.kind, Kind::Unavailable);
    drop(first);
    let again = async {
        while remote.monitor(Selector::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .unwrap();
}

#[tokio::test]
async fn all_connections_to_a_peer_share_one_channel() {
    let served = Served::start(&common::unix(), &options()).await;
    let channels = common::channels();
    for _ in 0..3 {
        let remote = RemoteEndpoint::dial(&channels, &served.url, client_tokens()).unwrap();
        remote.request(request("vl3"), soon()).await.unwrap();
    }
    assert_eq!(served.accepted(), 1);
    channels.forget(&served.url);
    let remote = RemoteEndpoint::dial(&channels, &served.url, client_tokens()).unwrap();
    remote.request(request("vl3"), soon()).await.unwrap();
    assert_eq!(served.accepted(), 2);
}

#[tokio::test]
async fn the_pool_of_channels_is_bounded() {
    let channels = common::channels();
    for i in 0..Channels::MAX + 10 {
        channels
            .channel(&Url::unix(format!("/nowhere/{i}")))
            .unwrap();
    }
    assert_eq!(channels.len(), Channels::MAX);
}

#[tokio::test]
async fn an_endpoint_is_served_over_a_pipe() {
    let channel = common::pipe(&options()).await;
    let remote = RemoteEndpoint::new(channel, client_tokens());
    let answer = remote.request(request("vl3"), soon()).await.unwrap();
    remote.close(answer, soon()).await.unwrap();
}

#[tokio::test]
async fn the_socket_is_gone_when_the_server_has_ended() {
    let url = common::unix();
    let served = Served::start(&url, &options()).await;
    assert!(url.path().unwrap().exists());
    served.stop().await;
    assert!(!url.path().unwrap().exists());
}

#[tokio::test]
async fn a_call_that_does_not_end_does_not_keep_the_server() {
    let options = ServerOptions {
        grace: Duration::from_millis(50),
        ..options()
    };
    let served = Served::start(&common::unix(), &options).await;
    let remote = remote(&served);
    let slow = tokio::spawn(async move { remote.request(request("slow"), soon()).await });
    served.slow_begun().await;
    tokio::time::timeout(Duration::from_secs(5), served.stop())
        .await
        .unwrap();
    slow.abort();
}
