//! What keeps traffic from beginning. What happens to single connections is a result, not an error.

use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::Transport;

/// Why a server, a client or a watch could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no such protocol.
    #[error("this kernel has no {transport}{}", hint(*.transport))]
    NoTransport {
        /// What was asked for.
        transport: Transport,
    },
    /// A listener could not be opened.
    #[error("cannot listen on {address} ({transport})")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What.
        transport: Transport,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket of a listener failed.
    #[error("{transport} at {address} failed")]
    Serve {
        /// Where.
        address: SocketAddr,
        /// What.
        transport: Transport,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sources and target are of different families.
    #[error("sources {sources} cannot reach {target}: both must be IPv4 or both IPv6")]
    Family {
        /// The prefix of the sources.
        sources: IpNet,
        /// The target.
        target: SocketAddr,
    },
    /// An address of the sources cannot be used here.
    #[error(
        "source {address} cannot be used here; make the whole prefix local: ip route add local {sources} dev lo"
    )]
    Source {
        /// The address that was tried.
        address: std::net::IpAddr,
        /// Its prefix.
        sources: IpNet,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More files than this process may open.
    #[error(
        "{needed} sockets are wanted, but this process may open {allowed} files: raise it with `ulimit -n`"
    )]
    Files {
        /// What is needed.
        needed: u64,
        /// What the limit is.
        allowed: u64,
    },
    /// The limit of open files could not be asked for or raised.
    #[error("cannot raise the limit of open files")]
    Limit(#[source] io::Error),
}

fn hint(transport: Transport) -> &'static str {
    match transport {
        Transport::Sctp => " (its module is called sctp)",
        Transport::Tcp | Transport::Udp => "",
    }
}
