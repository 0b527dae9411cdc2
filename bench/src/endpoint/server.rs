//! A server under load: its process, its socket, what it has used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::identities::Identities;
use anyhow::{Context, Result, bail, ensure};
use carrick_grpc::Channel;
use carrick_grpc::{Security, Url, dial};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval};

/// Longest wait for a server to listen.
const START: Duration = Duration::from_secs(20);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// `carrick nse` with its full chain and durable state, but without links.
    Carrick,
    /// The same, but with its state in memory only.
    CarrickInMemory,
    /// The endpoint of the Go SDK with the same elements; it keeps no state.
    Go,
    /// A bare tonic server that answers each Request with itself.
    Echo,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Carrick => "Carrick",
            Self::CarrickInMemory => "Carrick, in memory",
            Self::Go => "Go",
            Self::Echo => "echo",
        }
    }
}

/// Where the programs are.
#[derive(Clone)]
pub(crate) struct Programs {
    pub(crate) carrick: PathBuf,
    /// `None` where Go is missing.
    pub(crate) go: Option<PathBuf>,
    /// How they and the load generator know each other.
    pub(crate) identities: Identities,
}

/// A server in a process of its own; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    clock: ClockId,
    socket: PathBuf,
    security: Security,
    _dir: TempDir,
}

impl Server {
    pub(crate) async fn start(subject: Subject, programs: &Programs) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("sock");
        let mut command = match subject {
            Subject::Carrick => carrick(&programs.carrick, &socket, Some(dir.path())),
            Subject::CarrickInMemory => carrick(&programs.carrick, &socket, None),
            Subject::Go => go(programs.go.as_deref().context("Go is missing")?, &socket),
            Subject::Echo => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("echo").arg(&socket);
                command
            }
        };
        let identities = match subject {
            Subject::Echo => &Identities::none(),
            _ => &programs.identities,
        };
        match identities.socket() {
            Some(api) => command.env(
                "SPIFFE_ENDPOINT_SOCKET",
                format!("unix://{}", api.display()),
            ),
            None => command.env("NSM_INSECURE", "true"),
        };
        Self::spawn(command, socket, identities.security().clone(), dir).await
    }

    async fn spawn(
        mut command: Command,
        socket: PathBuf,
        security: Security,
        dir: TempDir,
    ) -> Result<Self> {
        command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log"))?)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let (begin, mut tick) = (Instant::now(), interval(Duration::from_millis(10)));
        while !socket.exists() {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
                bail!("{command:?} ended with {status}: {log}");
            }
            ensure!(begin.elapsed() < START, "{command:?} does not listen");
            tick.tick().await;
        }
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.context("the server has ended")?;
        Ok(Self {
            child,
            clock: clock_getcpuclockid(Pid::from_raw(pid)).context("no clock of the server")?,
            socket,
            security,
            _dir: dir,
        })
    }

    /// A new channel; it connects with its first call.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        let url = Url::unix(&self.socket);
        Ok(dial(&url, &self.security, Duration::from_secs(10)).await?)
    }

    /// Processor time used so far by all of its threads, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(self.clock.now().context("the server has ended")?.into())
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> Result<f64> {
        let pid = self.child.id().context("the server has ended")?;
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).context("the server has ended")?;
        resident_kib(&status).context("no VmRSS")
    }
}

fn resident_kib(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn carrick(program: &Path, socket: &Path, state: Option<&Path>) -> Command {
    let mut command = Command::new(program);
    command
        .arg("nse")
        .env_clear()
        .env("NSM_NAME", "bench")
        .env("NSM_SERVICE_NAMES", "vl3")
        .env("NSM_LISTEN_ON", format!("unix://{}", socket.display()))
        // Of its own: the server before this one may not be gone yet.
        .env(
            "CARRICK_REGISTRY_LISTEN_ON",
            format!("unix://{}", socket.with_file_name("registry").display()),
        )
        .env("NSM_LOG_LEVEL", "ERROR")
        .env("CARRICK_PREFIXES", "10.0.0.0/8")
        .env("CARRICK_NETWORKS", "10.0.0.0/8")
        .env("CARRICK_AGENT", "none")
        .env("CARRICK_DNS_LISTEN", "127.0.0.1:0")
        .env("CARRICK_MAX_CONNECTIONS", "1000000")
        .env("CARRICK_STATE_DIR", state.unwrap_or(Path::new("")));
    command
}

fn go(program: &Path, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("nse")
        .env("NSM_NAME", "bench")
        .env("NSM_SERVICE_NAMES", "vl3")
        .env("NSM_CONNECT_TO", "")
        .env("NSM_LISTEN_ON", format!("unix://{}", socket.display()))
        .env("CARRICK_PREFIXES", "10.0.0.0/8")
        .env("CARRICK_DNS_LISTEN", "127.0.0.1:0");
    command
}

/// The `carrick` binary: `CARRICK_BIN`, or the one beside this program.
pub(crate) fn beside() -> Result<PathBuf> {
    let carrick = match std::env::var_os("CARRICK_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("carrick"),
    };
    fs::canonicalize(&carrick).with_context(|| {
        let missing = carrick.display();
        format!(
            "{missing} is missing: cargo build --release -p carrick, or name one in CARRICK_BIN"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status() {
        let status = "Name:\tx\nVmSize:\t  99 kB\nVmRSS:\t   1234 kB\n";
        assert_eq!(resident_kib(status), Some(1234.0));
        assert_eq!(resident_kib("Name:\tx\n"), None);
    }
}
