//! Progress, on standard error so that results can be piped.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

/// How often progress is shown on a terminal, and elsewhere.
const PERIODS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// Shows what `line` says again and again until it is dropped or stopped.
pub(super) struct Sight {
    task: tokio::task::JoinHandle<()>,
    stop: DropGuard,
}

impl Sight {
    pub(super) fn start(quiet: bool, line: impl Fn() -> String + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            if !quiet {
                show(line, token).await;
            }
        });
        Self {
            task,
            stop: stop.drop_guard(),
        }
    }

    /// Shows the last line once and ends.
    pub(super) async fn end(self) {
        self.stop.disarm().cancel();
        let _ = self.task.await;
    }
}

async fn show(line: impl Fn() -> String, stop: CancellationToken) {
    let terminal = std::io::stderr().is_terminal();
    let start = Instant::now();
    let period = if terminal { PERIODS.0 } else { PERIODS.1 };
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    loop {
        let ended = stop.run_until_cancelled(tick.tick()).await.is_none();
        let text = format!("{:6.1} s  {}", start.elapsed().as_secs_f64(), line());
        let end = if !terminal || ended { "\n" } else { "" };
        let begin = if terminal { "\r\x1b[K" } else { "" };
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "{begin}{text}{end}").and_then(|()| out.flush());
        if ended {
            return;
        }
    }
}
