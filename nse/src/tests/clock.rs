//! A paused clock that knows of the store.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use carrick_store::Store;
use tokio_util::task::AbortOnDropHandle;

/// Lets a paused clock go on while it lives, in steps, and only between the
/// commits of a store.
///
/// A paused clock jumps to the next timer once all tasks wait, and knows nothing
/// of the store's writer, which is a thread: every commit would end in its
/// caller's deadline. There must be one clock at a time.
#[derive(Debug)]
pub(super) struct Clock {
    _moves: AbortOnDropHandle<()>,
    /// What keeps the clock from jumping ends with it.
    _stands: Sender<()>,
}

impl Clock {
    const STEP: Duration = Duration::from_millis(250);

    pub(super) fn of(store: &Store) -> Self {
        let (stands, ended) = channel::<()>();
        // No jump while a blocking task is under way.
        tokio::task::spawn_blocking(move || _ = ended.recv());
        let last = store.table::<()>("clock");
        let moves = tokio::spawn(async move {
            // Commits are made in order: what was asked for before is done.
            while last.put("last", &()).await.is_ok() {
                tokio::time::advance(Self::STEP).await;
            }
        });
        Self {
            _moves: AbortOnDropHandle::new(moves),
            _stands: stands,
        }
    }
}
