//! The agent as two processes: one that may change the network, and one that
//! asks it to.

mod bind;
mod client;
mod convert;
mod fault;
mod server;

pub use client::RemoteAgent;
pub use server::{Server, ServerError};
