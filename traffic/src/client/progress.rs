//! How far a client is.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted while a client runs, for whoever wants to show it.
#[derive(Debug, Default)]
pub struct Progress {
    expected: AtomicU64,
    made: AtomicU64,
    failed: AtomicU64,
    held: AtomicU64,
}

/// What is so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Connections that are asked for.
    pub expected: u64,
    /// Made and answered.
    pub made: u64,
    /// Not made or not answered.
    pub failed: u64,
    /// Held open now that all are made.
    pub held: u64,
}

impl Progress {
    pub(crate) fn expect(&self, connections: u64) {
        self.expected.store(connections, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, made: bool) {
        let counter = if made { &self.made } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn hold(&self, connections: usize) {
        self.held.store(connections as u64, Ordering::Relaxed);
    }

    /// What is so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen {
            expected: self.expected.load(Ordering::Relaxed),
            made: self.made.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
        }
    }
}
