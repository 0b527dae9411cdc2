use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use carrick_agent::Netns;
use carrick_types::{ConnectionId, EndpointName};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::peers::{Domain, Link, PeerId};
use crate::testing::LoopbackAgent;
use crate::{Vl3, Vl3Options};

/// An endpoint that serves names at 127.<net>.<n>.0, within 127.<net>.0.0/16.
struct Bed {
    vl3: Vl3,
    records: Records,
    server: SocketAddr,
    client: IpAddr,
    _stop: DropGuard,
}

fn ip(net: u8, n: u8, host: u8) -> IpAddr {
    IpAddr::from([127, net, n, host])
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn conn(text: &str) -> ConnectionId {
    ConnectionId::new(text).unwrap()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn bed(net: u8, n: u8, port: u16) -> Bed {
    bed_with(net, n, port, ResolverOptions::default()).await
}

async fn bed_with(net: u8, n: u8, port: u16, options: ResolverOptions) -> Bed {
    let vl3 = Vl3::new(Vl3Options::new(
        EndpointName::new(format!("nse-{n}")).unwrap(),
    ));
    vl3.set_prefixes(&[format!("127.{net}.{n}.0/24").parse().unwrap()]);
    let (records, agent) = (Records::default(), Arc::new(LoopbackAgent::default()));
    let options = ResolverOptions {
        zones: vec![name("vl3.")],
        ..options
    };
    let fanout = Fanout::new(agent.clone(), Netns::Own, port);
    let resolver = Arc::new(Resolver::new(vl3.clone(), records.clone(), fanout, options));
    let stop = CancellationToken::new();
    tokio::spawn(serve(
        resolver,
        agent,
        ServeAt::Own(Netns::Own, port),
        stop.clone(),
    ));
    let server = SocketAddr::new(ip(net, n, 0), port);
    let bed = Bed {
        vl3,
        records,
        server,
        client: ip(net, n, 9),
        _stop: stop.drop_guard(),
    };
    while bed
        .try_ask("x.invalid.", RecordType::A, bed.client)
        .await
        .is_none()
    {}
    bed
}

impl Bed {
    fn link_to(&self, net: u8, n: u8) {
        let peer = PeerId::new(
            EndpointName::new(format!("nse-{n}")).unwrap(),
            Domain::own(),
        );
        let connection = conn(&format!("to-{n}"));
        self.vl3.admit(&peer, &connection).unwrap();
        self.vl3.inbound_up(Link {
            addresses: vec![ip(net, n, 0)],
            ..Link::new(connection)
        });
    }

    fn publish(&self, owner: &str, text: &str, address: IpAddr) {
        self.records
            .publish(&conn(owner), vec![name(text)], vec![address])
            .unwrap();
    }

    async fn ask(&self, text: &str, kind: RecordType) -> Message {
        self.ask_from(text, kind, self.client).await
    }

    async fn ask_from(&self, text: &str, kind: RecordType, source: IpAddr) -> Message {
        self.try_ask(text, kind, source)
            .await
            .expect("the server answers")
    }

    /// Asks without the wish for recursion.
    async fn ask_here(&self, text: &str) -> Message {
        let mut bytes = question(text, RecordType::A);
        bytes[2] &= !1;
        self.put(&bytes, 5000).await.expect("the server answers")
    }

    async fn put(&self, question: &[u8], wait: u64) -> Option<Message> {
        let socket = UdpSocket::bind((self.client, 0)).await.unwrap();
        exchange(&socket, self.server, question, wait).await
    }

    async fn try_ask(&self, text: &str, kind: RecordType, source: IpAddr) -> Option<Message> {
        let socket = UdpSocket::bind((source, 0)).await.unwrap();
        let wait = if text == "x.invalid." { 50 } else { 5000 };
        exchange(&socket, self.server, &question(text, kind), wait).await
    }
}

async fn exchange(
    socket: &UdpSocket,
    server: SocketAddr,
    question: &[u8],
    wait: u64,
) -> Option<Message> {
    socket.send_to(question, server).await.unwrap();
    let mut buffer = [0; 4096];
    let received = timeout(Duration::from_millis(wait), socket.recv(&mut buffer)).await;
    Some(Message::from_vec(&buffer[..received.ok()?.ok()?]).unwrap())
}

fn question(text: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message.to_vec().unwrap()
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::from(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.0)),
        _ => None,
    };
    message
        .answers
        .iter()
        .filter_map(|record| address(&record.data))
        .collect()
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

#[tokio::test]
async fn a_workload_is_found_by_name_in_any_case_and_by_address() {
    let bed = bed(201, 1, free_port()).await;
    bed.publish("c", "pod.vl3.", ip(201, 1, 7));
    let found = bed.ask("POD.Vl3.", RecordType::A).await;
    assert_eq!(
        (addresses(&found), found.answers[0].ttl),
        (vec![ip(201, 1, 7)], 1)
    );
    assert!(found.metadata.authoritative);
    let reverse = bed.ask("7.1.201.127.in-addr.arpa.", RecordType::PTR).await;
    assert!(matches!(&reverse.answers[0].data, RData::PTR(ptr) if ptr.0 == name("pod.vl3.")));
}

#[tokio::test]
async fn what_is_not_there_is_denied_with_the_zones_soa() {
    let bed = bed(202, 1, free_port()).await;
    bed.publish("c", "pod.vl3.", ip(202, 1, 7));
    let other_type = bed.ask("pod.vl3.", RecordType::AAAA).await;
    assert_eq!(
        (code(&other_type), other_type.answers.len()),
        (ResponseCode::NoError, 0)
    );
    let unknown = bed.ask("nobody.vl3.", RecordType::A).await;
    assert_eq!(code(&unknown), ResponseCode::NXDomain);
    for message in [&other_type, &unknown] {
        assert_eq!(message.authorities[0].name, name("vl3."));
        assert_eq!(message.authorities[0].record_type(), RecordType::SOA);
    }
    let apex = bed.ask("vl3.", RecordType::SOA).await;
    assert_eq!(apex.answers[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn a_name_outside_our_zones_is_left_to_other_servers() {
    let bed = bed(203, 1, free_port()).await;
    assert_eq!(
        code(&bed.ask("example.org.", RecordType::A).await),
        ResponseCode::Refused
    );
    assert_eq!(
        code(&bed.ask("1.0.0.10.in-addr.arpa.", RecordType::PTR).await),
        ResponseCode::Refused
    );
}

#[tokio::test]
async fn a_workload_of_a_peer_is_found_and_gone_once_it_is_removed() {
    let port = free_port();
    let (near, far) = (bed(204, 1, port).await, bed(204, 2, port).await);
    near.link_to(204, 2);
    far.publish("c", "pod.vl3.", ip(204, 2, 7));
    let found = near.ask("pod.vl3.", RecordType::A).await;
    assert_eq!(
        (addresses(&found), found.answers[0].ttl),
        (vec![ip(204, 2, 7)], 1)
    );
    let reverse = near.ask("7.2.204.127.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(reverse.answers.len(), 1);
    assert_eq!(
        code(&near.ask("pod.vl3.", RecordType::AAAA).await),
        ResponseCode::NoError
    );
    far.records.remove(&conn("c"));
    assert_eq!(
        code(&near.ask("pod.vl3.", RecordType::A).await),
        ResponseCode::NXDomain
    );
}

#[tokio::test]
async fn a_question_of_a_peer_travels_no_further() {
    let port = free_port();
    let (near, far) = (bed(205, 1, port).await, bed(205, 2, port).await);
    near.link_to(205, 2);
    far.link_to(205, 1);
    far.publish("c", "pod.vl3.", ip(205, 2, 7));
    let of_peer = near
        .ask_from("pod.vl3.", RecordType::A, ip(205, 2, 0))
        .await;
    assert_eq!(code(&of_peer), ResponseCode::NXDomain);
    assert_eq!(
        code(&near.ask("nobody.vl3.", RecordType::A).await),
        ResponseCode::NXDomain
    );
}

#[tokio::test]
async fn a_question_that_desires_no_recursion_travels_no_further() {
    let port = free_port();
    let (near, far) = (bed(211, 1, port).await, bed(211, 2, port).await);
    near.link_to(211, 2);
    near.publish("c", "here.vl3.", ip(211, 1, 7));
    far.publish("c", "pod.vl3.", ip(211, 2, 7));
    assert_eq!(
        code(&near.ask_here("pod.vl3.").await),
        ResponseCode::NXDomain
    );
    assert_eq!(
        addresses(&near.ask_here("here.vl3.").await),
        [ip(211, 1, 7)]
    );
    assert_eq!(
        addresses(&near.ask("pod.vl3.", RecordType::A).await),
        [ip(211, 2, 7)]
    );
}

/// What keeps NSM's own endpoints from passing a question around among them.
#[tokio::test]
async fn all_peers_are_asked_with_one_id_and_without_the_wish_for_recursion() {
    let port = free_port();
    let bed = bed(212, 1, port).await;
    let mut peers = Vec::new();
    for n in [2, 3, 4] {
        bed.link_to(212, n);
        peers.push(UdpSocket::bind((ip(212, n, 0), port)).await.unwrap());
    }
    let heard = async {
        let mut heard = Vec::new();
        for peer in &peers {
            let mut buffer = [0; 512];
            let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = question.clone();
            answer.metadata.message_type = MessageType::Response;
            answer.metadata.response_code = ResponseCode::ServFail;
            peer.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            heard.push((question.metadata.id, question.metadata.recursion_desired));
        }
        heard
    };
    let (answer, heard) = tokio::join!(bed.ask("nobody.vl3.", RecordType::A), heard);
    // That is how NSM's own say no.
    assert_eq!(code(&answer), ResponseCode::NXDomain);
    assert_eq!(heard, [(heard[0].0, false); 3]);
}

#[tokio::test]
async fn a_question_beyond_the_bound_fails_at_once_and_reaches_no_peer() {
    let port = free_port();
    let options = ResolverOptions {
        max_fanouts: 1,
        ..ResolverOptions::default()
    };
    let bed = bed_with(213, 1, port, options).await;
    bed.link_to(213, 2);
    let silent = UdpSocket::bind((ip(213, 2, 0), port)).await.unwrap();
    let second = async {
        let mut buffer = [0; 512];
        silent.recv(&mut buffer).await.unwrap();
        // The first question is with the peer and is not answered.
        let answer = bed.ask("second.vl3.", RecordType::A).await;
        (answer, silent.try_recv(&mut buffer).is_err())
    };
    let (first, (second, alone)) = tokio::join!(bed.ask("first.vl3.", RecordType::A), second);
    assert_eq!(code(&first), ResponseCode::ServFail);
    assert_eq!((code(&second), alone), (ResponseCode::ServFail, true));
}

#[tokio::test]
async fn peers_are_not_asked_again_at_once_for_a_name_that_nobody_has() {
    let port = free_port();
    let options = ResolverOptions {
        negative: Duration::from_secs(60),
        ..ResolverOptions::default()
    };
    let near = bed_with(214, 1, port, options).await;
    let far = bed(214, 2, port).await;
    near.link_to(214, 2);
    let asked = |bed: &Bed| {
        let cause = crate::Cause { cause: "no_name" };
        bed.vl3.metrics().dns_queries.get_or_create(&cause).get()
    };
    for _ in 0..5 {
        let denied = near.ask("nobody.vl3.", RecordType::A).await;
        assert_eq!(code(&denied), ResponseCode::NXDomain);
    }
    assert_eq!((asked(&near), asked(&far)), (5, 1));
}

#[tokio::test]
async fn an_address_outside_the_network_is_not_believed() {
    let port = free_port();
    let (near, far) = (bed(206, 1, port).await, bed(206, 2, port).await);
    near.link_to(206, 2);
    far.publish("c", "pod.vl3.", IpAddr::from([8, 8, 8, 8]));
    assert!(addresses(&near.ask("pod.vl3.", RecordType::A).await).is_empty());
}

#[tokio::test]
async fn while_a_peer_is_silent_an_unknown_name_is_not_denied() {
    let bed = bed(207, 1, free_port()).await;
    bed.link_to(207, 2);
    assert_eq!(
        code(&bed.ask("nobody.vl3.", RecordType::A).await),
        ResponseCode::ServFail
    );
}

#[tokio::test]
async fn names_are_served_over_tcp_too() {
    let bed = bed(208, 1, free_port()).await;
    bed.publish("c", "pod.vl3.", ip(208, 1, 7));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(bed.client, 0)).unwrap();
    let mut stream = socket.connect(bed.server).await.unwrap();
    let bytes = question("pod.vl3.", RecordType::A);
    stream
        .write_u16(bytes.len().try_into().unwrap())
        .await
        .unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(
        addresses(&Message::from_vec(&answer).unwrap()),
        [ip(208, 1, 7)]
    );
}

#[tokio::test]
async fn garbage_and_huge_packets_do_no_harm() {
    let bed = bed(209, 1, free_port()).await;
    bed.publish("c", "pod.vl3.", ip(209, 1, 7));
    let socket = UdpSocket::bind((bed.client, 0)).await.unwrap();
    let mut twice = question("pod.vl3.", RecordType::A);
    twice[5] = 2;
    for packet in [vec![], vec![0; 11], vec![0xff; 60_000], twice] {
        socket.send_to(&packet, bed.server).await.unwrap();
    }
    assert_eq!(
        addresses(&bed.ask("pod.vl3.", RecordType::A).await),
        [ip(209, 1, 7)]
    );
}

#[tokio::test]
async fn names_are_served_at_the_new_address_when_it_changes() {
    let port = free_port();
    let mut bed = bed(210, 1, port).await;
    bed.publish("c", "pod.vl3.", ip(210, 3, 7));
    bed.vl3.set_prefixes(&["127.210.3.0/24".parse().unwrap()]);
    bed.server = SocketAddr::new(ip(210, 3, 0), port);
    bed.client = ip(210, 3, 9);
    while bed
        .try_ask("x.invalid.", RecordType::A, bed.client)
        .await
        .is_none()
    {}
    assert_eq!(
        addresses(&bed.ask("pod.vl3.", RecordType::A).await),
        [ip(210, 3, 7)]
    );
}
