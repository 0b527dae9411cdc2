//! A balancer between clients and servers, each in a namespace of its own.
//!
//! Read first: [`Site`], the machines, and [`Balancer`], a data plane with its
//! control in the middle one.

mod client;
mod server;
mod site;
mod wire;

pub use client::{Answer, Held, ask, ask_from, ask_udp, ask_udp_from};
pub use server::Server;
pub use site::{Family, Machines, Site};
pub use wire::{Raw, Tap};

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use carrick_lb::control::{Change, Control, Wanted};
use carrick_lb::dataplane::{
    Applied, Dataplane, Error, FlowRecord, Installed, Local, Plan, Statistics,
};
use carrick_lb::kernel::{Attachment, Hook, Kernel, Options};
use carrick_lb::nft::Nft;
use carrick_lb::service::{
    Policy, PortRange, Ports, Protocols, ServerId, Service, ServiceName, TableSize, Vip,
};
use carrick_lb::tables::Sizes;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use crate::Namespace;

/// Which data plane balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// nftables.
    Nftables,
    /// The packet program at TC ingress, and at TC egress for what the
    /// balancer itself sends.
    Tc,
    /// The packet program at XDP, and at TC egress likewise.
    Xdp,
}

/// Where the packet program's tables outlive its process.
const PINS: &str = "/sys/fs/bpf";

impl Plane {
    /// Its name in configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Tc | Self::Xdp => "ebpf",
        }
    }

    /// The hook's name in configuration.
    #[must_use]
    pub fn hook(self) -> &'static str {
        match self {
            Self::Nftables | Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }

    /// Opens it in `namespace`.
    ///
    /// # Errors
    ///
    /// It is not possible there.
    pub fn open(self, namespace: &Namespace) -> Result<AnyPlane, Error> {
        namespace.within(|| {
            Ok(AnyPlane(match self {
                Self::Nftables => Box::new(Nft::open()?),
                Self::Tc | Self::Xdp => Box::new(Kernel::open(&self.options(namespace))?),
            }))
        })
    }

    fn options(self, namespace: &Namespace) -> Options {
        let hooks: &[Hook] = match self {
            Self::Nftables => &[],
            Self::Tc => &[Hook::Tc, Hook::TcEgress],
            Self::Xdp => &[Hook::Xdp, Hook::TcEgress],
        };
        let attach = interfaces().into_iter().flat_map(|interface| {
            hooks.iter().map(move |hook| Attachment {
                interface: interface.clone(),
                hook: *hook,
            })
        });
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        let cpus = u32::try_from(cpus).expect("there are not so many");
        Options {
            attach: attach.collect(),
            pins: Some(pins(namespace)),
            flow_rate: None,
            mtu: None,
            journal: true,
            sizes: Sizes {
                cpus,
                slices: cpus,
                buckets4: 1 << 14,
                buckets6: 1 << 14,
                nat_buckets4: 1 << 16,
                nat_buckets6: 1 << 14,
                servers: 512,
                slots: 1 << 18,
                fixed_clock: 0,
                ..Sizes::small()
            },
        }
    }

    /// Removes everything of it from `namespace`.
    ///
    /// # Panics
    ///
    /// The kernel refuses.
    pub fn remove(self, namespace: &Namespace) {
        let removed = namespace.within(|| match self {
            Self::Nftables => Nft::open().and_then(Nft::remove),
            Self::Tc | Self::Xdp => Kernel::remove(&pins(namespace)),
        });
        removed.map_err(|e| say(&e)).expect("it can be removed");
    }

    /// Everything of it that is in `namespace`, for people; nothing, if it was removed.
    ///
    /// # Panics
    ///
    /// It cannot be seen.
    #[must_use]
    pub fn left_in(self, namespace: &Namespace) -> Vec<String> {
        namespace.within(|| match self {
            Self::Nftables => {
                let installed = Nft::open().and_then(|nft| nft.installed());
                let installed = installed.expect("tables can be read");
                if installed == Installed::default() {
                    Vec::new()
                } else {
                    vec![format!("{installed:?}")]
                }
            }
            Self::Tc | Self::Xdp => {
                let mut left = attached();
                left.extend(pins(namespace).exists().then(|| "pins".to_owned()));
                left
            }
        })
    }
}

fn pins(namespace: &Namespace) -> PathBuf {
    mount_pins();
    Path::new(PINS).join(namespace.name())
}

/// Mounts the BPF file system where systemd would, if nobody did.
fn mount_pins() {
    static MOUNTED: Once = Once::new();
    const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);
    MOUNTED.call_once(|| {
        let there = statfs(PINS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
        let none = None::<&str>;
        if !there {
            let mounted = mount(Some("bpf"), PINS, Some("bpf"), MsFlags::empty(), none);
            mounted.expect("root mounts the BPF file system");
        }
    });
}

/// All interfaces of this thread's namespace but the loopback device.
fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev");
    let table = table.expect("every thread has a namespace");
    let names = table.lines().filter_map(|line| line.split_once(':'));
    let names = names.map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name != "lo").collect()
}

/// Programs at interfaces of this thread's namespace, as `ip` and `tc` tell.
fn attached() -> Vec<String> {
    let told = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.expect("iproute2 is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let links = told("ip", &["-details", "link", "show"]);
    let mut attached: Vec<_> = links
        .lines()
        .filter(|line| line.contains("prog/xdp"))
        .map(str::to_owned)
        .collect();
    for interface in interfaces() {
        for side in ["ingress", "egress"] {
            let filters = told("tc", &["filter", "show", "dev", &interface, side]);
            attached.extend(filters.lines().map(str::to_owned));
        }
    }
    attached
}

/// Any of the data planes.
pub struct AnyPlane(Box<dyn Dataplane + Send>);

impl std::fmt::Debug for AnyPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AnyPlane").field(&self.0.name()).finish()
    }
}

