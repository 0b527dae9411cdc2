//! This project's balancer, as its users run it: `carrick lb run` in the balancer's namespace.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{ProgramFd, loaded_programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::netns::within;
use super::packets::PORT as RIG_PORT;
use super::world::{PORT, VIP};

/// Longest wait for the balancer to do what it was told.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// What packets are balanced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plane {
    Nftables,
    Tc,
    Xdp,
}

impl Plane {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "carrick, nftables",
            Self::Tc => "carrick, TC",
            Self::Xdp => "carrick, XDP",
        }
    }

    fn settings(self) -> &'static str {
        match self {
            Self::Nftables => "dataplane: nftables",
            Self::Tc => "dataplane: ebpf, hook: tc",
            Self::Xdp => "dataplane: ebpf, hook: xdp",
        }
    }
}

/// The file of the balancer.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) plane: Plane,
    /// As the file has it.
    pub(super) policy: &'static str,
    pub(super) mode: &'static str,
    /// Further settings of the balancer, as the file has them.
    pub(super) more: String,
    /// Addresses and weights.
    pub(super) servers: Vec<(Ipv4Addr, u16)>,
}

impl Config {
    fn text(&self) -> String {
        let mut text = format!(
            "balancer: {{ name: bench, {}, interfaces: [b0, b1], address4: 198.18.0.254{} }}\n\
             services:\n  - name: bench\n    vips: [{{ prefix: {VIP}, protocols: [tcp, udp], ports: [{PORT}, {RIG_PORT}] }}]\n    \
             mode: {}\n    policy: {}\n    servers:\n",
            self.plane.settings(),
            self.more,
            self.mode,
            self.policy
        );
        for (address, weight) in &self.servers {
            writeln!(
                text,
                "      - {{ id: \"{address}\", address: {address}, weight: {weight} }}"
            )
            .expect("a String takes all text");
        }
        text
    }
}

/// A balancer that runs. Dropped, it is asked to end, and then takes its rules out of the kernel.
pub(super) struct Ours {
    child: Child,
    file: PathBuf,
    admin: PathBuf,
}

impl Ours {
    /// Starts it in a namespace; it balances when this returns.
    pub(super) fn start(carrick: &Path, namespace: &str, config: &Config) -> Result<Self> {
        let at = |what: &str| PathBuf::from(format!("/run/bench-{namespace}.{what}"));
        let (file, admin, log) = (at("yaml"), at("admin"), at("log"));
        fs::write(&file, config.text())?;
        let _ = fs::remove_file(&admin);
        let errors = File::create(&log)?;
        let mut command = Command::new(carrick);
        command
            .args(["lb", "run", "--config"])
            .arg(&file)
            .arg("--admin")
            .arg(format!("unix://{}", admin.display()))
            .env("NSM_LOG_LEVEL", "WARN")
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors);
        let child = within(namespace, || {
            command.spawn().context("cannot start the balancer")
        })?;
        let mut ours = Self { child, file, admin };
        ours.wait("the balancer is not ready", |ours| {
            if let Some(status) = ours.child.try_wait()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("{} ({status})", said.trim());
            }
            Ok(ours.get("/readyz").is_ok())
        })?;
        Ok(ours)
    }

    /// Balances otherwise from now on; what is known stays as it is.
    pub(super) fn change(&mut self, config: &Config) -> Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, config.text())?;
        fs::rename(&next, &self.file)?;
        kill(self.pid()?, Signal::SIGHUP)?;
        let mut wanted: Vec<_> = config
            .servers
            .iter()
            .filter(|(_, weight)| *weight > 0)
            .collect();
        wanted.sort_unstable();
        self.wait("the balancer does not take the change", |ours| {
            let status: Value = serde_json::from_str(&ours.get("/status")?)?;
            let servers = &status["balancer"]["services"][0]["servers"];
            let servers = servers.as_array().into_iter().flatten();
            let weighted = servers.filter_map(|server| {
                let weight = u16::try_from(server["weight"].as_u64()?).ok()?;
                Some((server["address"].as_str()?.parse().ok()?, weight))
            });
            let mut there: Vec<(Ipv4Addr, u16)> =
                weighted.filter(|(_, weight)| *weight > 0).collect();
            there.sort_unstable();
            Ok(there.iter().eq(wanted.iter().copied()))
        })
    }

    /// Tells what its data plane counted besides balanced packets, by reason.
    pub(super) fn tell_reasons(&self, tell: &mut super::Tell) -> Result<()> {
        let status: Value = serde_json::from_str(&self.get("/status")?)?;
        let reasons = status["balancer"]["reasons"]
            .as_object()
            .into_iter()
            .flatten();
        let counted = reasons.filter(|(_, count)| count.as_u64() > Some(0));
        let counted: Vec<_> = counted
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if !counted.is_empty() {
            tell(&format!("  the data plane counted: {}", counted.join(", ")));
        }
        Ok(())
    }

    /// The packet program that it has attached to an interface.
    pub(super) fn program(namespace: &str, interface: &str) -> Result<ProgramFd> {
        let shown = within(namespace, || {
            let mut command = Command::new("ip");
            command.args(["-json", "link", "show", "dev", interface]);
            command.output().context("cannot start ip")
        })?;
        let shown: Value = serde_json::from_slice(&shown.stdout)?;
        let id = shown[0]["xdp"]["prog"]["id"].as_u64();
        let id = id.with_context(|| format!("{interface} has no packet program"))?;
        let mut programs = loaded_programs().filter_map(Result::ok);
        let program = programs.find(|program| u64::from(program.id()) == id);
        Ok(program.context("the packet program is gone")?.fd()?)
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    fn wait(
        &mut self,
        complaint: &str,
        mut is_done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        while !is_done(self)? {
            ensure!(begin.elapsed() < PATIENCE, "{complaint}");
            super::rest(LOOK);
        }
        Ok(())
    }

    /// What its admin listener says.
    fn get(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(
            head.starts_with("HTTP/1.1 200"),
            "{}",
            head.lines().next().unwrap_or_default()
        );
        Ok(body.to_owned())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Ok(pid) = self.pid()
            && self.child.try_wait().is_ok_and(|ended| ended.is_none())
        {
            let _ = kill(pid, Signal::SIGTERM);
            let ended = self.wait("it does not end", |ours| {
                Ok(ours.child.try_wait()?.is_some())
            });
            if ended.is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_that_the_balancer_takes() {
        let config = Config {
            plane: Plane::Xdp,
            policy: "{ name: spill, above: 5 }",
            mode: "nat",
            more: ", flows: 65536".into(),
            servers: vec![
                (Ipv4Addr::new(10, 1, 0, 1), 1),
                (Ipv4Addr::new(10, 1, 0, 2), 0),
            ],
        };
        let read = carrick_lb::config::Config::read(&config.text()).unwrap();
        let services: Vec<_> = read.wanted.services().collect();
        assert_eq!(services.len(), 1);
        assert_eq!(services[0].servers.len(), 2);
    }
}
