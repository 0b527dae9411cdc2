use std::net::{IpAddr, SocketAddr};

use super::{Hook, Kernel, Options, Program};
use crate::dataplane::{
    Dataplane, Local, Plan, PutServer, PutService, PutVip, ServerNumber, ServiceNumber, Slots,
    VipNumber,
};
use crate::packet::{Ip, Packet, TcpFlags};
use crate::service::{
    Identity, IdleTimeouts, Mode, OnEmpty, Policy, Server, ServerId, Snat, TableSize, Vip,
};
use crate::tables::Sizes;

/// Whether this process may load programs; tests that need it pass without.
fn privileged() -> bool {
    rustix::process::geteuid().is_root()
}

fn sizes() -> Sizes {
    Sizes {
        cpus: Program::sizes_here(1_024, 128).unwrap().cpus,
        fixed_clock: 0,
        // A hundred flows shall all find a place, with hardly a doubt.
        buckets4: 1_024,
        ..Sizes::small()
    }
}

fn open() -> Kernel {
    let options = Options {
        attach: Vec::new(),
        pins: None,
        sizes: sizes(),
        flow_rate: None,
        mtu: None,
        journal: true,
    };
    Kernel::open(&options).unwrap()
}

const CLIENT: &str = "192.0.2.7:40000";
const VIP: &str = "10.0.0.1:80";

fn plan(mode: &Mode, servers: u16) -> Plan {
    let service = ServiceNumber::new(1).unwrap();
    let numbers: Vec<ServerNumber> = (1..=servers)
        .map(|n| ServerNumber::new(n).unwrap())
        .collect();
    let slots = Slots::new(numbers.iter().copied());
    Plan {
        local: Some(Local {
            v4: Some([10, 1, 0, 254].into()),
            v6: None,
        }),
        put_servers: numbers
            .iter()
            .map(|number| PutServer {
                number: *number,
                service,
                identity: Identity::of(&["web", &number.to_string()]),
                server: Server {
                    weight: 1,
                    ..Server::new(
                        ServerId::new(number.to_string()).unwrap(),
                        IpAddr::from([10, 1, 0, u8::try_from(number.get()).unwrap()]),
                    )
                },
                mode: mode.clone(),
            })
            .collect(),
        put_services: vec![PutService {
            number: service,
            name: "web".parse().unwrap(),
            identity: Identity::of(&["web"]),
            policy: Policy::default(),
            mode: mode.clone(),
            on_empty: OnEmpty::Reject,
            affinity: None,
            idle: IdleTimeouts::default(),
            ring: slots.clone(),
            hash: slots,
        }],
        put_vips: vec![PutVip {
            number: VipNumber::new(1).unwrap(),
            identity: Identity::of(&["web", "vip"]),
            vip: Vip::all("10.0.0.1/32".parse().unwrap()),
            service,
        }],
        ..Plan::default()
    }
}

fn syn(client: &str) -> Packet {
    let [client, vip]: [SocketAddr; 2] = [client.parse().unwrap(), VIP.parse().unwrap()];
    Packet::tcp(client, vip, TcpFlags::SYN)
}

fn run(kernel: &Kernel, packet: &Packet) -> Vec<u8> {
    let frame = packet.frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    kernel.program().run(&frame).unwrap().frame
}

fn destination(frame: &[u8]) -> IpAddr {
    let [a, b, c, d] = frame[30..34].try_into().unwrap();
    IpAddr::from([a, b, c, d])
}

#[test]
fn the_program_loads_at_every_hook() {
    if !privileged() {
        return;
    }
    for hook in [Hook::Xdp, Hook::Tc] {
        Program::load(hook, Sizes::small()).unwrap();
    }
}

#[test]
fn a_connection_is_wrapped_for_one_server_and_stays_there() {
    if !privileged() {
        return;
    }
    let mut kernel = open();
    kernel.apply(&plan(&Mode::Ipip, 3)).unwrap();
    let frame = run(&kernel, &syn(CLIENT));
    assert_eq!(frame[23], 4, "IP in IP");
    let server = destination(&frame);
    assert_eq!(&frame[34..], &syn(CLIENT).encode()[..]);
    for _ in 0..5 {
        assert_eq!(destination(&run(&kernel, &syn(CLIENT))), server);
    }
    let statistics = kernel.statistics().unwrap();
    assert_eq!(statistics.vips[&VipNumber::new(1).unwrap()].packets, 6);
    assert_eq!(statistics.reasons["new_flow"], 1);
}

