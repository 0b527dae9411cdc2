use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use carrick_lb::service::{Server, ServerId};
use nlink::netlink::{Connection, Ethtool};

use crate::Namespace;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The VIP that servers hold.
    #[must_use]
    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, 1).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The prefix that servers hold as VIPs, beside the VIP; of IPv6 only the
    /// addresses 1, 7, 9 and 200 in it.
    #[must_use]
    pub fn range(self) -> &'static str {
        match self {
            Self::V4 => "10.2.2.0/24",
            Self::V6 => "2001:db8:2:2::/120",
        }
    }

    /// The `number`-th address of that prefix.
    #[must_use]
    pub fn in_range(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 2, 2, number).into(),
            Self::V6 => {
                let number = u16::from(number);
                Ipv6Addr::new(0x2001, 0xdb8, 2, 2, 0, 0, 0, number).into()
            }
        }
    }

    /// The client's `number`-th address, from 0.
    #[must_use]
    pub fn client(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(203, 0, 113, 2 + number).into(),
            Self::V6 => {
                let number = 2 + u16::from(number);
                Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, number).into()
            }
        }
    }

    /// The balancer's address towards the client.
    #[must_use]
    pub fn balancer(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(203, 0, 113, 1).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The address of server `number`, from 1.
    #[must_use]
    pub fn server(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 1, number, 2).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 1, number.into(), 0, 0, 0, 0, 2).into(),
        }
    }
}

/// How many machines there are.
#[derive(Debug, Clone, Copy)]
pub struct Machines {
    /// Balancers, each between the client and all servers.
    pub balancers: u8,
    /// Servers.
    pub servers: u8,
}

/// A client, balancers and servers, each linked to the balancers:
///
/// ```text
/// client 203.0.113.2 ─ .1 balancer 10.1.N.1 ─ 10.1.N.2 server N
/// ```
///
/// Servers hold the VIPs and answer by way of the first balancer. Of several
/// balancers, the others have networks of their own.
#[derive(Debug)]
pub struct Site {
    /// Who asks.
    pub client: Namespace,
    /// Who balances.
    pub balancer: Namespace,
    /// Who answers.
    pub servers: Vec<Namespace>,
}

/// Addresses of the IPv6 range that servers hold.
const IN_RANGE: [u8; 4] = [1, 7, 9, 200];

/// The client's addresses.
const CLIENTS: u8 = 40;

impl Site {
    /// A site with that many servers.
    ///
    /// # Panics
    ///
    /// The kernel refuses.
    #[must_use]
    pub fn new(servers: u8) -> Self {
        let site = Self {
            client: Namespace::new("client"),
            balancer: Namespace::new("balancer"),
            servers: (1..=servers)
                .map(|number| Namespace::new(&format!("server-{number}")))
                .collect(),
        };
        site.set_up_balancer();
        site.set_up_client();
        for (number, server) in (1..).zip(&site.servers) {
            set_up_server(number, server);
        }
        for end in site.servers.iter().chain([&site.client]) {
            ready_for_xdp(end);
        }
        site
    }

    fn set_up_balancer(&self) {
        sysctls(
            &self.balancer,
            &[
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                // What it says by ICMP is not held back.
                ("ipv4/icmp_ratelimit", "0"),
                ("ipv6/icmp/ratelimit", "0"),
            ],
        );
        let client = self.client.name();
        let mut batch = format!(
            "link set lo up\n\
             link add client type veth peer name eth0 netns {client}\n\
             link set client up\n\
             address add 203.0.113.1/24 dev client\n\
             address add 2001:db8:c::1/64 dev client nodad\n"
        );
        for (number, server) in (1..).zip(&self.servers) {
            let number: u8 = number;
            let server = server.name();
            let _ = write!(
                batch,
                "link add s{number} type veth peer name eth0 netns {server}\n\
                 link set s{number} up\n\
                 address add 10.1.{number}.1/24 dev s{number}\n\
                 address add fd00:1:{number:x}::1/64 dev s{number} nodad\n"
            );
        }
        ip(&self.balancer, &batch);
    }

    fn set_up_client(&self) {
        let mut batch = "link set lo up\nlink set eth0 up\n".to_owned();
        for number in 0..CLIENTS {
            let (v4, v6) = (Family::V4.client(number), Family::V6.client(number));
            let _ = write!(
                batch,
                "address add {v4}/24 dev eth0\naddress add {v6}/64 dev eth0 nodad\n"
            );
        }
        batch += "route add default via 203.0.113.1\nroute add default via 2001:db8:c::1 src 2001:db8:c::2\n";
        ip(&self.client, &batch);
    }

    /// The servers of a family for a service, each of weight 1; ids are `s1`, `s2`, …
    ///
    /// # Panics
    ///
    /// Never: the ids are ids.
    #[must_use]
    pub fn service_servers(&self, family: Family) -> Vec<Server> {
        (1..)
            .zip(&self.servers)
            .map(|(number, _)| {
                let id = ServerId::new(format!("s{number}")).expect("it is an id");
                Server::new(id, family.server(number))
            })
            .collect()
    }
}

fn set_up_server(number: u8, server: &Namespace) {
    sysctls(
        server,
        &[
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ],
    );
    let (vip4, vip6) = (Family::V4.vip(), Family::V6.vip());
    let range4 = Family::V4.range();
    // IPv6 binds to addresses alone.
    let held = IN_RANGE.map(|number| {
        let address = Family::V6.in_range(number);
        format!("address add {address}/128 dev lo nodad\n")
    });
    let held = held.concat();
    let batch = format!(
        "link set lo up\n\
         link set eth0 up\n\
         address add 10.1.{number}.2/24 dev eth0\n\
         address add fd00:1:{number:x}::2/64 dev eth0 nodad\n\
         address add {vip4}/32 dev lo\n\
         address add {vip6}/128 dev lo nodad\n\
         route add local {range4} dev lo\n\
         {held}\
         route add default via 10.1.{number}.1\n\
         route add default via fd00:1:{number:x}::1\n"
    );
    ip(server, &batch);
}

/// Runs lines of `ip` in a namespace.
///
/// # Panics
///
/// One of them fails.
pub(super) fn ip(namespace: &Namespace, batch: &str) {
    let mut child = Command::new("ip")
        .args(["-n", namespace.name(), "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ip (of iproute2) is installed");
    let mut input = child.stdin.take().expect("its input is a pipe");
    input
        .write_all(batch.as_bytes())
        .expect("it reads its input");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "ip {batch}: {output:?}");
}

impl Site {
    /// Runs lines of `ip` in one of the namespaces.
    ///
    /// # Panics
    ///
    /// One of them fails.
    pub fn ip(&self, namespace: &Namespace, batch: &str) {
        ip(namespace, batch);
    }
}

/// Makes `eth0` what a program at XDP on its peer needs: checksums are written,
/// for a frame sent on carries no word of one that is still to be made; and the
/// veth receives by NAPI, which is what GRO switches on.
fn ready_for_xdp(namespace: &Namespace) {
    let set = namespace.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        runtime.block_on(async {
            let ethtool = Connection::<Ethtool>::new_async().await?;
            let set = ethtool.set_features_by_name("eth0", |features| {
                features.disable("tx-checksum-ip-generic").enable("rx-gro")
            });
            set.await
        })
    });
    set.expect("a veth can write checksums");
}

fn sysctls(namespace: &Namespace, settings: &[(&str, &str)]) {
    namespace.within(|| {
        for (name, value) in settings {
            let path = format!("/proc/sys/net/{name}");
            std::fs::write(&path, value).expect(&path);
        }
    });
}
