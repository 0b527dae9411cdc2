//! The test-run rig: what a packet program costs, without any wire.
//!
//! The kernel's test run feeds a program the packet that it has just rewritten, so a small first program makes each
//! packet anew (from its own flow, so that any number of flows is possible) and hands it on by a tail call. All programs
//! are treated alike, and what the rig itself costs is measured too: the floors.

mod cost;
mod object;
mod packet;
mod setup;

pub use cost::Cost;
pub(super) use cost::{Case, measure};
pub(super) use object::Rig;
pub(super) use packet::{Packet, What};
pub(super) use setup::Subject;
