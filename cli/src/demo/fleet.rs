//! The programs of the demo: this same binary, started in the namespaces.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::netns::within;

/// How long a program has for an orderly end.
const GRACE: Duration = Duration::from_secs(30);

/// How a program is started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Its name, also of its log file.
    pub(crate) name: String,
    /// The namespace it runs in.
    pub(crate) netns: String,
    /// Arguments of `carrick`.
    pub(crate) args: Vec<String>,
    /// Its settings.
    pub(crate) env: BTreeMap<&'static str, String>,
}

/// The programs that run.
#[derive(Debug)]
pub(crate) struct Fleet {
    logs: PathBuf,
    running: Vec<(Program, Child)>,
}

impl Fleet {
    /// None yet; logs will be below `logs`.
    pub(crate) fn new(logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self {
            logs: logs.into(),
            running: Vec::new(),
        })
    }

    /// Starts a program.
    pub(crate) async fn start(&mut self, program: Program) -> Result<()> {
        let child = self.spawn(&program).await?;
        self.running.push((program, child));
        Ok(())
    }

    async fn spawn(&self, program: &Program) -> Result<Child> {
        let log = self.logs.join(format!("{}.log", program.name));
        let open = File::options().create(true).append(true).open(&log);
        let log = open.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args(&program.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&program.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let runtime = tokio::runtime::Handle::current();
        let spawn = move || {
            let _runtime = runtime.enter();
            command.spawn()
        };
        let child = within(&program.netns, spawn).await;
        child.with_context(|| format!("cannot start {}", program.name))
    }

    /// Kills a program at once, as a crash would, and starts it again after `pause`.
    pub(crate) async fn crash(&mut self, name: &str, pause: Duration) -> Result<()> {
        let at = self
            .running
            .iter()
            .position(|(program, _)| program.name == name);
        let at = at.with_context(|| format!("{name} does not run"))?;
        let (program, child) = &mut self.running[at];
        child
            .kill()
            .await
            .with_context(|| format!("cannot kill {name}"))?;
        let program = program.clone();
        sleep(pause).await;
        self.running[at].1 = self.spawn(&program).await?;
        Ok(())
    }

    /// Ends all programs in order, last started first; names of those that did
    /// not end by themselves or ended with an error.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        let mut bad = Vec::new();
        while let Some((program, mut child)) = self.running.pop() {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            match timeout(GRACE, child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => bad.push(format!("{} ended with {status}", program.name)),
                _ => bad.push(format!("{} did not end within {GRACE:?}", program.name)),
            }
        }
        bad
    }

    /// Says which program has ended unasked, if one has.
    pub(crate) fn check(&mut self) -> Result<()> {
        for (program, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                let log = self.logs.join(format!("{}.log", program.name));
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(12)..].join("\n");
                bail!(
                    "{} ended with {status}; its last words:\n{tail}",
                    program.name
                );
            }
        }
        Ok(())
    }
}