#[test]
fn connections_are_spread_evenly() {
    if !privileged() {
        return;
    }
    let mut kernel = open();
    kernel.apply(&plan(&Mode::Ipip, 4)).unwrap();
    for port in 0..80 {
        run(&kernel, &syn(&format!("192.0.2.7:{}", 1000 + port)));
    }
    let statistics = kernel.statistics().unwrap();
    for counters in statistics.servers.values() {
        assert_eq!((counters.total.flows, counters.live), (20, 20));
    }
}

#[test]
fn a_translated_answer_comes_from_the_vip() {
    if !privileged() {
        return;
    }
    let mut kernel = open();
    let mut plan = plan(&Mode::Nat { snat: Snat::Never }, 1);
    plan.put_servers[0].server.port = Some(8080);
    kernel.apply(&plan).unwrap();
    let request = Packet::decode(&run(&kernel, &syn(CLIENT))[14..]).unwrap();
    let server: SocketAddr = "10.1.0.1:8080".parse().unwrap();
    assert_eq!(
        request.encode(),
        Packet::tcp(CLIENT.parse().unwrap(), server, TcpFlags::SYN).encode()
    );
    let flags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
    let answer = Packet::tcp(server, CLIENT.parse().unwrap(), flags);
    let answer = run(&kernel, &answer);
    let expected = Packet::tcp(VIP.parse().unwrap(), CLIENT.parse().unwrap(), flags);
    assert_eq!(&answer[14..], &expected.encode()[..]);
}

#[test]
fn a_service_without_servers_resets() {
    if !privileged() {
        return;
    }
    let mut kernel = open();
    kernel.apply(&plan(&Mode::Ipip, 0)).unwrap();
    let frame = run(&kernel, &syn(CLIENT));
    let packet = Packet::decode(&frame[14..]).unwrap();
    let Ip::V4(ip) = &packet.ip else {
        panic!("{packet:?}")
    };
    assert_eq!(ip.source.to_string(), "10.0.0.1");
    assert_eq!(frame[14 + 20 + 13], TcpFlags::RST.0 | TcpFlags::ACK.0);
}

#[test]
fn a_thousand_servers_change_within_milliseconds() {
    if !privileged() {
        return;
    }
    let sizes = Sizes {
        servers: 2048,
        slots: 1 << 20,
        ..sizes()
    };
    let mut kernel = Kernel::open(&Options {
        attach: Vec::new(),
        pins: None,
        sizes,
        flow_rate: None,
        mtu: None,
        journal: true,
    })
    .unwrap();
    let service = ServiceNumber::new(1).unwrap();
    let mut plan = plan(&Mode::Ipip, 1);
    let template = plan.put_servers[0].clone();
    plan.put_servers = (1..=1000)
        .map(|n| PutServer {
            number: ServerNumber::new(n).unwrap(),
            ..template.clone()
        })
        .collect();
    let all = || (1..=1000).map(|n| ServerNumber::new(n).unwrap());
    plan.put_services[0].hash = Slots::new(all().cycle().take(65_537));
    plan.put_services[0].ring = Slots::new(all());
    kernel.apply(&plan).unwrap();
    assert_eq!(plan.put_services[0].number, service);
    plan.put_servers.clear();
    plan.put_vips.clear();
    plan.put_services[0].policy = Policy::Maglev {
        size: TableSize::default(),
    };
    plan.put_services[0].hash = Slots::new(all().cycle().skip(1).take(65_537));
    let started = std::time::Instant::now();
    kernel.apply(&plan).unwrap();
    let took = started.elapsed();
    // Five milliseconds where nothing else runs; tests run beside each other, unoptimised.
    assert!(took.as_millis() < 100, "{took:?}");
}
