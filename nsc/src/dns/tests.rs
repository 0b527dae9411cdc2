//! The pod's name server between servers on loopback.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use carrick_types::{Connection, ConnectionId, IfName, ServiceName};
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use super::forward::{read_framed, write_framed};
use super::*;
use crate::{ConnectionState, ConnectionStatus, DnsStatus};

const PATIENCE: Duration = Duration::from_secs(20);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(127, 0, 53, 2);
const FORMER: Ipv4Addr = Ipv4Addr::new(127, 0, 53, 3);
const FILE: &str = "search cluster.local\nnameserver 127.0.53.3\noptions ndots:5\n";

/// A server that has one name, by UDP and TCP, and remembers what it was asked.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<BTreeSet<String>>>);

impl Fake {
    async fn start(address: Ipv4Addr, port: u16, name: &'static str) -> Self {
        let fake = Self::default();
        let udp = UdpSocket::bind((address, port)).await.unwrap();
        let tcp = TcpListener::bind((address, port)).await.unwrap();
        let (by_udp, by_tcp) = (fake.clone(), fake.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                let answer = by_udp.answer(&buffer[..length], address, name);
                udp.send_to(&answer, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let question = read_framed(&mut stream).await.unwrap();
                let answer = by_tcp.answer(&question, address, name);
                write_framed(&mut stream, &answer).await.unwrap();
            }
        });
        fake
    }

    fn answer(&self, question: &[u8], address: Ipv4Addr, name: &str) -> Vec<u8> {
        let mut message = Message::from_vec(question).unwrap();
        let asked = message.queries[0].name().clone();
        self.0.lock().unwrap().insert(asked.to_ascii());
        message.metadata.message_type = MessageType::Response;
        if asked.to_ascii() == name {
            message.add_answer(Record::from_rdata(asked, 60, RData::A(A(address))));
        } else {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        message.to_vec().unwrap()
    }
}

/// What is run, and the file that it changes.
struct Place {
    dir: tempfile::TempDir,
    port: u16,
    status: watch::Sender<Status>,
    stop: CancellationToken,
}

impl Place {
    async fn new() -> Self {
        let free = TcpListener::bind((FORMER, 0)).await.unwrap();
        let port = free.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("resolv.conf"), FILE).unwrap();
        let status = Status {
            name: "nsc".into(),
            connections: vec![connection(&[])],
        };
        Self {
            dir,
            port,
            status: watch::Sender::new(status),
            stop: CancellationToken::new(),
        }
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("resolv.conf")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    fn start(&self, switch: Switch) -> JoinHandle<()> {
        let dns = LocalDns {
            switch,
            listen: (Ipv4Addr::LOCALHOST, self.port).into(),
            resolv_conf: self.file(),
        };
        let (status, stop) = (self.status.subscribe(), self.stop.clone());
        let port = self.port;
        tokio::spawn(async move { dns.run_with(status, stop, port).await })
    }

    fn bring(&self, domains: &[&str]) {
        let connection = connection(domains);
        self.status
            .send_modify(|status| status.connections = vec![connection]);
    }

    async fn until(&self, is_so: impl Fn(&str) -> bool) {
        let looked = async {
            let mut looks = interval(Duration::from_millis(5));
            while !is_so(&self.text()) {
                looks.tick().await;
            }
        };
        timeout(PATIENCE, looked).await.expect("it comes to be");
    }

    fn question(name: &str) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    /// The code and the address that the pod's name server answers.
    async fn by_udp(&self, name: &str) -> (ResponseCode, Option<Ipv4Addr>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket
            .connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .unwrap();
        socket.send(&Self::question(name)).await.unwrap();
        let mut buffer = [0; 512];
        let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap();
        read(&buffer[..length.unwrap()])
    }

    async fn by_tcp(&self, name: &str) -> (ResponseCode, Option<Ipv4Addr>) {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await;
        let mut stream = stream.unwrap();
        write_framed(&mut stream, &Self::question(name))
            .await
            .unwrap();
        let answer = timeout(PATIENCE, read_framed(&mut stream)).await.unwrap();
        read(&answer.unwrap())
    }
}

fn read(answer: &[u8]) -> (ResponseCode, Option<Ipv4Addr>) {
    let message = Message::from_vec(answer).unwrap();
    assert_eq!(message.metadata.id, 7);
    let address = message.answers.first().map(|record| match &record.data {
        RData::A(A(address)) => *address,
        other => panic!("{other:?}"),
    });
    (message.metadata.response_code, address)
}

