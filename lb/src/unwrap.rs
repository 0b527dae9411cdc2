//! The server's side of encapsulation: takes packets for its VIPs out of IPIP,
//! GRE, GUE and VXLAN, and gives those marked by DSCP their VIP back.
//!
//! Read first: [`Settings`], what is taken out, and [`Unwrap`], the program at
//! an interface. It is gone with the process that attached it.
//!
//! Limits: at most [`Settings::VIPS`] prefixes; outer packets that came in
//! fragments and outer IPv6 extension headers are left to the kernel; wants
//! Linux 6.6 (tcx).

mod settings;

pub use settings::{Settings, TooMany};

use aya::maps::{Array, Map, PerCpuArray};
use aya::programs::Program;
use aya::programs::tc::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use crate::dataplane::Error;

static OBJECT: &[u8] = include_bytes_aligned!("../bpf/decap.o");

/// The program at one or more interfaces.
#[derive(Debug)]
pub struct Unwrap {
    // Its links go with it.
    ebpf: Ebpf,
}

/// Packets by what was done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Taken out of an outer packet.
    pub unwrapped: u64,
    /// Given their VIP back.
    pub unmarked: u64,
    /// Wrapped, but not for a VIP of ours; left as they were.
    pub others: u64,
}

impl Unwrap {
    /// Loads the program and attaches it to these interfaces of the calling
    /// thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: an interface is not there, or the process lacks
    /// `CAP_BPF` or `CAP_NET_ADMIN`.
    pub fn attach(settings: &Settings, interfaces: &[String]) -> Result<Self, Error> {
        let mut ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(|error| Error::access("load the decapsulation program", error))?;
        write(&mut ebpf, settings)?;
        let program = program(&mut ebpf);
        let program = <&mut SchedClassifier>::try_from(program)
            .map_err(|error| Error::access("load the decapsulation program", error))?;
        program
            .load()
            .map_err(|error| Error::access("load the decapsulation program", error))?;
        for interface in interfaces {
            program
                .attach(interface, TcAttachType::Ingress)
                .map_err(|error| Error::access(format!("attach to {interface}"), error))?;
        }
        Ok(Self { ebpf })
    }

    /// Takes other settings at once.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn change(&mut self, settings: &Settings) -> Result<(), Error> {
        write(&mut self.ebpf, settings)
    }

    /// What it has done so far.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn counts(&self) -> Result<Counts, Error> {
        let map = counters(&self.ebpf);
        let map = PerCpuArray::<_, u64>::try_from(map)
            .map_err(|error| Error::access("read what was unwrapped", error))?;
        let sum = |index| {
            let values = map.get(&index, 0);
            let values = values.map_err(|error| Error::access("read what was unwrapped", error))?;
            Ok(values.iter().sum())
        };
        Ok(Counts {
            unwrapped: sum(0)?,
            unmarked: sum(1)?,
            others: sum(2)?,
        })
    }
}

fn program(ebpf: &mut Ebpf) -> &mut Program {
    let program = ebpf.program_mut("carrick_decap");
    program.expect("the object holds it")
}

fn counters(ebpf: &Ebpf) -> &Map {
    ebpf.map("decap_counters").expect("the object holds it")
}

fn write(ebpf: &mut Ebpf, settings: &Settings) -> Result<(), Error> {
    let failed = |error| Error::access("set up the decapsulation program", error);
    let map = ebpf.map_mut("decap_settings").expect("the object holds it");
    let mut map = Array::<_, [u8; settings::SIZE]>::try_from(map).map_err(failed)?;
    map.set(0, settings.bytes(), 0).map_err(failed)
}
