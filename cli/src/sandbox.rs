//! A place of a command's own: new user (for an ordinary user), mount, process
//! and network namespaces. Whatever happens inside, even a SIGKILL of the first
//! process, the kernel takes all of it away with the last process.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};

/// Why the place cannot be made, with what would help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "new namespaces are not allowed here; run as root, or allow user namespaces \
         (sysctl user.max_user_namespaces > 0, and kernel.unprivileged_userns_clone=1 or \
         kernel.apparmor_restrict_unprivileged_userns=0 where the system has them)"
    )]
    Namespaces(#[source] io::Error),
    #[error("cannot mount {what} in the new namespace")]
    Mount {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {file}")]
    IdMap {
        file: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot start this program again inside its namespaces")]
    Start(#[source] io::Error),
}

/// Set for the process inside.
const INSIDE: &str = "CARRICK_INSIDE";

/// Whether this process is the one inside.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Starts this program again, with the same arguments, as the first process of
/// new namespaces, and waits for its end. Must be called while this process has
/// a single thread.
pub(crate) fn run_inside() -> Result<ExitCode, Error> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET;
    flags.set(CloneFlags::CLONE_NEWUSER, !uid.is_root());
    unshare(flags).map_err(|e| Error::Namespaces(e.into()))?;
    if !uid.is_root() {
        write_map("/proc/self/setgroups", "deny")?;
        write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write_map("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    let mut child = again()
        .stdin(Stdio::piped())
        .spawn()
        .map_err(Error::Start)?;
    // Closed when this process ends, however it does; see `settle`.
    let held = child.stdin.take();
    let status = child.wait().map_err(Error::Start)?;
    drop(held);
    Ok(exit_code(status))
}

fn write_map(file: &'static str, text: &str) -> Result<(), Error> {
    fs::write(file, text).map_err(|source| Error::IdMap { file, source })
}

fn again() -> Command {
    let mut command = Command::new("/proc/self/exe");
    let mut args = std::env::args_os();
    command
        .arg0(args.next().as_deref().unwrap_or(OsStr::new("carrick")))
        .args(args)
        .env(INSIDE, "1");
    command
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}

/// Makes the place fit: dies with its parent, sees its own processes, and has
/// a `/run` of its own, so that no name of what is made there is seen outside. Returns the
/// process's id as those outside see it.
pub(crate) fn settle() -> Result<String, Error> {
    // The old /proc still speaks of the namespace outside.
    let outer = fs::read_link("/proc/self").map_err(Error::Start)?;
    set_pdeathsig(Signal::SIGKILL).map_err(|e| Error::Start(e.into()))?;
    if is_orphan().map_err(|e| Error::Start(e.into()))? {
        std::process::exit(1);
    }
    mount_at(
        None,
        "/",
        None,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        "/ as private",
    )?;
    mount_at(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::empty(),
        "/proc",
    )?;
    // The program itself may lie below /run; from here on it is only needed by
    // /proc/self/exe, which does not look at the path again.
    mount_at(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        "/run",
    )?;
    fs::create_dir_all("/run/netns").map_err(|source| Error::Mount {
        what: "/run/netns",
        source,
    })?;
    Ok(outer.to_string_lossy().into_owned())
}

/// Whether the parent died before its death would have been told: its end of
/// the pipe is closed then. Asking for its id does not tell, as it is outside.
fn is_orphan() -> nix::Result<bool> {
    let stdin = io::stdin();
    let mut pipe = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
    poll(&mut pipe, PollTimeout::ZERO)?;
    let events = pipe[0].revents();
    Ok(events.is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

fn mount_at(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: MsFlags,
    what: &'static str,
) -> Result<(), Error> {
    mount(source, Path::new(target), kind, flags, None::<&str>).map_err(|e| Error::Mount {
        what,
        source: e.into(),
    })
}
