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

use carrick_lb::control::{Change, Control, Wanted};
use carrick_lb::dataplane::{
    Applied, Dataplane, Error, FlowRecord, Installed, Local, Plan, Statistics,
};
use carrick_lb::nft::Nft;
use carrick_lb::service::{
    Policy, PortRange, Ports, Protocols, ServerId, Service, ServiceName, TableSize, Vip,
};

use crate::Namespace;

/// Which data plane balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// nftables.
    Nftables,
}

impl Plane {
    /// Its name in configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
        }
    }

    /// Opens it in `namespace`.
    ///
    /// # Errors
    ///
    /// It is not possible there.
    pub fn open(self, namespace: &Namespace) -> Result<AnyPlane, Error> {
        namespace.within(|| match self {
            Self::Nftables => Ok(AnyPlane(Box::new(Nft::open()?))),
        })
    }

    /// Removes everything of it from `namespace`.
    ///
    /// # Panics
    ///
    /// The kernel refuses.
    pub fn remove(self, namespace: &Namespace) {
        namespace.within(|| match self {
            Self::Nftables => Nft::open()
                .and_then(Nft::remove)
                .expect("tables can be removed"),
        });
    }

    /// Everything of it that is in `namespace`, for people.
    #[must_use]
    pub fn left_in(self, namespace: &Namespace) -> String {
        namespace.within(|| {
            let mut tables = std::process::Command::new("nft");
            let output = tables.args(["list", "tables"]).output();
            match (self, output) {
                (Self::Nftables, Ok(output)) => {
                    String::from_utf8_lossy(&output.stdout).into_owned()
                }
                (Self::Nftables, Err(_)) => {
                    let installed = Nft::open().and_then(|nft| nft.installed());
                    installed.map_or_else(|e| e.to_string(), |is| format!("{is:?}"))
                }
            }
        })
    }
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
        let wanted = Wanted::new(Local::default(), services);
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
        let left = plane.left_in(namespace);
        assert!(!left.contains("carrick"), "left over: {left}");
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