impl Dataplane for AnyPlane {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn supports(&self, service: &Service) -> Result<(), Error> {
        self.0.supports(service)
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        self.0.apply(plan)
    }

    fn installed(&self) -> Result<Installed, Error> {
        self.0.installed()
    }

    fn statistics(&self) -> Result<Statistics, Error> {
        self.0.statistics()
    }

    fn take_new_flows(&mut self, into: &mut Vec<FlowRecord>, limit: usize) -> Result<u64, Error> {
        self.0.take_new_flows(into, limit)
    }

    fn insert_flows(&mut self, flows: &[FlowRecord]) -> Result<usize, Error> {
        self.0.insert_flows(flows)
    }

    fn each_flow(&self, show: &mut dyn FnMut(FlowRecord)) -> Result<(), Error> {
        self.0.each_flow(show)
    }
}

/// The outer source of packets in packets.
const LOCAL: Local = Local {
    v4: Some(Ipv4Addr::new(203, 0, 113, 1)),
    v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1)),
};

/// A data plane and its control in a namespace.
#[derive(Debug)]
pub struct Balancer<'a> {
    namespace: &'a Namespace,
    plane: Plane,
    control: Control<AnyPlane>,
}

impl<'a> Balancer<'a> {
    /// Takes over what is installed in `namespace`, or begins with nothing.
    ///
    /// # Panics
    ///
    /// The data plane is not possible there.
    #[must_use]
    pub fn open(plane: Plane, namespace: &'a Namespace) -> Self {
        let opened = plane.open(namespace).expect("the data plane opens");
        Self {
            namespace,
            plane,
            control: Control::adopt(opened).expect("it says what it holds"),
        }
    }

    /// One that balances these services.
    ///
    /// # Panics
    ///
    /// It cannot.
    #[must_use]
    pub fn with(
        plane: Plane,
        namespace: &'a Namespace,
        services: impl IntoIterator<Item = Service>,
    ) -> Self {
        let mut balancer = Self::open(plane, namespace);
        balancer.replace(services);
        balancer
    }

    /// Balances these services and no others.
    ///
    /// # Panics
    ///
    /// It cannot.
    pub fn replace(&mut self, services: impl IntoIterator<Item = Service>) {
        let wanted = Wanted::new(LOCAL, services);
        let done = self.namespace.within(|| self.control.replace(wanted));
        done.map_err(|e| say(&e))
            .expect("the services can be balanced");
    }

    /// Makes changes.
    ///
    /// # Panics
    ///
    /// It cannot.
    pub fn change(&mut self, changes: &[Change]) -> Applied {
        let done = self.namespace.within(|| self.control.change(changes));
        done.map_err(|e| say(&e)).expect("the change can be made")
    }

    /// The control itself.
    #[must_use]
    pub fn control(&self) -> &Control<AnyPlane> {
        &self.control
    }

    /// Remembers flows of another balancer.
    ///
    /// # Panics
    ///
    /// They cannot be written.
    pub fn insert(&mut self, flows: &[FlowRecord]) -> usize {
        let inserted = self.control.dataplane_mut().insert_flows(flows);
        inserted
            .map_err(|e| say(&e))
            .expect("flows can be inserted")
    }

    /// All counters.
    ///
    /// # Panics
    ///
    /// They cannot be read.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let read = self.control.dataplane().statistics();
        read.map_err(|e| say(&e)).expect("the counters can be read")
    }

    /// Takes everything away, and shows that nothing is left.
    ///
    /// # Panics
    ///
    /// Something is left.
    pub fn remove(self) {
        let (plane, namespace) = (self.plane, self.namespace);
        drop(self);
        plane.remove(namespace);
        // The kernel takes programs away in its own time.
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = plane.left_in(namespace);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left over: {left:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn say(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.extend([": ", &cause.to_string()]);
        source = cause.source();
    }
    text
}

/// A service of that name, round robin by L2, for `vips`, with the servers of
/// `machines` in their order.
///
/// # Panics
///
/// The name is none.
#[must_use]
pub fn service(name: &str, vips: &[Vip], servers: Vec<carrick_lb::service::Server>) -> Service {
    let mut service = Service::new(service_name(name));
    service.vips = vips.to_vec();
    service.servers = servers;
    service
}

/// A name.
///
/// # Panics
///
/// It is none.
#[must_use]
pub fn service_name(name: &str) -> ServiceName {
    ServiceName::new(name).expect("it is a name")
}

/// A server's id.
///
/// # Panics
///
/// It is none.
#[must_use]
pub fn server_id(id: &str) -> ServerId {
    ServerId::new(id).expect("it is an id")
}

/// Everything for a prefix or address.
///
/// # Panics
///
/// It is none.
#[must_use]
pub fn vip(prefix: &str) -> Vip {
    let prefix = prefix.parse().or_else(|_| {
        let address: Result<std::net::IpAddr, _> = prefix.parse();
        address.map(Into::into)
    });
    Vip::all(prefix.expect("it is a prefix or an address"))
}

/// One port of TCP and UDP.
///
/// # Panics
///
/// The prefix is none.
#[must_use]
pub fn vip_port(prefix: &str, port: u16) -> Vip {
    use carrick_lb::service::Protocol;
    let range = PortRange::new(port, port).expect("it is a port");
    Vip {
        protocols: Protocols::of(&[Protocol::Tcp, Protocol::Udp]),
        ports: Ports::of([range]),
        ..vip(prefix)
    }
}

/// Maglev with a table large enough for a few servers.
#[must_use]
pub fn maglev() -> Policy {
    Policy::Maglev {
        size: TableSize::at_least(1009),
    }
}
