//! What holds for the kernel backend in-process and behind its socket.

use std::net::SocketAddr;
use std::sync::Arc;

use carrick_agent::{Agent, Change, Error, Kernel, LinkKind, Netns, Protocol, Side};
use carrick_tests::{Namespace, remove};
use carrick_types::Mtu;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::remote::Served;
use crate::rig::{OWNER, PATIENCE, Rig, chain, direct, id, in_time, ip, name, prefix, via};

/// Each test once with the backend itself, once through a socket.
macro_rules! both {
    ($($test:ident)*) => {
        mod kernel {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(Rig::new(Arc::new(Kernel::new().unwrap())).await).await;
            })*
        }

        mod remote {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let served = Served::new(Vec::new());
                super::$test(Rig::new(served.agent()).await).await;
            })*
        }
    };
}

both! {
    a_client_reaches_the_router_and_the_other_client
    the_hardware_addresses_are_computed_and_nobody_asks_for_them
    putting_again_what_is_there_loses_no_packet
    a_batch_that_fails_leaves_nothing_and_touches_nobody
    a_batch_that_fails_restores_what_it_had_changed
    a_new_backend_finds_the_links_of_a_former_one
    an_alias_that_is_not_ours_is_not_listed
    a_link_may_be_deleted_twice
    a_vanished_client_is_no_error_when_its_link_is_deleted
    addresses_routes_and_mtu_change_in_place
    a_link_moves_to_another_client_namespace
    large_transfers_pass_a_small_mtu
    sockets_are_bound_inside_a_namespace
    what_no_link_claims_is_unreachable
    two_endpoints_dress_one_end_each
    a_deleted_router_is_gone_with_its_links
    a_name_left_by_a_crash_is_repaired
    what_is_no_namespace_is_refused
    a_namespace_is_found_by_its_inode
}

