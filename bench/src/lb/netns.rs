//! Work inside a network namespace, and the commands that set it up.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// Most of what a failed command complained of that is passed on, in bytes: some of them quote all they were given.
const COMPLAINT_MAX: usize = 600;

/// Runs `work` on a thread that is in the namespace `name`. What it opens and starts stays there.
pub(super) fn within<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file =
        File::open(format!("/run/netns/{name}")).with_context(|| format!("no namespace {name}"))?;
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter a namespace")?;
            work()
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command with `input`, in the namespace of this thread; an error has what it complained of.
pub(super) fn command(program: &str, args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}: is it installed?"))?;
    let mut stdin = child.stdin.take().context("the command has no input")?;
    // A command that ends early is told by its status.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let end = complaint
            .char_indices()
            .nth(COMPLAINT_MAX)
            .map_or(complaint.len(), |(at, _)| at);
        bail!(
            "{program} {} failed: {}",
            args.join(" "),
            complaint[..end].trim()
        );
    }
    Ok(())
}

/// `ip -batch` in the namespace of this thread.
pub(super) fn ip(batch: &str) -> Result<()> {
    command("ip", &["-batch", "-"], batch)
}

/// Sets a kernel parameter of this thread's namespace.
pub(super) fn sysctl(name: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::write(&file, value).with_context(|| format!("cannot write {file}"))
}
