//! The agent's promises, kept by the kernel backend itself and through its gRPC
//! half alike. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "agent/both.rs"]
mod both;
#[path = "agent/remote.rs"]
mod remote;
#[path = "agent/rig.rs"]
mod rig;
#[path = "agent/vxlan.rs"]
mod vxlan;
