use carrick_lb::config::{Backend, Balancer};
use carrick_lb::dataplane::{Applied, Dataplane, Error, FlowRecord, Installed, Plan, Statistics};
use carrick_lb::nft::Nft;
use carrick_lb::service::Service;
use tracing::info;

/// The data plane of this process.
#[derive(Debug)]
pub(super) enum Plane {
    Nftables(Nft),
}

impl Plane {
    /// Opens the data plane that the settings ask for, with whatever an
    /// earlier process left in it.
    pub(super) fn open(balancer: &Balancer) -> Result<Self, Error> {
        match balancer.backend {
            Backend::Nftables => Nft::open().map(Self::Nftables),
            Backend::Ebpf => Err(Error::Unsupported {
                what: "the eBPF data plane".to_owned(),
                why: "this build has none".to_owned(),
            }),
            Backend::Auto => {
                info!("using nftables");
                Nft::open().map(Self::Nftables)
            }
        }
    }

    /// Takes everything out of the kernel.
    pub(super) fn remove(self) -> Result<(), Error> {
        match self {
            Self::Nftables(plane) => plane.remove(),
        }
    }

    fn inner(&self) -> &dyn Dataplane {
        match self {
            Self::Nftables(plane) => plane,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Dataplane {
        match self {
            Self::Nftables(plane) => plane,
        }
    }
}

impl Dataplane for Plane {
    fn name(&self) -> &'static str {
        self.inner().name()
    }

    fn supports(&self, service: &Service) -> Result<(), Error> {
        self.inner().supports(service)
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        self.inner_mut().apply(plan)
    }

    fn installed(&self) -> Result<Installed, Error> {
        self.inner().installed()
    }

    fn statistics(&self) -> Result<Statistics, Error> {
        self.inner().statistics()
    }

    fn take_new_flows(&mut self, into: &mut Vec<FlowRecord>, limit: usize) -> Result<u64, Error> {
        self.inner_mut().take_new_flows(into, limit)
    }

    fn insert_flows(&mut self, flows: &[FlowRecord]) -> Result<usize, Error> {
        self.inner_mut().insert_flows(flows)
    }

    fn each_flow(&self, show: &mut dyn FnMut(FlowRecord)) -> Result<(), Error> {
        self.inner().each_flow(show)
    }
}
