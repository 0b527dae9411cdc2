//! The conversation with the kernel.

use std::{fmt, io};

use nix::sys::socket::{setsockopt, sockopt};
use nlink::netlink::netfilter::{ConntrackEntry, ConntrackFilter, ConntrackStatus};
use nlink::netlink::{Connection, Netfilter, Nftables};
use tokio::runtime::{Builder, Runtime};

use crate::dataplane::Error;

/// Room for the largest transaction: tables of a million slots.
const SEND_BUFFER: usize = 256 << 20;

/// Netlink sockets in the network namespace of the thread that made it.
///
/// The library is asynchronous and its callers need not be: every exchange
/// runs on a thread of its own, so that it may be asked from anywhere.
pub(super) struct Session {
    nftables: Connection<Nftables>,
    conntrack: Connection<Netfilter>,
    runtime: Runtime,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn open() -> Result<Self, Error> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::io("start a runtime for netlink", e))?;
        let failed = |e| Error::access("open a netlink socket", e);
        let (nftables, conntrack) = on_thread(|| {
            let _within = runtime.enter();
            let nftables = Connection::<Nftables>::new()?;
            Ok((nftables, Connection::<Netfilter>::new()?))
        })
        .map_err(|e: nlink::Error| failed(e))?;
        let set = setsockopt(nftables.socket(), sockopt::SndBufForce, &SEND_BUFFER)
            .or_else(|_| setsockopt(nftables.socket(), sockopt::SndBuf, &SEND_BUFFER));
        set.map_err(|e| Error::io("enlarge the netlink buffer", e.into()))?;
        Ok(Self {
            nftables,
            conntrack,
            runtime,
        })
    }

    /// Runs one exchange with nftables.
    pub(super) fn ask<T: Send>(
        &self,
        what: &str,
        ask: impl AsyncFnOnce(&Connection<Nftables>) -> nlink::Result<T> + Send,
    ) -> Result<T, Error> {
        on_thread(|| self.runtime.block_on(ask(&self.nftables))).map_err(|e| Error::access(what, e))
    }

    /// Connections whose destination is translated, with the mark.
    pub(super) fn connections(&self, mark: Option<u32>) -> Result<Vec<ConntrackEntry>, Error> {
        let filter = match mark {
            Some(mark) => ConntrackFilter::new().mark(mark, u32::MAX),
            None => {
                ConntrackFilter::new().status(ConntrackStatus::DST_NAT, ConntrackStatus::DST_NAT)
            }
        };
        on_thread(|| {
            let ask = self.conntrack.get_conntrack_matching(&filter);
            self.runtime.block_on(ask)
        })
        .map_err(|e| Error::access("list connections", e))
    }

    /// Forgets connections; gives how many were still there.
    pub(super) fn forget(&self, entries: &[ConntrackEntry]) -> Result<u64, Error> {
        on_thread(|| {
            self.runtime.block_on(async {
                let mut forgotten = 0;
                for entry in entries {
                    match self.conntrack.del_conntrack_entry(entry).await {
                        Ok(()) => forgotten += 1,
                        Err(gone) if gone.is_not_found() => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(forgotten)
            })
        })
        .map_err(|e| Error::access("forget connections", e))
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(work);
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether this namespace forwards packets of the family.
pub(super) fn forwards(ip: super::layout::Ip) -> io::Result<bool> {
    let path = match ip {
        super::layout::Ip::V4 => "/proc/sys/net/ipv4/ip_forward",
        super::layout::Ip::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    Ok(std::fs::read_to_string(path)?.trim() != "0")
}
