//! Requests, settings and bytes that make no sense.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::Duration;

use carrick_proto::connection::monitor_connection_client::MonitorConnectionClient;
use carrick_proto::connection::{Mechanism, MonitorScopeSelector, Path, PathSegment};
use carrick_proto::connectioncontext::{ConnectionContext, IpContext, Route};
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_tests::{Lab, ip};
use tonic::Code::InvalidArgument;

use crate::site::Site;
use crate::wire::{Caller, connection, parameters, refresh, segment};

type Spoil = fn(&mut NetworkServiceRequest);

fn path(request: &mut NetworkServiceRequest) -> &mut Path {
    connection(request).path.as_mut().unwrap()
}

fn ip_context(request: &mut NetworkServiceRequest, ip: IpContext) {
    connection(request).context = Some(ConnectionContext {
        ip_context: Some(ip),
        ..ConnectionContext::default()
    });
}

fn source(address: &str) -> IpContext {
    IpContext {
        src_ip_addrs: vec![address.into()],
        ..IpContext::default()
    }
}

/// What can be wrong with a Request, and the field that the answer names.
const SPOILED: &[(&str, Spoil, &str)] = &[
    ("no connection", |r| r.connection = None, "connection"),
    (
        "no service",
        |r| connection(r).network_service.clear(),
        "network_service",
    ),
    (
        "a long service",
        |r| connection(r).network_service = "x".repeat(600),
        "network_service",
    ),
    ("a long id", |r| connection(r).id = "x".repeat(600), "id"),
    (
        "a long endpoint name",
        |r| {
            connection(r).network_service_endpoint_name = "x".repeat(600);
        },
        "network_service_endpoint_name",
    ),
    (
        "a long client name",
        |r| segment(r).name = "x".repeat(600),
        "path_segments[0].name",
    ),
    (
        "a long label",
        |r| {
            connection(r)
                .labels
                .insert("app".into(), "x".repeat(70_000));
        },
        "labels",
    ),
    ("an unknown state", |r| connection(r).state = 77, "state"),
    (
        "an index past the end",
        |r| {
            path(r).index = u32::try_from(path(r).path_segments.len()).unwrap();
        },
        "path.index",
    ),
    (
        "an index far past the end",
        |r| path(r).index = u32::MAX,
        "path.index",
    ),
    (
        "65 segments",
        |r| {
            path(r).path_segments = vec![PathSegment::default(); 65];
        },
        "path_segments",
    ),
    (
        "64 segments, so that there is no room",
        |r| {
            let segments = vec![segment(r).clone(); 64];
            *path(r) = Path {
                index: 63,
                path_segments: segments,
            };
        },
        "path_segments",
    ),
    (
        "an id that is not the segment's",
        |r| connection(r).id = "other".into(),
        "connection.id",
    ),
    (
        "no end of the token",
        |r| segment(r).expires = None,
        "expiration",
    ),
    (
        "no mechanism",
        |r| r.mechanism_preferences.clear(),
        "mechanism",
    ),
    (
        "an unknown mechanism",
        |r| {
            r.mechanism_preferences[0].r#type = "PIGEON".into();
        },
        "PIGEON",
    ),
    (
        "an empty mechanism",
        |r| {
            r.mechanism_preferences = vec![Mechanism::default()];
        },
        "mechanism",
    ),
    (
        "a tunnel without its addresses",
        |r| {
            r.mechanism_preferences[0].r#type = "VXLAN".into();
        },
        "src_ip",
    ),
    (
        "another node",
        |r| {
            parameters(r).insert("nodeName".into(), "mars".into());
        },
        "nodeName",
    ),
    (
        "an address that is none",
        |r| ip_context(r, source("300.1.1.1/32")),
        "src_ip_addrs[0]",
    ),
    (
        "a prefix too long",
        |r| ip_context(r, source("10.0.0.1/33")),
        "src_ip_addrs[0]",
    ),
    (
        "a route to nowhere",
        |r| {
            let route = Route {
                prefix: "nowhere".into(),
                next_hop: String::new(),
            };
            ip_context(
                r,
                IpContext {
                    src_routes: vec![route],
                    ..IpContext::default()
                },
            );
        },
        "src_routes[0]",
    ),
    (
        "an MTU too small",
        |r| {
            let context = ConnectionContext {
                mtu: 1,
                ..ConnectionContext::default()
            };
            connection(r).context = Some(context);
        },
        "MTU",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_is_refused_with_the_field_and_leaves_nothing() {
    let mut site = Site::one().await;
    site.lab.pod("eve").await;
    let caller = Caller::new(&site.lab, "nse").await;
    let before = site.held("nse").await;
    for (what, spoil, field) in SPOILED {
        let mut wanted = caller.wanted("eve", site.lab.pod("eve").await);
        spoil(&mut wanted);
        caller
            .refused(what, wanted, InvalidArgument, &[field])
            .await;
    }
    site.holds_again("nse", &before).await;
    assert!(ip::interfaces(site.lab.pod("eve").await).is_empty());
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_refresh_leaves_the_connection_as_it_was() {
    let mut site = Site::one().await;
    site.lab.pod("eve").await;
    let caller = Caller::new(&site.lab, "nse").await;
    let wanted = caller.wanted("eve", site.lab.pod("eve").await);
    let answer = caller.request(wanted).await.unwrap();
    let before = site.held("nse").await;
    let spoils = SPOILED
        .iter()
        .filter(|(what, ..)| !what.contains("mechanism"));
    let spoils = spoils
        .filter(|(what, ..)| !["a tunnel without its addresses", "another node"].contains(what));
    for (what, spoil, field) in spoils {
        let mut wanted = refresh(&answer);
        spoil(&mut wanted);
        caller
            .refused(what, wanted, InvalidArgument, &[field])
            .await;
        assert_eq!(site.held("nse").await, before, "{what}");
    }
    let again = caller.request(refresh(&answer)).await.unwrap();
    assert_eq!(again.context, answer.context);
    caller.close(again).await.unwrap();
    site.lost_nothing().await;
}

/// 64 KiB that mean nothing, the same in each run.
fn garbage() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(65_536).collect()
}

/// Writes until the other end has enough, and reads what it says to it.
fn pour(mut stream: impl Read + Write, bytes: &[u8]) {
    for part in bytes.chunks(4096) {
        if stream.write_all(part).is_err() {
            return;
        }
    }
    let _ = stream.read(&mut [0; 4096]);
}

const LIMIT: Option<Duration> = Some(Duration::from_millis(300));

fn tcp(address: (std::net::IpAddr, u16)) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(LIMIT).unwrap();
    stream.set_write_timeout(LIMIT).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_the_grpc_port_harms_nobody() {
    let mut site = Site::one().await;
    site.lab.pod("eve").await;
    let before = site.held("nse").await;
    let bytes = garbage();
    // What HTTP/2 begins with, so that the rest gets further.
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), bytes.clone()].concat();
    let (node, port) = (site.lab.node("one"), 5002);
    for bytes in [&bytes, &preface] {
        let unix = UnixStream::connect(site.lab.socket("nse")).unwrap();
        unix.set_read_timeout(LIMIT).unwrap();
        unix.set_write_timeout(LIMIT).unwrap();
        pour(unix, bytes);
        for port in [port, 5006] {
            let address = (node.address.into(), port);
            node.namespace.within(|| pour(tcp(address), bytes));
        }
    }
    let caller = Caller::new(&site.lab, "nse").await;
    let wanted = caller.wanted("eve", site.lab.pod("eve").await);
    let answer = caller.request(wanted).await.unwrap();
    caller.close(answer).await.unwrap();
    site.holds_again("nse", &before).await;
    for program in ["nse", "ipam", "registry"] {
        assert!(site.lab.is_ready(program).await, "{program}");
    }
    site.lost_nothing().await;
}

