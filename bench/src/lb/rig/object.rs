//! The rig's programs in the kernel.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, PerCpuArray, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, include_bytes_aligned};

use super::Packet;
use super::packet::Settings;

static OBJECT: &[u8] = include_bytes_aligned!("../../../../lb/bpf/rig.o");

/// Frames that the kernel sends at a time.
const BATCH: u32 = 64;

/// The rig; what is in the kernel goes with it.
pub(in crate::lb) struct Rig {
    object: Ebpf,
}

impl Rig {
    pub(in crate::lb) fn load() -> Result<Self> {
        let mut object = Ebpf::load(OBJECT).context("the kernel does not take the rig")?;
        for name in ["rig", "pass", "encapsulate", "sink"] {
            program(&mut object, name)?
                .load()
                .with_context(|| format!("the kernel refuses {name}"))?;
        }
        Ok(Self { object })
    }

    /// A program of the rig's own.
    pub(in crate::lb) fn program(&mut self, name: &str) -> Result<ProgramFd> {
        Ok(program(&mut self.object, name)?.fd()?.try_clone()?)
    }

    /// Packets from now on go to this program, or to none.
    pub(in crate::lb) fn hand_to(&mut self, subject: Option<&ProgramFd>) -> Result<()> {
        let map = self
            .object
            .map_mut("subject")
            .context("the rig has no table of programs")?;
        let mut subjects = ProgramArray::try_from(map)?;
        match subject {
            Some(program) => subjects.set(0, program, 0)?,
            // It may be empty already.
            None => subjects
                .clear_index(&0)
                .or(Ok::<_, aya::maps::MapError>(()))?,
        }
        Ok(())
    }

    /// What packets look like from now on.
    pub(in crate::lb) fn make(&mut self, packet: &Packet) -> Result<()> {
        let map = self
            .object
            .map_mut("settings")
            .context("the rig has no settings")?;
        Array::<_, Settings>::try_from(map)?.set(0, packet.settings(), 0)?;
        let map = self
            .object
            .map_mut("next_flow")
            .context("the rig has no counter")?;
        Array::<_, u64>::try_from(map)?.set(0, 0, 0)?;
        Ok(())
    }

    /// Runs so many packets through; the time of one, and what the last came to.
    pub(in crate::lb) fn run(&mut self, packet: &Packet, packets: u32) -> Result<(Duration, u32)> {
        self.run_program("rig", packet, packets)
    }

    /// The same for another of its programs.
    pub(in crate::lb) fn run_program(
        &mut self,
        name: &str,
        packet: &Packet,
        packets: u32,
    ) -> Result<(Duration, u32)> {
        let blank = packet.blank();
        let options = TestRunOptions {
            data_in: Some(&blank),
            repeat: packets,
            ..TestRunOptions::new()
        };
        let result = program(&mut self.object, name)?.test_run(options)?;
        Ok((result.duration, result.return_value))
    }

    /// Sends so many packets out of the interface of that index, by the verdict `XDP_TX`.
    pub(in crate::lb) fn send(
        &mut self,
        packet: &Packet,
        packets: u32,
        interface: u32,
    ) -> Result<()> {
        let blank = packet.blank();
        let length = u32::try_from(blank.len()).context("a frame is short")?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, length, 0, interface, 0, 0]
            .map(u32::to_ne_bytes)
            .concat();
        let options = TestRunOptions {
            data_in: Some(&blank),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        program(&mut self.object, "rig")?.test_run(options)?;
        Ok(())
    }

    /// Packets that reached the sink since it was last asked.
    pub(in crate::lb) fn take_sunk(&mut self) -> Result<u64> {
        let map = self.object.map_mut("sunk").context("the rig has no sink")?;
        let mut counters = PerCpuArray::<_, u64>::try_from(map)?;
        let all = counters.get(&0, 0)?;
        let zeros = aya::maps::PerCpuValues::try_from(vec![0; all.len()])?;
        let sum = all.iter().sum();
        counters.set(0, zeros, 0)?;
        Ok(sum)
    }

    /// Attaches one of its programs to an interface of this thread's namespace, until the interface or the rig goes.
    pub(in crate::lb) fn attach(&mut self, name: &str, interface: &str) -> Result<()> {
        let attached =
            program(&mut self.object, name)?.attach(interface, aya::programs::XdpMode::Driver);
        attached.with_context(|| format!("{interface} does not take a packet program"))?;
        Ok(())
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = object
        .program_mut(name)
        .with_context(|| format!("the rig has no {name}"))?;
    Ok(program.try_into()?)
}