fn connection(domains: &[&str]) -> ConnectionStatus {
    let (id, service) = (ConnectionId::new("nsc-0"), ServiceName::new("vl3"));
    let wanted = Connection::new(id.unwrap(), service.unwrap());
    let interface = IfName::new("nsm-1").unwrap();
    let dns = DnsStatus {
        server_ips: vec![ENDPOINT.into()],
        search_domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
    };
    ConnectionStatus {
        state: ConnectionState::Up,
        dns: Some(dns)
            .filter(|_| !domains.is_empty())
            .into_iter()
            .collect(),
        ..ConnectionStatus::new(&wanted, &interface, SystemTime::now())
    }
}

#[tokio::test]
async fn names_are_asked_where_they_are_and_the_file_is_as_before_in_the_end() {
    let place = Place::new().await;
    let endpoint = Fake::start(ENDPOINT, place.port, "pod.vl3.").await;
    let former = Fake::start(FORMER, place.port, "example.net.").await;
    let task = place.start(Switch::On);
    place.bring(&["vl3"]);
    place
        .until(|text| text.contains("\nsearch cluster.local vl3\n"))
        .await;
    assert_eq!(
        resolv::servers(&place.text()),
        [IpAddr::from(Ipv4Addr::LOCALHOST)]
    );

    let found = (ResponseCode::NoError, Some(ENDPOINT));
    assert_eq!(place.by_udp("pod.vl3.").await, found);
    assert_eq!(place.by_tcp("pod.vl3.").await, found);
    assert!(former.0.lock().unwrap().is_empty());
    let outside = (ResponseCode::NoError, Some(FORMER));
    assert_eq!(place.by_udp("example.net.").await, outside);
    assert_eq!(place.by_tcp("example.net.").await, outside);
    assert!(!endpoint.0.lock().unwrap().contains("example.net."));
    assert_eq!(
        place.by_udp("no.vl3.").await,
        (ResponseCode::NXDomain, None)
    );

    place.bring(&[]);
    place.until(|text| text == FILE).await;
    place.bring(&["other"]);
    place
        .until(|text| text.contains("search cluster.local other\n"))
        .await;
    place.stop.cancel();
    task.await.unwrap();
    assert_eq!(place.text(), FILE);
}

#[tokio::test]
async fn a_file_that_a_killed_process_left_is_restored_at_the_next_start() {
    let place = Place::new().await;
    let killed = place.start(Switch::On);
    place.bring(&["vl3"]);
    place.until(|text| text != FILE).await;
    killed.abort();
    assert!(killed.await.unwrap_err().is_cancelled());
    assert_ne!(place.text(), FILE);

    place.bring(&[]);
    let task = place.start(Switch::OwnFile);
    place.until(|text| text == FILE).await;
    place.stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn without_a_server_that_answers_a_question_fails_at_once_and_is_answered() {
    let place = Place::new().await;
    let task = place.start(Switch::On);
    place.bring(&["vl3"]);
    place.until(|text| text != FILE).await;
    // Nobody listens there, and loopback says so.
    assert_eq!(
        place.by_udp("pod.vl3.").await,
        (ResponseCode::ServFail, None)
    );
    place.stop.cancel();
    task.await.unwrap();
}

/// Guards `Switch::OwnFile`: without it a machine's file would be changed.
#[tokio::test]
async fn a_file_that_is_not_the_containers_own_is_changed_only_if_that_is_said() {
    let place = Place::new().await;
    place.bring(&["vl3"]);
    for switch in [Switch::OwnFile, Switch::Off] {
        let ended = timeout(PATIENCE, place.start(switch)).await;
        ended.expect("it leaves it alone").unwrap();
        assert_eq!(place.text(), FILE);
    }
}

#[tokio::test]
async fn an_address_that_is_taken_or_a_file_that_cannot_be_read_changes_nothing() {
    let place = Place::new().await;
    place.bring(&["vl3"]);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, place.port))
        .await
        .unwrap();
    let ended = timeout(PATIENCE, place.start(Switch::On)).await;
    ended.expect("it goes without").unwrap();
    assert_eq!(place.text(), FILE);
    drop(taken);
    let missing = LocalDns {
        switch: Switch::On,
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        resolv_conf: Path::new("/nowhere/resolv.conf").into(),
    };
    missing
        .run(place.status.subscribe(), place.stop.clone())
        .await;
}
