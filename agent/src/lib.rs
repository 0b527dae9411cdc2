//! The vswitch agent: what the data plane shall be, stated by name.
//!
//! Read first: [`Agent`], the interface, and [`Link`], its main object. [`Kernel`]
//! implements it with the Linux kernel, [`RemoteAgent`] by asking a [`Server`] in
//! another process, so that only that one needs privileges.
//!
//! Limits: a router is one namespace, and no two routers share one.

mod check;
mod error;
mod identity;
mod interface;
mod kernel;
mod metered;
mod object;
#[cfg(feature = "test-util")]
mod recording;
mod remote;

pub use error::Error;
pub use identity::hardware_address;
pub use interface::{Agent, Protocol};
pub use kernel::{Capability, Kernel, preflight};
pub use metered::{AgentMetrics, Metered, Outcome};
pub use object::{Change, End, Found, Link, LinkKind, LinkRoute, Netns, Router, Side};

#[cfg(feature = "test-util")]
pub use recording::Recording;
pub use remote::{RemoteAgent, Server, ServerError};

/// A bound socket as [`Agent::bind`] hands it out: nonblocking, ready for tokio's `from_std`.
pub type Socket = std::os::fd::OwnedFd;
