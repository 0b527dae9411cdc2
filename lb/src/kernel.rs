//! The eBPF data plane: loading, attaching, adopting.
//!
//! Read first: [`Kernel`], the data plane as control sees it, and [`Program`],
//! the program in the kernel with its tables mapped into this process.
//!
//! Limits: the program learns next hops from the kernel's FIB, so forwarding
//! must be on (`net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`). On a
//! veth pair, XDP needs the peer's transmit checksum offload off, since frames
//! it redirects carry no word of a checksum still to be made; TC does not.

mod arena;
mod attach;
mod clock;
mod dataplane;
mod flows;
mod hops;
mod options;
mod plane;
mod preflight;
mod program;
mod read;
mod region;
#[cfg(test)]
mod tests;
mod vips;

pub use attach::Attachment;
pub use dataplane::Kernel;
pub use options::Options;
pub use preflight::{Facts, facts};
pub use program::{Hook, Outcome, Program, Tables};
pub use region::Region;
