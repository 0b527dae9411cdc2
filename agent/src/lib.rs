//! The vswitch agent: what the data plane shall be, stated by name.
//!
//! Read first: [`Agent`], the interface, and [`Link`], its main object.

mod error;
mod interface;
mod object;

pub use error::Error;
pub use interface::{Agent, Protocol};
pub use object::{Change, End, Found, Link, LinkKind, LinkRoute, Netns, Router, Side};

/// A bound socket as [`Agent::bind`] hands it out: nonblocking, ready for tokio's `from_std`.
pub type Socket = std::os::fd::OwnedFd;
