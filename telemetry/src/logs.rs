use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Registry, reload};

use crate::{Error, Level};

/// What log lines look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// One line for people.
    Text,
}

/// Libraries whose lines about single frames and connections would drown ours;
/// they are heard from `INFO` up, and only if we log that much ourselves.
const CHATTY: [&str; 6] = [
    "h2",
    "hyper",
    "hyper_util",
    "netlink",
    "opentelemetry",
    "tower",
];

/// The name server tells of every question at `INFO`.
const PER_PACKET: &str = "hickory_server";

pub(crate) fn filter(level: Level) -> Targets {
    let chatty = LevelFilter::from(level.min(Level::Info));
    let per_packet = match level {
        Level::Trace => LevelFilter::TRACE,
        level => LevelFilter::from(level.min(Level::Warn)),
    };
    Targets::new()
        .with_default(level)
        .with_targets(CHATTY.map(|target| (target, chatty)))
        .with_target(PER_PACKET, per_packet)
}

pub(crate) type Handle = reload::Handle<Targets, Registry>;

/// Changes the log level while the process runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LevelSwitch {
    handle: Handle,
    configured: Level,
    tracing: Arc<AtomicBool>,
}

impl LevelSwitch {
    pub(crate) fn new(handle: Handle, configured: Level) -> Self {
        Self {
            handle,
            configured,
            tracing: Arc::default(),
        }
    }

    /// The level in force.
    #[must_use]
    pub fn level(&self) -> Level {
        if self.tracing.load(Relaxed) {
            Level::Trace
        } else {
            self.configured
        }
    }

    /// Logs everything from now on; what SIGUSR1 does.
    pub fn trace(&self) {
        self.tracing.store(true, Relaxed);
        self.apply();
    }

    /// Goes back to the configured level; what SIGUSR2 does.
    pub fn restore(&self) {
        self.tracing.store(false, Relaxed);
        self.apply();
    }

    /// Changes the level at SIGUSR1 and SIGUSR2 until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// [`Error::Signals`] when the kernel refuses the handlers.
    pub async fn follow_signals(self, stop: CancellationToken) -> Result<(), Error> {
        let mut up = signal(SignalKind::user_defined1()).map_err(Error::Signals)?;
        let mut back = signal(SignalKind::user_defined2()).map_err(Error::Signals)?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(()) = up.recv() => self.trace(),
                Some(()) = back.recv() => self.restore(),
                else => return Ok(()),
            }
        }
    }

    fn apply(&self) {
        let level = self.level();
        // Fails only when the logs are gone, and then there is nothing to say.
        if self.handle.reload(filter(level)).is_ok() {
            // Plain `level` is the line's own.
            tracing::info!(log.level = %level, "log level changed");
        }
    }
}
