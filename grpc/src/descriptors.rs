//! File descriptors beside the bytes of a unix connection, as the other
//! components of NSM pass them (`edwarnicke/grpcfd`).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstat};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::Url;

/// What tells files apart: device and inode.
pub(crate) type Identity = (u64, u64);

/// Why a descriptor that a peer announced is not there.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It came, and the process has no descriptor left to hand it out.
    #[error("cannot copy the descriptor of {0}")]
    Copy(Url, #[source] io::Error),
    /// The connection ended first.
    #[error("the connection ended before the descriptor of {0} came")]
    Ended(Url),
    /// It did not come in time.
    #[error(
        "the descriptor of {0} did not come within {wait:?}: send it over the connection of the call (SCM_RIGHTS)",
        wait = Descriptors::PATIENCE
    )]
    Late(Url),
    /// Descriptors go with `inode://` URLs only.
    #[error("{0} goes with no descriptor: only inode URLs do")]
    NotAnInode(Url),
}

/// The descriptors that came, and those that shall go, over one unix
/// connection. Cheap to clone; found in [`ConnectInfo`](crate::ConnectInfo).
///
/// They belong to the connection, not to a call, and are told apart by device
/// and inode alone. With the connection everything is closed that was not
/// received or sent; copies that were handed out live on.
#[derive(Clone)]
pub struct Descriptors(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    /// In the order of sending, each file once.
    outgoing: VecDeque<(Identity, Arc<OwnedFd>)>,
    /// In the order of arrival, each file once.
    received: VecDeque<Received>,
    refused: u64,
    has_ended: bool,
}

struct Received {
    identity: Identity,
    file: OwnedFd,
    until: Instant,
    is_claimed: bool,
}

