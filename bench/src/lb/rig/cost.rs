//! What a packet costs.

use std::time::Duration;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use serde::Serialize;

use super::{Packet, Rig};

/// Packets of one round, and rounds.
#[derive(Clone, Copy, Debug)]
pub(in crate::lb) struct Case {
    pub(in crate::lb) packets: u32,
    pub(in crate::lb) rounds: usize,
}

/// Nanoseconds per packet, the rig's own share included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Of the best round.
    pub min: u64,
    /// Of the middle one.
    pub median: u64,
    /// What the last packet came to: an XDP action.
    pub verdict: u32,
}

/// Runs the packet through a program, or through the rig alone. `before` is done ahead of each round.
pub(in crate::lb) fn measure(
    rig: &mut Rig,
    subject: Option<&ProgramFd>,
    packet: &Packet,
    case: Case,
    mut before: impl FnMut() -> Result<()>,
) -> Result<Cost> {
    ensure!(case.rounds > 0, "no rounds");
    rig.hand_to(subject)?;
    rig.make(packet)?;
    let mut times = Vec::new();
    let mut verdict = 0;
    for _ in 0..case.rounds {
        before()?;
        let (time, last) = rig.run(packet, case.packets)?;
        times.push(time);
        verdict = last;
    }
    times.sort_unstable();
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Ok(Cost {
        min: nanoseconds(times[0]),
        median: nanoseconds(times[times.len() / 2]),
        verdict,
    })
}
