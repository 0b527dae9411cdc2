use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until a file is to be read again: on SIGHUP, or when it has changed.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    seen: Option<Mark>,
    hangup: Signal,
    look: Interval,
}

/// What differs when a file was written or replaced, also through a link.
type Mark = (u64, u64, i64, i64);

impl Watch {
    /// Watches a file from now on.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            path: path.to_owned(),
            seen: mark(path),
            hangup: signal(SignalKind::hangup())?,
            look,
        })
    }

    /// Waits; gives why the file is to be read.
    pub(super) async fn changed(&mut self) -> &'static str {
        loop {
            tokio::select! {
                Some(()) = self.hangup.recv() => {
                    self.seen = mark(&self.path);
                    return "SIGHUP";
                }
                _ = self.look.tick() => {
                    if self.differs() {
                        return "the file changed";
                    }
                }
            }
        }
    }

    /// Whether the file is another than at the last look.
    fn differs(&mut self) -> bool {
        let now = mark(&self.path);
        // A file that is gone for a moment is being replaced.
        let differs = now.is_some() && now != self.seen;
        if differs {
            self.seen = now;
        }
        differs
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_is_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.yaml");
        std::fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(&path).unwrap();
        assert!(!watch.differs());
        let next = dir.path().join("next");
        std::fs::write(&next, "bb").unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert!(watch.differs() && !watch.differs());
        std::fs::remove_file(&path).unwrap();
        assert!(!watch.differs());
    }
}