impl Descriptors {
    /// Most descriptors that wait at a time in either direction, 256: more
    /// network namespaces and sockets than a node has pods. What a peer sends
    /// beyond is closed.
    pub const WAITING_MAX: usize = 256;
    /// How long a descriptor that nobody asks for is held, 60 s: as long as a
    /// call may take.
    pub const KEPT: Duration = Duration::from_secs(60);
    /// How long an announced descriptor is waited for, 2 s. A sender has it on
    /// its way before the call that names it.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            arrived: Notify::new(),
        }))
    }

    /// Sends `file` with the next bytes that go over the connection, thus
    /// before the answer that names it by the URL returned.
    ///
    /// # Errors
    ///
    /// The file cannot be examined, or too many wait to be sent already, as
    /// with a peer that does not read.
    pub fn send(&self, file: impl Into<OwnedFd>) -> io::Result<Url> {
        let file = file.into();
        let identity = identity_of(&file)?;
        self.queue(identity, &Arc::new(file))?;
        Ok(Url::Inode(identity.0, identity.1))
    }

    /// The file that an `inode://` URL of this connection names, waiting for
    /// it as long as [`Descriptors::PATIENCE`].
    ///
    /// # Errors
    ///
    /// See [`ReceiveError`].
    pub async fn receive(&self, url: &Url) -> Result<OwnedFd, ReceiveError> {
        let Url::Inode(device, inode) = *url else {
            return Err(ReceiveError::NotAnInode(url.clone()));
        };
        let arrival = async {
            loop {
                let arrived = self.0.arrived.notified();
                tokio::pin!(arrived);
                // Registered before the look, so that no arrival is missed.
                arrived.as_mut().enable();
                if let Some(file) = self.claim((device, inode), url)? {
                    return Ok(file);
                }
                arrived.await;
            }
        };
        let arrival = timeout(Self::PATIENCE, arrival).await;
        arrival.unwrap_or_else(|_| Err(ReceiveError::Late(url.clone())))
    }

    /// The file that an `inode://` URL of this connection names, if it came
    /// already.
    #[must_use]
    pub fn received(&self, url: &Url) -> Option<OwnedFd> {
        let Url::Inode(device, inode) = *url else {
            return None;
        };
        self.claim((device, inode), url).ok().flatten()
    }

    /// How many descriptors were closed because too many waited.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// How many came and wait for somebody to ask.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().received.len()
    }

    fn claim(&self, identity: Identity, url: &Url) -> Result<Option<OwnedFd>, ReceiveError> {
        let mut state = self.lock();
        let mut received = state.received.iter_mut();
        let Some(found) = received.find(|received| received.identity == identity) else {
            return if state.has_ended {
                Err(ReceiveError::Ended(url.clone()))
            } else {
                Ok(None)
            };
        };
        // A copy, as others may ask for it, too: a sender may send once for
        // several calls.
        let file = found.file.try_clone();
        found.is_claimed = true;
        file.map(Some)
            .map_err(|e| ReceiveError::Copy(url.clone(), e))
    }

    pub(crate) fn queue(&self, identity: Identity, file: &Arc<OwnedFd>) -> io::Result<()> {
        let mut state = self.lock();
        let is_queued = state.outgoing.iter().any(|(queued, _)| *queued == identity);
        if is_queued || state.has_ended {
            return Ok(());
        }
        if state.outgoing.len() >= Self::WAITING_MAX {
            let full = "too many descriptors wait to be sent over the connection";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, full));
        }
        state.outgoing.push_back((identity, Arc::clone(file)));
        Ok(())
    }

    /// The next one to send; it stays the next until [`Self::sent`].
    pub(crate) fn next(&self) -> Option<Arc<OwnedFd>> {
        let state = self.lock();
        state.outgoing.front().map(|(_, file)| Arc::clone(file))
    }

    pub(crate) fn sent(&self) {
        self.lock().outgoing.pop_front();
    }

    /// Takes what one read brought.
    pub(crate) fn take(&self, files: impl Iterator<Item = OwnedFd>) {
        let mut state = self.lock();
        let now = Instant::now();
        state.expire(now);
        let mut has_come = false;
        for file in files {
            has_come |= state.take(file, now);
        }
        drop(state);
        if has_come {
            self.0.arrived.notify_waiters();
        }
    }

    /// Closes what is left; who waits is told.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        let left = (
            std::mem::take(&mut state.outgoing),
            std::mem::take(&mut state.received),
        );
        drop(state);
        drop(left);
        self.0.arrived.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expire(&mut self, now: Instant) {
        while self.received.front().is_some_and(|it| it.until <= now) {
            self.received.pop_front();
        }
    }

    /// Whether it is held; what is not is closed.
    fn take(&mut self, file: OwnedFd, now: Instant) -> bool {
        let Ok(identity) = identity_of(&file) else {
            return false;
        };
        let place = self.received.iter().position(|it| it.identity == identity);
        if let Some(place) = place {
            self.received.remove(place);
        } else if self.received.len() >= Descriptors::WAITING_MAX && !self.make_room() {
            if self.refused == 0 {
                warn!("a peer sends more file descriptors than anybody asks for, closing them");
            }
            self.refused += 1;
            return false;
        }
        self.received.push_back(Received {
            identity,
            file,
            until: now + Descriptors::KEPT,
            is_claimed: false,
        });
        true
    }

    /// What somebody asked for already is needed least.
    fn make_room(&mut self) -> bool {
        let claimed = self.received.iter().position(|it| it.is_claimed);
        claimed.is_some_and(|claimed| self.received.remove(claimed).is_some())
    }
}

/// Opens a file for nothing but to be passed on.
pub(crate) fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

pub(crate) fn identity_of(file: &impl AsFd) -> io::Result<Identity> {
    let found = fstat(file)?;
    Ok((found.st_dev, found.st_ino))
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Descriptors")
            .field("outgoing", &state.outgoing.len())
            .field("received", &state.received.len())
            .field("refused", &state.refused)
            .finish_non_exhaustive()
    }
}
