//! A server under load: its process, its socket, what it has used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use carrick_grpc::Channel;
use carrick_grpc::{Security, Url, dial};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval};

/// Longest wait for a server to listen.
const START: Duration = Duration::from_secs(20);

/// A server in a process of its own; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
    _dir: TempDir,
}

impl Server {
    /// The endpoint with its full chain and durable state, but without links.
    pub(crate) async fn endpoint(carrick: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(carrick);
        command
            .arg("nse")
            .env_clear()
            .env("NSM_NAME", "bench")
            .env("NSM_SERVICE_NAMES", "vl3")
            .env(
                "NSM_LISTEN_ON",
                format!("unix://{}", dir.path().join("sock").display()),
            )
            .env("NSM_LOG_LEVEL", "ERROR")
            .env("CARRICK_PREFIXES", "10.0.0.0/8")
            .env("CARRICK_NETWORKS", "10.0.0.0/8")
            .env("CARRICK_AGENT", "none")
            .env("CARRICK_DNS_LISTEN", "127.0.0.1:0")
            .env("CARRICK_STATE_DIR", dir.path());
        Self::start(command, dir).await
    }

    /// This program as the baseline.
    pub(crate) async fn echo() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--echo").arg(dir.path().join("sock"));
        Self::start(command, dir).await
    }

    async fn start(mut command: Command, dir: TempDir) -> Result<Self> {
        let socket = dir.path().join("sock");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let (begin, mut tick) = (Instant::now(), interval(Duration::from_millis(10)));
        while !socket.exists() {
            if let Some(status) = child.try_wait()? {
                bail!("{command:?} ended with {status}");
            }
            ensure!(begin.elapsed() < START, "{command:?} does not listen");
            tick.tick().await;
        }
        Ok(Self {
            child,
            socket,
            _dir: dir,
        })
    }

    pub(crate) async fn channel(&self) -> Result<Channel> {
        let url = Url::unix(&self.socket);
        Ok(dial(&url, &Security::insecure(), Duration::from_secs(5)).await?)
    }

    /// Processor time used so far, user and system, in milliseconds.
    pub(crate) fn cpu_ms(&self) -> Result<f64> {
        let stat = self.read("stat")?;
        // Fields behind the name, which may hold anything: utime and stime are 14 and 15.
        let fields = stat.rsplit_once(')').context("no process name")?.1;
        let ticks: Vec<f64> = fields
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
            .collect();
        let [user, system] = [10, 11].map(|at: usize| ticks.get(at).copied().unwrap_or_default());
        // The kernel shows hundredths of a second (USER_HZ) on every platform.
        Ok((user + system) * 10.0)
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> Result<f64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.context("no VmRSS")
    }

    fn read(&self, file: &str) -> Result<String> {
        let pid = self.child.id().context("the server has ended")?;
        fs::read_to_string(format!("/proc/{pid}/{file}")).context("the server has ended")
    }
}

/// The `carrick` binary beside this program.
pub(crate) fn beside() -> Result<PathBuf> {
    let carrick = std::env::current_exe()?.with_file_name("carrick");
    ensure!(
        carrick.exists(),
        "{} is missing: cargo build --release -p carrick",
        carrick.display()
    );
    Ok(carrick)
}
