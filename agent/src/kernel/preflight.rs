//! What this node can do, found out by doing it where it harms nobody.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use carrick_types::{IpFamily, Vni};
use nix::libc;
use nix::sched::{CloneFlags, unshare};

use super::netlink::Socket;
use super::step::{Device, Step, Vxlan};
use super::{netns, ping};

/// Something that the kernel backend needs, or can make use of.
#[derive(Debug)]
pub struct Capability {
    /// What it is.
    pub name: &'static str,
    /// What does not work without it.
    pub purpose: &'static str,
    /// Why it is not there; `None` if it is.
    pub missing: Option<io::Error>,
}

impl Capability {
    /// Whether it is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.missing.is_none()
    }
}

/// Tries each thing that the kernel backend does in a namespace that ends with
/// the attempt. Takes some ten milliseconds; blocks.
#[must_use]
pub fn preflight() -> Vec<Capability> {
    let rows: [(&str, &str, Attempt); 8] = [
        ("network namespaces", "anything at all", || Ok(())),
        (
            "named namespaces",
            "forwarding that outlives the process",
            named,
        ),
        ("forwarding of IPv4", "routers", || {
            write("ipv4/ip_forward", "1")
        }),
        ("forwarding of IPv6", "routers with IPv6", || {
            write("ipv6/conf/all/forwarding", "1")
        }),
        ("veth", "clients on this node", veth),
        ("VXLAN", "endpoints on other nodes", vxlan),
        (
            "ping sockets",
            "checking that a link carries packets",
            ping_socket,
        ),
        ("user namespaces", "a demo without root", user_namespace),
    ];
    rows.map(|(name, purpose, attempt)| Capability {
        name,
        purpose,
        missing: in_throw_away(attempt).err(),
    })
    .into()
}

type Attempt = fn() -> io::Result<()>;

fn in_throw_away(attempt: Attempt) -> io::Result<()> {
    std::thread::Builder::new()
        .name("preflight".to_owned())
        .spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            attempt()
        })?
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn named() -> io::Result<()> {
    let name = format!("carrick-preflight-{}", std::process::id());
    netns::create(&name)?;
    netns::remove(&name)
}

fn write(setting: &str, value: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/{setting}"), value)
}

fn veth() -> io::Result<()> {
    let here = fs::File::open("/proc/thread-self/ns/net")?;
    make(&Step::CreateVeth {
        near: device("near", 10),
        far: device("far", 11),
        netns: here.as_raw_fd(),
    })
}

fn vxlan() -> io::Result<()> {
    let here = fs::File::open("/proc/thread-self/ns/net")?;
    make(&Step::CreateVxlan {
        device: device("tunnel", 10),
        netns: here.as_raw_fd(),
        vxlan: Vxlan {
            vni: Vni::new(1).expect("1 is an identifier"),
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            port: 4789,
        },
    })
}

fn device(name: &str, index: u32) -> Device {
    Device {
        index,
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 0, index.to_be_bytes()[3]],
        mtu: 1500,
    }
}

fn make(step: &Step) -> io::Result<()> {
    let refused = Socket::open()?.change(vec![step.message()])?;
    refused
        .into_iter()
        .next()
        .map_or(Ok(()), |refusal| Err(refusal.source))
}

fn ping_socket() -> io::Result<()> {
    write("ipv4/ping_group_range", "0 2147483647")?;
    ping::open(IpFamily::V4)?;
    ping::open(IpFamily::V6).map(drop)
}

/// Only a process of one thread may make a user namespace, so a child tries, just
/// before the point at which it would run another program, and says how it went.
#[expect(unsafe_code, reason = "a hook between fork and exec must do little")]
fn user_namespace() -> io::Result<()> {
    const DONE: i32 = libc::ECANCELED;
    let mut command = Command::new("/proc/self/exe");
    // SAFETY: between fork and exec this makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            unshare(CloneFlags::CLONE_NEWUSER)?;
            Err(io::Error::from_raw_os_error(DONE))
        });
    }
    match command.spawn() {
        Err(e) if e.raw_os_error() == Some(DONE) => Ok(()),
        Err(e) => Err(e),
        // The hook always fails; should it not, the child is not to stay.
        Ok(mut child) => child.kill().and_then(|()| child.wait()).map(drop),
    }
}
