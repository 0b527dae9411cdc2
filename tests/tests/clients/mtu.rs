//! Packet sizes: what a link says it carries it carries, and not a byte more.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use carrick_tests::traffic::{Echo, PORT, echoes};
use carrick_tests::{Lab, Namespace, ip};
use nix::errno::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

use crate::dual::both_families_of;

/// What is left of 1500 bytes over VXLAN (RFC 7348).
const VXLAN: usize = 1450;
const JUMBO: usize = 9000;
/// Headers of a UDP packet over IPv4 and over IPv6.
const HEADERS: [usize; 2] = [20 + 8, 40 + 8];

/// Two nodes with an endpoint and a pod each, `ant` on red and `bee` on green.
async fn lab() -> Lab {
    let mut lab = Lab::new(&["red", "green"]).await;
    lab.start_registry("east", "red");
    lab.start_ipam("red", "172.16.0.0/16,2001:db8::/64");
    start_nse(&mut lab, "nse-red", "red");
    lab.start_nsc("ant", "red", "nse-red", &[]).await;
    lab.address("ant").await;
    lab
}

fn start_nse(lab: &mut Lab, name: &str, node: &str) {
    let both = both_families_of(lab, "red");
    lab.start_nse(name, node, "red", "red", &[both]);
}

async fn join(lab: &mut Lab) {
    start_nse(lab, "nse-green", "green");
    lab.start_nsc("bee", "green", "nse-green", &[]).await;
    lab.address("bee").await;
    lab.linked("nse-red", 1).await;
    lab.linked("nse-green", 1).await;
}

/// Waits until a pod's client was told `mtu` and its interface has it.
async fn has_mtu(lab: &Lab, pod: &str, mtu: usize) {
    lab.wait(&format!("{pod} has MTU {mtu}"), async || {
        let status = lab.status(&format!("nsc-{pod}")).await?;
        let told = status["connections"][0]["mtu"] == mtu;
        let has = ip::interfaces(lab.netns(pod)).get("nsm-1")?.mtu;
        (told && u64::try_from(mtu) == Ok(has)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_packet_is_what_the_slowest_link_carries_while_it_is_there() {
    let mut lab = lab().await;
    has_mtu(&lab, "ant", JUMBO).await;
    join(&mut lab).await;
    for pod in ["ant", "bee"] {
        has_mtu(&lab, pod, VXLAN).await;
    }
    assert!(lab.stop("nse-green").await.success());
    has_mtu(&lab, "ant", JUMBO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_pass_a_tunnel_up_to_its_size_and_larger_ones_are_refused_at_once() {
    let mut lab = lab().await;
    join(&mut lab).await;
    for pod in ["ant", "bee"] {
        has_mtu(&lab, pod, VXLAN).await;
    }
    let (ant, bee) = (lab.netns("ant"), lab.netns("bee"));
    let _echo = Echo::start(bee, b"");
    let addresses = lab.addresses("bee").await;
    assert_eq!(addresses.len(), HEADERS.len());
    for (address, headers) in addresses.into_iter().zip(HEADERS) {
        assert!(echoes(ant, address, Duration::from_secs(5)), "{address}");
        let returned = unfragmented(ant, address, VXLAN - headers);
        assert_eq!(returned.unwrap(), VXLAN - headers, "to {address}");
        let refused = unfragmented(ant, address, VXLAN - headers + 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EMSGSIZE as i32));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jumbo_packets_pass_between_pods_of_one_node() {
    let mut lab = lab().await;
    start_nse(&mut lab, "nse-next", "red");
    lab.start_nsc("cow", "red", "nse-next", &[]).await;
    lab.linked("nse-red", 1).await;
    lab.linked("nse-next", 1).await;
    for pod in ["ant", "cow"] {
        has_mtu(&lab, pod, JUMBO).await;
    }
    lab.address("cow").await;
    let (ant, cow) = (lab.netns("ant"), lab.netns("cow"));
    let _echo = Echo::start(cow, b"");
    let addresses = lab.addresses("cow").await;
    assert_eq!(addresses.len(), HEADERS.len());
    for (address, headers) in addresses.into_iter().zip(HEADERS) {
        assert!(echoes(ant, address, Duration::from_secs(5)), "{address}");
        let returned = unfragmented(ant, address, JUMBO - headers);
        assert_eq!(returned.unwrap(), JUMBO - headers, "to {address}");
        let refused = unfragmented(ant, address, JUMBO - headers + 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EMSGSIZE as i32));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_of_64_kib_passes_a_tunnel_both_ways() {
    let mut lab = lab().await;
    join(&mut lab).await;
    for (from, to) in [("ant", "bee"), ("bee", "ant")] {
        for address in lab.addresses(to).await {
            let text = lab.wait("the other pod is reached", async || {
                transfer(lab.netns(from), lab.netns(to), address).ok()
            });
            assert!(text.await == body(), "{from} reads from {address}");
        }
    }
}

/// Sends a UDP packet with `length` bytes of payload that nobody may divide;
/// the length of what comes back.
fn unfragmented(pod: &Namespace, address: IpAddr, length: usize) -> io::Result<usize> {
    pod.within(|| {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any)?;
        match address {
            IpAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)?,
            IpAddr::V6(_) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO)?,
        }
        socket.connect((address, PORT))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        socket.send(&vec![7; length])?;
        socket.recv(&mut vec![0; 65_535])
    })
}

/// 64 KiB that are not all alike.
fn body() -> Vec<u8> {
    (0..=u8::MAX).cycle().take(64 << 10).collect()
}

/// What `from` reads over HTTP from a server in `to` that answers with [`body`].
fn transfer(from: &Namespace, to: &Namespace, address: IpAddr) -> io::Result<Vec<u8>> {
    let listener = to.within(|| TcpListener::bind((address, 0)))?;
    let at = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| from.within(|| read(at)));
        while !reader.is_finished() {
            match listener.accept() {
                Ok((stream, _)) => serve(stream)?,
                Err(_) => std::thread::park_timeout(Duration::from_millis(2)),
            }
        }
        reader.join().expect("the reader does not panic")
    })
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let head = format!(
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
        body().len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body())
}

fn read(server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
    let head = head.ok_or_else(|| io::Error::other("no HTTP"))?;
    Ok(answer.split_off(head + 4))
}