/// A DNS query (RFC 1035 §4.1) for the IPv4 address of `ant.vl3`.
const QUERY: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03ant\x03vl3\x00\x00\x01\x00\x01";

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_the_dns_port_harms_nobody() {
    let mut site = Site::one().await;
    let server = site.lab.status("nsc-ant").await.unwrap();
    let server = server["connections"][0]["dst_addrs"][0].as_str().unwrap();
    let server: std::net::IpAddr = server.split('/').next().unwrap().parse().unwrap();
    let bytes = garbage();
    let known = site.lab.address("ant").await.to_string();
    let answer = site.lab.pod("ant").await.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((server, 53)).unwrap();
        for length in [0, 1, 11, 12, 13, 512, 1400, 65_507] {
            socket.send(&bytes[..length]).unwrap();
        }
        // Headers that promise more than there is.
        for cut in 0..QUERY.len() {
            let mut query = [&QUERY[..cut], &bytes[..40]].concat();
            query[4..12].fill(0xff);
            socket.send(&query).unwrap();
        }
        let length = u16::try_from(QUERY.len()).unwrap().to_be_bytes();
        pour(tcp((server, 53)), &bytes);
        pour(tcp((server, 53)), &[&[0xff, 0xff], &bytes[..]].concat());
        pour(tcp((server, 53)), &length);
        let mut stream = tcp((server, 53));
        stream.write_all(&[&length, QUERY].concat()).unwrap();
        let mut answer = [0; 512];
        let over_tcp = stream.read(&mut answer).unwrap();
        assert!(over_tcp > 2 + QUERY.len(), "{:?}", &answer[..over_tcp]);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        socket.send_to(QUERY, (server, 53)).unwrap();
        let length = socket.recv(&mut answer).unwrap();
        answer[length - 4..length].to_vec()
    });
    let answer: Vec<String> = answer.iter().map(u8::to_string).collect();
    assert_eq!(answer.join("."), known);
    site.lost_nothing().await;
}