#[test]
fn a_node_with_root_can_do_everything() {
    carrick_tests::require_root();
    let missing: Vec<_> = carrick_agent::preflight()
        .into_iter()
        .filter(|capability| !capability.is_there())
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

async fn a_client_reaches_the_router_and_the_other_client(rig: Rig) {
    let (one, two) = (Namespace::new("one"), Namespace::new("two"));
    rig.put(&rig.link(1, one.foreign())).await.unwrap();
    rig.put(&rig.link(2, two.foreign())).await.unwrap();
    for (source, targets) in [
        ("10.0.0.1", ["10.0.0.0", "10.0.0.2"]),
        ("fd00::1", ["fd00::", "fd00::2"]),
    ] {
        for target in targets {
            assert!(rig.pings(&one.foreign(), source, target).await, "{target}");
        }
    }
    let router = rig.router.named();
    assert!(rig.pings(&router, "10.0.0.0", "10.0.0.1").await);
    assert!(rig.pings(&router, "fd00::", "fd00::2").await);
}

async fn the_hardware_addresses_are_computed_and_nobody_asks_for_them(rig: Rig) {
    let client = Namespace::new("client");
    let link = rig.link(1, client.foreign());
    rig.put(&link).await.unwrap();
    assert!(rig.pings(&client.foreign(), "10.0.0.1", "10.0.0.0").await);
    let neighbors = client
        .within(|| std::fs::read_to_string("/proc/thread-self/net/arp"))
        .unwrap();
    let mac = carrick_agent::hardware_address(&link.id, Side::Endpoint);
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let lines: Vec<_> = neighbors.lines().skip(1).collect();
    // 0x6: complete (0x2) and permanent (0x4).
    assert!(
        lines
            .iter()
            .all(|line| line.contains(&mac) && line.contains("0x6")),
        "{neighbors}"
    );
    assert_eq!(lines.len(), 1, "{neighbors}");
}

async fn putting_again_what_is_there_loses_no_packet(rig: Rig) {
    let client = Namespace::new("client");
    let link = rig.link(1, client.foreign());
    rig.put(&link).await.unwrap();
    let flood = rig.flood(&client, 1);
    for _ in 0..100 {
        let again = vec![rig.put_router(), Change::PutLink(Box::new(link.clone()))];
        rig.apply(again).await.unwrap();
    }
    let (sent, lost) = flood.end().await;
    assert!(sent > 100, "{sent} pings are no flood");
    assert_eq!(lost, 0, "of {sent}");
}

async fn a_batch_that_fails_leaves_nothing_and_touches_nobody(rig: Rig) {
    let (one, two) = (Namespace::new("one"), Namespace::new("two"));
    rig.put(&rig.link(1, one.foreign())).await.unwrap();
    let flood = rig.flood(&one, 1);
    for _ in 0..20 {
        let bad = rig.link(3, Netns::Path("/run/netns/carrick-test-nowhere".into()));
        let batch = vec![
            rig.put_router(),
            Change::PutLink(Box::new(rig.link(2, two.foreign()))),
            Change::PutLink(Box::new(bad)),
        ];
        let error = rig.apply(batch).await.unwrap_err();
        assert!(
            chain(&error).contains("carrick-test-nowhere"),
            "{}",
            chain(&error)
        );
        assert!(matches!(error, Error::NoNetns { .. }), "{error:?}");
    }
    let (sent, lost) = flood.end().await;
    assert!(sent > 100, "{sent} pings are no flood");
    assert_eq!(lost, 0, "of {sent}");
    let found = rig.list(OWNER).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let names = two
        .within(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
        .unwrap();
    assert!(!names.contains("nsm-1"), "{names}");
}

async fn a_batch_that_fails_restores_what_it_had_changed(rig: Rig) {
    let client = Namespace::new("client");
    let link = rig.link(1, client.foreign());
    rig.put(&link).await.unwrap();
    let before = rig.list(OWNER).await;
    let mut changed = link.clone();
    changed.mtu = Mtu::JUMBO;
    changed
        .near
        .routes
        .push(via("10.9.0.0/16", "10.0.0.1", None));
    let mut taken = rig.link(2, client.foreign());
    taken.near.name = link.near.name.clone();
    let LinkKind::Veth { far } = &mut taken.kind else {
        unreachable!("the rig makes veths")
    };
    far.name = name("nsm-2");
    let batch = vec![
        Change::PutLink(Box::new(changed)),
        Change::PutLink(Box::new(taken)),
    ];
    let error = rig.apply(batch).await.unwrap_err();
    assert!(
        chain(&error).contains(link.near.name.as_str()),
        "{}",
        chain(&error)
    );
    assert_eq!(rig.list(OWNER).await, before);
    assert!(rig.pings(&client.foreign(), "10.0.0.1", "10.0.0.0").await);
}

async fn a_new_backend_finds_the_links_of_a_former_one(rig: Rig) {
    let client = Namespace::new("client");
    let link = rig.link(1, client.foreign());
    let mut other = rig.link(2, client.foreign());
    other.owner = "x".repeat(200);
    let LinkKind::Veth { far } = &mut other.kind else {
        unreachable!("the rig makes veths")
    };
    far.name = name("nsm-2");
    rig.put(&link).await.unwrap();
    rig.put(&other).await.unwrap();

    let agent = Kernel::new().unwrap();
    let netns = rig.router.named();
    let found = agent.list(&netns, OWNER).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let found = &found[0];
    assert_eq!((&found.id, found.side), (&link.id, Side::Endpoint));
    assert_eq!((&found.name, found.mtu), (&link.near.name, 1500));
    assert_eq!(found.owner, OWNER);
    assert!(found.up);
    assert_eq!(found.routes, [prefix("10.0.0.1/32"), prefix("fd00::1/128")]);

    let found = agent.list(&netns, &other.owner).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(agent.list(&netns, "nobody").await.unwrap().is_empty());
    let nowhere = Netns::Named("carrick-test-nowhere".to_owned());
    assert!(agent.list(&nowhere, OWNER).await.unwrap().is_empty());
}

async fn an_alias_that_is_not_ours_is_not_listed(rig: Rig) {
    let client = Namespace::new("client");
    rig.put(&rig.link(1, client.foreign())).await.unwrap();
    rig.router.within(|| {
        for alias in ["carrick:", "carrick:e:nse-1", "carrick:q:nse-1:x", "uplink"] {
            let set = std::process::Command::new("ip")
                .args(["link", "set", "lo", "alias", alias])
                .status();
            assert!(
                set.is_ok_and(|status| status.success()),
                "ip(8) sets an alias"
            );
        }
    });
    assert_eq!(rig.list(OWNER).await.len(), 1);
}

async fn a_link_may_be_deleted_twice(rig: Rig) {
    let client = Namespace::new("client");
    let link = rig.link(1, client.foreign());
    rig.put(&link).await.unwrap();
    rig.delete(&link.id).await.unwrap();
    assert!(rig.list(OWNER).await.is_empty());
    rig.delete(&link.id).await.unwrap();
    rig.delete(&id("never-seen")).await.unwrap();
    rig.put(&link).await.unwrap();
    assert!(rig.pings(&client.foreign(), "10.0.0.1", "10.0.0.0").await);
}

async fn a_vanished_client_is_no_error_when_its_link_is_deleted(rig: Rig) {
    let client = Namespace::new("client");
    let link = rig.link(1, client.foreign());
    rig.put(&link).await.unwrap();
    drop(client);
    // Nothing holds the namespace any more: the kernel takes the link with it.
    in_time(async || rig.list(OWNER).await.is_empty()).await;
    rig.delete(&link.id).await.unwrap();
}

async fn addresses_routes_and_mtu_change_in_place(rig: Rig) {
    let client = Namespace::new("client");
    let mut link = rig.link(1, client.foreign());
    rig.put(&link).await.unwrap();
    let next = rig.link(7, client.foreign());
    let (id, near_name) = (link.id.clone(), link.near.name.clone());
    link = next;
    link.id = id;
    link.near.name = near_name;
    link.mtu = Mtu::new(1400).unwrap();
    rig.put(&link).await.unwrap();
    assert!(rig.pings(&client.foreign(), "10.0.0.7", "10.0.0.0").await);
    assert!(rig.pings(&client.foreign(), "fd00::7", "fd00::").await);
    assert!(
        rig.is_cut_off(&client.foreign(), "10.0.0.1", "10.0.0.0")
            .await
    );
    assert!(rig.is_cut_off(&client.foreign(), "fd00::1", "fd00::").await);
    let found = rig.list(OWNER).await;
    assert_eq!(found[0].mtu, 1400);
    assert_eq!(
        found[0].routes,
        [prefix("10.0.0.7/32"), prefix("fd00::7/128")]
    );

    // Another source for the same routes, which IPv6 cannot keep side by side.
    let Change::PutRouter(mut router) = rig.put_router() else {
        unreachable!("it is a router")
    };
    router.addresses = vec![ip("10.0.0.100"), ip("fd00::100")];
    rig.apply(vec![Change::PutRouter(router)]).await.unwrap();
    link.near.routes = vec![
        direct(ip("10.0.0.7"), Some(ip("10.0.0.100"))),
        direct(ip("fd00::7"), Some(ip("fd00::100"))),
    ];
    let LinkKind::Veth { far } = &mut link.kind else {
        unreachable!("the rig makes veths")
    };
    far.routes = vec![
        via("10.0.0.0/16", "10.0.0.100", None),
        via("fd00::/64", "fd00::100", None),
    ];
    rig.put(&link).await.unwrap();
    assert!(rig.pings(&client.foreign(), "10.0.0.7", "10.0.0.100").await);
    assert!(rig.pings(&client.foreign(), "fd00::7", "fd00::100").await);
}

async fn a_link_moves_to_another_client_namespace(rig: Rig) {
    let (one, two) = (Namespace::new("one"), Namespace::new("two"));
    rig.put(&rig.link(1, one.foreign())).await.unwrap();
    rig.put(&rig.link(1, two.foreign())).await.unwrap();
    assert!(rig.pings(&two.foreign(), "10.0.0.1", "10.0.0.0").await);
    assert_eq!(rig.list(OWNER).await.len(), 1);
    let names = one
        .within(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
        .unwrap();
    assert!(!names.contains("nsm-1"), "{names}");
}

async fn large_transfers_pass_a_small_mtu(rig: Rig) {
    let (one, two) = (Namespace::new("one"), Namespace::new("two"));
    for (n, client) in [(1, &one), (2, &two)] {
        let mut link = rig.link(n, client.foreign());
        link.mtu = Mtu::new(1450).unwrap();
        rig.put(&link).await.unwrap();
    }
    for (server, target) in [("10.0.0.2:4000", "10.0.0.2"), ("[fd00::2]:4000", "fd00::2")] {
        let address: SocketAddr = server.parse().unwrap();
        let bound = rig
            .agent
            .bind(&two.foreign(), Protocol::Tcp, address)
            .await
            .unwrap();
        let listener = tokio::net::TcpListener::from_std(bound.into()).unwrap();
        let stream = one
            .within(|| std::net::TcpStream::connect(address))
            .unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut sender = tokio::net::TcpStream::from_std(stream).unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        let sent: Vec<u8> = (0..=u16::MAX).map(|n| n.to_le_bytes()[1]).collect();
        let sending = sent.clone();
        tokio::spawn(async move { sender.write_all(&sending).await });
        let mut arrived = vec![0; sent.len()];
        receiver.read_exact(&mut arrived).await.unwrap();
        assert!(
            arrived == sent,
            "{target}: what arrives is not what was sent"
        );
    }
}

async fn sockets_are_bound_inside_a_namespace(rig: Rig) {
    let client = Namespace::new("client");
    rig.put(&rig.link(1, client.foreign())).await.unwrap();
    for (server, source) in [
        ("10.0.0.0:53", "10.0.0.1:0"),
        ("[fd00::]:53", "[fd00::1]:0"),
    ] {
        let bind = |netns, address: &str| {
            rig.agent
                .bind(netns, Protocol::Udp, address.parse().unwrap())
        };
        let (router, foreign) = (rig.router.named(), client.foreign());
        let server_socket = bind(&router, server).await.unwrap();
        let server_socket = tokio::net::UdpSocket::from_std(server_socket.into()).unwrap();
        let client_socket = bind(&foreign, source).await.unwrap();
        let client_socket = tokio::net::UdpSocket::from_std(client_socket.into()).unwrap();
        client_socket.send_to(b"question", server).await.unwrap();
        let mut packet = [0; 16];
        let (len, from) = server_socket.recv_from(&mut packet).await.unwrap();
        assert_eq!(&packet[..len], b"question");
        server_socket.send_to(b"answer", from).await.unwrap();
        let (len, from) = client_socket.recv_from(&mut packet).await.unwrap();
        assert_eq!(
            (&packet[..len], from),
            (&b"answer"[..], server.parse().unwrap())
        );
    }
}

async fn what_no_link_claims_is_unreachable(rig: Rig) {
    let client = Namespace::new("client");
    rig.put(&rig.link(1, client.foreign())).await.unwrap();
    // The route says no at once; the patience is not used up.
    let started = std::time::Instant::now();
    let router = rig.router.named();
    let ping = rig
        .agent
        .ping(&router, ip("10.0.0.0"), ip("10.0.7.7"), PATIENCE);
    assert_eq!(ping.await.unwrap(), None);
    assert!(started.elapsed() < PATIENCE);
    assert!(
        rig.is_cut_off(&client.foreign(), "10.0.0.1", "10.0.7.7")
            .await
    );
}

async fn two_endpoints_dress_one_end_each(rig: Rig) {
    let other = Rig::new(Arc::clone(&rig.agent)).await;
    let mut made = rig.link(2, other.router.named());
    made.kind = LinkKind::VethOpen {
        netns: other.router.named(),
        name: name("peer"),
    };
    let mut given = made.clone();
    given.side = Side::Client;
    "nse-2".clone_into(&mut given.owner);
    given.near.netns = other.router.named();
    given.near.name = name("peer");
    given.near.routes = vec![direct(ip("10.0.1.0"), Some(ip("10.0.0.2")))];
    given.neighbors = vec![ip("10.0.1.0")];
    given.kind = LinkKind::Given;
    let error = other.put(&given).await.unwrap_err();
    assert!(matches!(error, Error::NoDevice { .. }), "{error:?}");

    // The router at this end is 10.0.1.0 and the other one 10.0.0.2.
    let routers = [(&rig, "10.0.1.0"), (&other, "10.0.0.2")];
    for (rig, address) in routers {
        let Change::PutRouter(mut router) = rig.put_router() else {
            unreachable!("it is a router")
        };
        router.addresses = vec![ip(address)];
        rig.apply(vec![Change::PutRouter(router)]).await.unwrap();
    }
    made.near.routes = vec![direct(ip("10.0.0.2"), Some(ip("10.0.1.0")))];
    rig.put(&made).await.unwrap();
    other.put(&given).await.unwrap();
    let netns = other.router.named();
    assert!(rig.pings(&netns, "10.0.0.2", "10.0.1.0").await);
    rig.put(&made).await.unwrap();
    assert!(
        rig.pings(&netns, "10.0.0.2", "10.0.1.0").await,
        "the maker undressed it"
    );
    assert_eq!(other.list("nse-2").await.len(), 1);

    let delete = Change::DeleteLink {
        netns,
        id: given.id.clone(),
        side: Side::Client,
    };
    other.apply(vec![delete]).await.unwrap();
    assert!(rig.list(OWNER).await.is_empty(), "one end stands alone");
}

async fn a_deleted_router_is_gone_with_its_links(rig: Rig) {
    let client = Namespace::new("client");
    let link = rig.link(1, client.foreign());
    rig.put(&link).await.unwrap();
    assert!(rig.pings(&rig.router.named(), "10.0.0.0", "10.0.0.1").await);
    let delete = || {
        vec![Change::DeleteRouter {
            netns: rig.router.named(),
        }]
    };
    rig.apply(delete()).await.unwrap();
    assert!(!rig.router.path().exists());
    assert!(rig.list(OWNER).await.is_empty());
    let is_alone = async || {
        let names = client.within(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
        !names.unwrap().contains("nsm-1")
    };
    in_time(is_alone).await;
    rig.apply(delete()).await.unwrap();
    rig.delete(&link.id).await.unwrap();
}

async fn a_name_left_by_a_crash_is_repaired(rig: Rig) {
    let delete = Change::DeleteRouter {
        netns: rig.router.named(),
    };
    rig.apply(vec![delete.clone()]).await.unwrap();
    std::fs::File::create(rig.router.path()).unwrap();
    assert!(rig.list(OWNER).await.is_empty());
    rig.apply(vec![rig.put_router()]).await.unwrap();
    assert!(rig.pings(&rig.router.named(), "10.0.0.0", "10.0.0.0").await);

    rig.apply(vec![delete.clone()]).await.unwrap();
    std::fs::File::create(rig.router.path()).unwrap();
    rig.apply(vec![delete]).await.unwrap();
    assert!(
        remove(&rig.router.path()).is_err(),
        "the name is still there"
    );
}

async fn what_is_no_namespace_is_refused(rig: Rig) {
    for path in ["/etc/passwd", "/proc/self/ns/mnt", "/dev/null"] {
        let link = rig.link(1, Netns::Path(path.into()));
        let error = rig.put(&link).await.unwrap_err();
        assert!(matches!(error, Error::NoNetns { .. }), "{path}: {error:?}");
        assert!(chain(&error).contains(path), "{}", chain(&error));
    }
    let link = rig.link(1, Netns::Named("../x".to_owned()));
    let error = rig.put(&link).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
}

async fn a_namespace_is_found_by_its_inode(rig: Rig) {
    use std::os::unix::fs::MetadataExt as _;
    let client = Namespace::new("client");
    let metadata = std::fs::metadata(client.path()).unwrap();
    let inode = Netns::Inode(metadata.dev(), metadata.ino());
    rig.put(&rig.link(1, inode.clone())).await.unwrap();
    assert!(rig.pings(&inode, "10.0.0.1", "10.0.0.0").await);
    let error = rig.put(&rig.link(2, Netns::Inode(metadata.dev(), 1))).await;
    assert!(matches!(error, Err(Error::NoNetns { .. })), "{error:?}");
}
