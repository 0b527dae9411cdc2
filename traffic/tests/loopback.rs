//! Servers and clients on the loopback device.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use carrick_traffic::watch::{Gauge, Happened};
use carrick_traffic::{Client, Error, Name, Progress, Report, Server, Transport, Watch};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn named(name: &str) -> Name {
    Name::Fixed(name.into())
}

/// Starts a server; where it is, and what ends it.
fn serve(name: Name, address: &str, transport: Transport) -> (SocketAddr, CancellationToken) {
    let address = SocketAddr::new(address.parse().unwrap(), 0);
    let server = Server::bind(name, &[address], &[transport]).unwrap();
    let stop = CancellationToken::new();
    let address = server.addresses()[0].1;
    tokio::spawn(server.serve(stop.clone()));
    (address, stop)
}

async fn run(client: &Client) -> Report {
    client
        .run(Arc::default(), CancellationToken::new())
        .await
        .unwrap()
}

async fn everybody_is_answered(address: &str, transport: Transport) {
    let (target, _stop) = serve(named("fish"), address, transport);
    let mut client = Client::new(target);
    (client.transport, client.connections) = (transport, 500);
    let report = run(&client).await;
    assert!(report.is_success(), "{report:?}");
    assert_eq!(
        report.hosts.into_iter().collect::<Vec<_>>(),
        [("fish".to_owned(), 500)]
    );
    assert!(report.answer_latency.unwrap().max >= report.connect_latency.unwrap().p50);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tcp_connection_learns_the_servers_name() {
    everybody_is_answered("127.0.0.1", Transport::Tcp).await;
    everybody_is_answered("::1", Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_udp_client_learns_the_servers_name() {
    everybody_is_answered("127.0.0.1", Transport::Udp).await;
    everybody_is_answered("::1", Transport::Udp).await;
}

#[tokio::test]
async fn sctp_works_or_is_refused_with_a_clear_word() {
    match Transport::Sctp.check() {
        Ok(()) => everybody_is_answered("127.0.0.1", Transport::Sctp).await,
        Err(error) => {
            assert!(error.to_string().contains("kernel has no SCTP"), "{error}");
            let mut client = Client::new(([127, 0, 0, 1], 1).into());
            client.transport = Transport::Sctp;
            let run = client.run(Arc::default(), CancellationToken::new()).await;
            assert!(matches!(run, Err(Error::NoTransport { .. })));
        }
    }
}

#[tokio::test]
async fn one_server_stands_for_as_many_as_it_has_addresses() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let (any, _stop) = serve(Name::LocalAddress, "0.0.0.0", transport);
        for address in ["127.0.0.1", "127.0.0.2"] {
            let target = SocketAddr::new(address.parse().unwrap(), any.port());
            let mut client = Client::new(target);
            client.transport = transport;
            let report = run(&client).await;
            assert_eq!(report.hosts.keys().collect::<Vec<_>>(), [address]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_come_from_all_over_the_prefix() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::new(listener.local_addr().unwrap());
    client.connections = 14;
    client.sources = Some("127.3.4.0/28".parse().unwrap());
    let server = tokio::spawn(async move {
        let mut from = std::collections::BTreeSet::new();
        for _ in 0..14 {
            let (mut stream, peer) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"x")
                .await
                .unwrap();
            from.insert(peer.ip());
        }
        from
    });
    assert!(run(&client).await.is_success());
    let expected = (1..=14).map(|host| IpAddr::from([127, 3, 4, host]));
    assert!(server.await.unwrap().into_iter().eq(expected));
}

#[tokio::test]
async fn sources_that_are_not_local_are_refused_with_what_would_help() {
    let mut client = Client::new(([127, 0, 0, 1], 1).into());
    client.sources = Some("203.0.113.0/24".parse().unwrap());
    let error = client
        .run(Arc::default(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("ip route add local 203.0.113.0/24 dev lo"),
        "{error}"
    );
    client.sources = Some("fd00::/64".parse().unwrap());
    let error = client
        .run(Arc::default(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Family { .. }));
}

#[tokio::test]
async fn a_refused_connection_is_counted_and_told_by_kind() {
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut client = Client::new(free);
    client.connections = 5;
    let report = run(&client).await;
    assert_eq!((report.failed_connects, report.failed_reads), (5, 0));
    assert_eq!(report.errors["refused"], 5);
    assert!(!report.is_success());
}

#[tokio::test]
async fn a_server_that_says_nothing_is_a_failed_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::new(listener.local_addr().unwrap());
    client.connection_timeout = Some(Duration::from_millis(50));
    let report = run(&client).await;
    assert_eq!((report.failed_connects, report.failed_reads), (0, 1));
    assert_eq!(report.errors["timed out"], 1);
}

#[tokio::test]
async fn what_there_is_no_time_for_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::new(listener.local_addr().unwrap());
    (client.connections, client.rate) = (100, Some(1.0));
    client.timeout = Some(Duration::from_millis(50));
    let report = run(&client).await;
    assert_eq!(report.failed_connects + report.failed_reads, 100);
    assert_eq!(report.errors["no time left"], 99);
}

#[tokio::test]
async fn a_lost_datagram_is_asked_for_again() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::new(server.local_addr().unwrap());
    (client.transport, client.patience) = (Transport::Udp, Duration::from_millis(50));
    let answers = tokio::spawn(async move {
        let mut bytes = [0; 16];
        server.recv_from(&mut bytes).await.unwrap();
        let (_, from) = server.recv_from(&mut bytes).await.unwrap();
        server.send_to(b"late", from).await.unwrap();
    });
    let report = run(&client).await;
    answers.await.unwrap();
    assert_eq!((report.hosts["late"], report.retried), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn held_connections_that_the_server_closes_are_lost() {
    let (target, stop) = serve(named("fish"), "127.0.0.1", Transport::Tcp);
    let mut client = Client::new(target);
    (client.connections, client.hold) = (20, Some(Duration::from_millis(200)));
    let progress = Arc::<Progress>::default();
    let seen = progress.clone();
    let held = tokio::spawn(async move { client.run(progress, CancellationToken::new()).await });
    while seen.seen().held < 20 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let report = held.await.unwrap().unwrap();
    let held = report.held.unwrap();
    assert_eq!((held.lost, held.lasting), (20, 0));
    assert!(!report.is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn held_connections_last_until_the_client_is_stopped() {
    let (target, _stop) = serve(named("fish"), "127.0.0.1", Transport::Tcp);
    let mut client = Client::new(target);
    (client.connections, client.hold) = (20, Some(Duration::from_secs(3600)));
    let (progress, stop) = (Arc::<Progress>::default(), CancellationToken::new());
    let running = tokio::spawn({
        let (progress, stop) = (progress.clone(), stop.clone());
        async move { client.run(progress, stop).await }
    });
    while progress.seen().held < 20 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.held.unwrap().lasting, 20);
    assert!(report.is_success());
}

fn watch(target: SocketAddr, transport: Transport, flows: u64) -> Watch {
    Watch {
        transport,
        flows,
        interval: Duration::from_millis(20),
        stall: Duration::from_millis(100),
        duration: Some(Duration::from_millis(400)),
        ..Watch::new(target)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_nothing_happens_to_all_last() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let (target, _stop) = serve(named("fish"), "127.0.0.1", transport);
        let watch = watch(target, transport, 50);
        let report = watch
            .run(Arc::default(), CancellationToken::new(), |_| ())
            .await
            .unwrap();
        assert!(report.is_success(), "{report:?}");
        assert_eq!(report.hosts["fish"].lasting, 50);
        assert!(report.exchanges >= 50 && report.events.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_and_refused_flows_are_told_when_it_happens() {
    let (target, stop) = serve(named("fish"), "127.0.0.1", Transport::Tcp);
    let gauge = Arc::<Gauge>::default();
    let seen = gauge.clone();
    let ending = tokio::spawn(async move {
        while !seen.all_tried(10) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    });
    let mut told = 0;
    let watch = watch(target, Transport::Tcp, 10);
    let report = watch
        .run(gauge, CancellationToken::new(), |_| told += 1)
        .await
        .unwrap();
    ending.await.unwrap();
    // A question that crosses the end is answered with a reset.
    assert_eq!((report.closed + report.reset, report.lasting), (10, 0));
    assert_eq!(told, 10);
    assert_eq!(report.hosts["fish"].lost, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_pauses_resumes_and_one_that_another_answers_has_moved() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let watch = watch(server.local_addr().unwrap(), Transport::Udp, 1);
    let answers = tokio::spawn(async move {
        let mut bytes = [0; 16];
        for number in 0.. {
            let (_, from) = server.recv_from(&mut bytes).await.unwrap();
            // Silent for the second and third question; another name from then on.
            let name: Option<&[u8]> = match number {
                0 => Some(b"a"),
                1 | 2 => None,
                _ => Some(b"b"),
            };
            if let Some(name) = name {
                server.send_to(name, from).await.unwrap();
            }
        }
    });
    let report = watch
        .run(Arc::default(), CancellationToken::new(), |_| ())
        .await
        .unwrap();
    answers.abort();
    let happened: Vec<_> = report.events.iter().map(|event| &event.happened).collect();
    assert!(matches!(happened[0], Happened::Stalled), "{happened:?}");
    assert!(
        matches!(happened[1], Happened::Resumed { after } if *after >= Duration::from_millis(200))
    );
    assert!(matches!(happened[2], Happened::Moved { to } if to == "b"));
    assert_eq!((report.moved, report.resumed, report.lasting), (1, 1, 0));
}