/// Resident memory of a program in KiB (proc(5), `VmRSS`).
fn memory(lab: &Lab, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.pid(name))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_never_reads_costs_nobody_anything() {
    let mut site = Site::one().await;
    site.lab.pod("eve").await;
    let caller = Caller::new(&site.lab, "nse").await;
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut client =
            MonitorConnectionClient::new(Caller::new(&site.lab, "nse").await.channel());
        let events = client
            .monitor_connections(MonitorScopeSelector::default())
            .await;
        deaf.push(events.unwrap().into_inner());
    }
    let mut wanted = caller.wanted("eve", site.lab.pod("eve").await);
    let labels = (0..40).map(|n| (format!("label-{n}"), "x".repeat(100)));
    connection(&mut wanted).labels.extend(labels);
    let mut answer = caller.request(wanted).await.unwrap();
    let mut churn = async |count: u32| {
        for number in 0..count {
            let mut wanted = refresh(&answer);
            connection(&mut wanted)
                .labels
                .insert("turn".into(), number.to_string());
            answer = caller.request(wanted).await.unwrap();
        }
    };
    churn(100).await;
    let before = memory(&site.lab, "nse");
    churn(400).await;
    let after = memory(&site.lab, "nse");
    println!("8 deaf monitors, 400 refreshes: {before} KiB, {after} KiB");
    // 400 events of 8 subscribers would be 16 MiB.
    assert!(after < before + 8192, "{before} KiB became {after} KiB");
    let mut client = MonitorConnectionClient::new(caller.channel());
    let events = client
        .monitor_connections(MonitorScopeSelector::default())
        .await;
    let first = events
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.connections.len(), 3);
    drop(deaf);
    caller.close(answer).await.unwrap();
    site.lost_nothing().await;
}

/// Runs a program with these settings and nothing else, until it ends by itself.
fn ends(args: &[&str], env: &[(&str, &str)]) -> Output {
    let env: BTreeMap<_, _> = env.iter().copied().collect();
    let mut command = Command::new(Lab::binary());
    command.args(args).env_clear().envs(env);
    command.output().unwrap()
}

#[tokio::test]
async fn every_mistake_in_the_settings_is_told_at_once_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    let programs: [(&str, &[(&str, &str)]); 4] = [
        (
            "nse",
            &[
                ("NSM_NAME", ""),
                ("CARRICK_PREFIXES", "10.0.0.0/24,10.0.0.128/25"),
                ("CARRICK_NETWORKS", "10.0.0.0/33"),
                ("CARRICK_EXCLUDED_PREFIXES", "ten"),
                ("NSM_DIAL_TIMEOUT", "soon"),
                ("CARRICK_UNDERLAY_MTU", "9"),
                ("CARRICK_ROUTER", "a/b"),
                ("NSM_SERVICE_NAMES", ","),
            ],
        ),
        (
            "ipam",
            &[
                ("NSM_PREFIX", "10.0.0.0/16,10.0.1.0/24"),
                ("NSM_CLIENT_PREFIX_LEN", "129"),
                ("CARRICK_LEASE", "-1s"),
            ],
        ),
        (
            "nsc",
            &[
                ("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1,memif://vl3/x"),
                ("NSM_REQUEST_TIMEOUT", "0s"),
                ("NSM_MECHANISM", "PIGEON"),
            ],
        ),
        (
            "registry",
            &[
                ("NSM_LISTEN_ON", "gopher://here"),
                ("NSM_INSECURE", "perhaps"),
            ],
        ),
    ];
    for (program, settings) in programs {
        let mut env = settings.to_vec();
        env.push(("CARRICK_STATE_DIR", &state));
        let output = ends(&[program], &env);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{program}: {told}");
        for (name, value) in settings {
            assert!(told.contains(name), "{program}: no {name} in {told}");
            let value = value.split(',').next_back().unwrap();
            assert!(told.contains(value), "{program}: no {value} in {told}");
        }
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "{program}"
        );
    }
}
