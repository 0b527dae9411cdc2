use std::fmt;
use std::future::{Future, pending};
use std::io;

use tokio::signal::unix;
use tokio::sync::mpsc;

/// A signal that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGINT, from a terminal.
    Interrupt,
    /// SIGTERM, from an init system or the kubelet.
    Terminate,
}

impl Signal {
    /// Its number on Linux, see signal(7).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Where signals come from: the kernel, or a channel in tests and in processes
/// with several lifecycles.
pub trait Signals: Send {
    /// The next signal; waits forever when there will be none.
    fn next(&mut self) -> impl Future<Output = Signal> + Send;
}

/// The signals of this process. While it exists they no longer kill it.
#[derive(Debug)]
pub struct UnixSignals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl UnixSignals {
    /// Takes over SIGINT and SIGTERM. They stay taken over until the process
    /// ends, so this belongs before anything that has to be undone.
    ///
    /// # Errors
    ///
    /// What the kernel says when it refuses a handler.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(unix::SignalKind::interrupt())?,
            terminate: unix::signal(unix::SignalKind::terminate())?,
        })
    }
}

impl Signals for UnixSignals {
    async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => pending().await,
        }
    }
}

impl Signals for mpsc::Receiver<Signal> {
    async fn next(&mut self) -> Signal {
        match self.recv().await {
            Some(signal) => signal,
            None => pending().await,
        }
    }
}
