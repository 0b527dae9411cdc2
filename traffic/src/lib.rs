//! Traffic that judges a load balancer, whichever it is.
//!
//! A [`Server`] tells its name to whoever connects; a [`Client`] opens many connections and counts who answered; a
//! [`Watch`] holds flows and notes what happens to each of them. What they find is a [`Report`] or a [`WatchReport`];
//! [`Spread`] and [`Frequencies`] say how even it is, [`histogram`] draws it.
//!
//! Read [`Client`] and [`Report`] first. On the wire it is what mconnect speaks: the server writes its name when a
//! connection comes and once more for each read, and answers each datagram with it.
//!
//! Limits: the name is read with one `read`, so it must fit into a segment; SCTP is one-to-one style and needs a
//! kernel that has it.

pub mod client;
mod error;
pub mod frequency;
pub mod histogram;
mod limits;
pub mod report;
pub mod server;
pub mod sources;
pub mod statistics;
pub mod transport;
pub mod watch;

pub use client::{Client, Progress};
pub use error::Error;
pub use frequency::Frequencies;
pub use limits::allow_open_files;
pub use report::Report;
pub use server::{Name, Server};
pub use sources::Sources;
pub use statistics::{Spread, Verdict};
pub use transport::Transport;
pub use watch::{Watch, WatchReport};
