use std::collections::BTreeMap;
use std::path::Path;

use aya::maps::Map;
use aya::programs::links::FdLink;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use super::Region;
use super::hops::Probe;
use crate::dataplane::Error;
use crate::tables::{Sizes, Table};

static XDP_OBJECT: &[u8] = include_bytes_aligned!("../../bpf/balance.xdp.o");
static TC_OBJECT: &[u8] = include_bytes_aligned!("../../bpf/balance.tc.o");

/// Where the kernel runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// TC ingress (tcx): for veth interfaces and whatever carries bulk TCP.
    Tc,
    /// TC egress: for what this machine itself sends.
    TcEgress,
    /// XDP in the driver, or after it where the driver cannot.
    Xdp,
}

impl Hook {
    /// Its name in configuration and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::TcEgress => "tc-egress",
            Self::Xdp => "xdp",
        }
    }

    /// Whether one loaded program serves both hooks.
    pub(super) fn object_of(self, other: Self) -> bool {
        (self == Self::Xdp) == (other == Self::Xdp)
    }

    fn object(self) -> &'static [u8] {
        match self {
            Self::Tc | Self::TcEgress => TC_OBJECT,
            Self::Xdp => XDP_OBJECT,
        }
    }
}

/// The balancer's program in the kernel, with its tables mapped.
#[derive(Debug)]
pub struct Program {
    pub(super) ebpf: Ebpf,
    /// Attachments that end with the process.
    pub(super) links: Vec<FdLink>,
    hook: Hook,
    sizes: Sizes,
    tables: Tables,
    probe: Probe,
}

/// What a packet became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The program's return value: an `XDP_*` or `TC_ACT_*`.
    pub verdict: u32,
    /// The whole frame afterwards.
    pub frame: Vec<u8>,
}

/// Name of the program in its object.
pub(crate) const PROGRAM: &str = "carrick_lb";

impl Program {
    /// Loads the program with tables of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: the kernel refuses, most often for lack of `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn load(hook: Hook, sizes: Sizes) -> Result<Self, Error> {
        Self::load_with(hook, sizes, None)
    }

    /// Loads the program; tables pinned under `pins` are taken over, others are pinned there.
    pub(super) fn load_with(hook: Hook, sizes: Sizes, pins: Option<&Path>) -> Result<Self, Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::access("load the packet program", error)
        };
        let globals = sizes.globals();
        let mut loader = EbpfLoader::new();
        for (name, value) in &globals {
            loader.override_global(name, value, false);
        }
        for own in ["scratch", "wanted"] {
            loader.map_max_entries(own, sizes.cpus);
        }
        for table in Table::ALL {
            loader.map_max_entries(table.name(), sizes.entries(table));
            if let Some(pins) = pins {
                loader.map_pin_path(table.name(), pins.join(table.name()));
            }
        }
        let mut ebpf = loader
            .load(hook.object())
            .map_err(|error| failed(error.into()))?;
        load_program(&mut ebpf, hook).map_err(|error| failed(error.into()))?;
        let tables = Tables::map(&ebpf, &sizes)?;
        Ok(Self {
            ebpf,
            links: Vec::new(),
            hook,
            sizes,
            tables,
            probe: Probe::load()?,
        })
    }

    fn inner(&self) -> &aya::programs::Program {
        self.ebpf.program(PROGRAM).expect("the object holds it")
    }

    pub(super) fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Tables as large as this machine asks for, for so many IPv4 flows, and so many of NAT.
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: the number of CPUs cannot be read.
    pub fn sizes_here(flows: u32, translated: u32) -> Result<Sizes, Error> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| Error::io("count the CPUs", error))?;
        let cpus = u32::try_from(cpus).unwrap_or(1);
        Ok(Sizes::of_machine(cpus, flows, translated))
    }

    /// Where it is meant to run.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// How large its tables are.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Its tables.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The XDP program itself, for a table of programs to call.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`]: it is a TC program.
    pub fn fd(&self) -> Result<aya::programs::ProgramFd, Error> {
        let program = self.inner();
        let fd = <&Xdp>::try_from(program).and_then(|xdp| Ok(xdp.fd()?.try_clone()?));
        fd.map_err(|error| Error::access("hand out the packet program", error))
    }

    /// Runs the program once on a frame, on this CPU, attached or not. The
    /// frame counts as received from loopback (interface 1).
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: the kernel refuses the frame, such as one below 14 bytes.
    pub fn run(&self, frame: &[u8]) -> Result<Outcome, Error> {
        let mut out = vec![0; frame.len() + 512];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let program = self.inner();
        let result = match self.hook {
            Hook::Xdp => <&Xdp>::try_from(program).map(|p| p.test_run(options)),
            Hook::Tc | Hook::TcEgress => {
                <&SchedClassifier>::try_from(program).map(|p| p.test_run(options))
            }
        };
        let result = result
            .and_then(|run| run)
            .map_err(|error| Error::access("run the packet program", error))?;
        out.truncate(result.data_size_out as usize);
        Ok(Outcome {
            verdict: result.return_value,
            frame: out,
        })
    }
}

fn load_program(ebpf: &mut Ebpf, hook: Hook) -> Result<(), aya::programs::ProgramError> {
    let program = ebpf.program_mut(PROGRAM).expect("the object holds it");
    match hook {
        Hook::Xdp => <&mut Xdp>::try_from(program)?.load(),
        Hook::Tc | Hook::TcEgress => <&mut SchedClassifier>::try_from(program)?.load(),
    }
}

/// The mapped tables of a program.
#[derive(Debug)]
pub struct Tables(BTreeMap<Table, Region>);

impl Tables {
    fn map(ebpf: &Ebpf, sizes: &Sizes) -> Result<Self, Error> {
        let mut regions = BTreeMap::new();
        for table in Table::ALL {
            let Some(Map::Array(map)) = ebpf.map(table.name()) else {
                return Err(Error::Missing {
                    what: format!("table {}", table.name()),
                });
            };
            let region = Region::map(map.fd(), sizes.bytes(table))
                .map_err(|error| Error::io(format!("map table {}", table.name()), error))?;
            regions.insert(table, region);
        }
        Ok(Self(regions))
    }

    /// One table.
    #[must_use]
    pub fn of(&self, table: Table) -> &Region {
        &self.0[&table]
    }
}
