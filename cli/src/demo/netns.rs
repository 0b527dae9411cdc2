//! Doing something inside a network namespace: on a thread that enters it and
//! ends, since a thread of the runtime must not change its namespace.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

/// Runs `work` inside the namespace `name`. What it opens or starts stays there.
pub(crate) async fn within<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = Path::new("/run/netns").join(name);
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name(format!("in-{name}"))
        .spawn(move || {
            let result = enter(&path).and_then(|()| work());
            let _ = done.send(result);
        })?;
    result
        .await
        .map_err(|_| io::Error::other("the work in the namespace panicked"))?
}

/// Runs a future inside the namespace `name`, with a runtime of its own so that
/// every socket it opens is there.
pub(crate) async fn within_async<F>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<F::Output>
where
    F: Future,
    F::Output: Send + 'static,
{
    within(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(work()))
    })
    .await
}

fn enter(path: &Path) -> io::Result<()> {
    Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?)
}
