use std::path::PathBuf;

use carrick_lb::config::{Backend, Balancer};
use carrick_lb::dataplane::{Applied, Dataplane, Error, FlowRecord, Installed, Plan, Statistics};
use carrick_lb::kernel::{Kernel, Options};
use carrick_lb::nft::Nft;
use carrick_lb::service::Service;
use tracing::{debug, warn};

/// The data plane of this process.
#[derive(Debug)]
pub(super) enum Plane {
    Ebpf(Kernel, PathBuf),
    Nftables(Box<Nft>),
}

impl Plane {
    /// Opens the data plane that the settings ask for, with whatever an
    /// earlier process left in it.
    pub(super) fn open(balancer: &Balancer) -> Result<Self, Error> {
        match balancer.backend {
            Backend::Ebpf => ebpf(balancer),
            Backend::Nftables => nftables(balancer),
            Backend::Auto => ebpf(balancer).or_else(|error| {
                let error = &error as &dyn std::error::Error;
                warn!(error, "eBPF is not possible here; using nftables");
                nftables(balancer)
            }),
        }
    }

    /// Takes everything out of the kernel.
    pub(super) fn remove(self) -> Result<(), Error> {
        match self {
            Self::Ebpf(kernel, pins) => {
                drop(kernel);
                Kernel::remove(&pins)
            }
            Self::Nftables(plane) => plane.remove(),
        }
    }

    fn inner(&self) -> &dyn Dataplane {
        match self {
            Self::Ebpf(plane, _) => plane,
            Self::Nftables(plane) => plane.as_ref(),
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Dataplane {
        match self {
            Self::Ebpf(plane, _) => plane,
            Self::Nftables(plane) => plane.as_mut(),
        }
    }
}

/// The packet program; rules of an earlier run with nftables go.
fn ebpf(balancer: &Balancer) -> Result<Plane, Error> {
    let options = Options::of(balancer)?;
    let kernel = Kernel::open(&options)?;
    // Without nftables there are no rules either.
    if let Err(error) = Nft::open().and_then(Nft::remove) {
        debug!(error = &error as &dyn std::error::Error, "no nftables");
    }
    Ok(Plane::Ebpf(kernel, Options::pins_of(&balancer.name)))
}

/// Rules of nftables; the program of an earlier run with eBPF goes.
fn nftables(balancer: &Balancer) -> Result<Plane, Error> {
    let plane = Nft::open()?;
    Kernel::remove(&Options::pins_of(&balancer.name))?;
    Ok(Plane::Nftables(Box::new(plane)))
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
