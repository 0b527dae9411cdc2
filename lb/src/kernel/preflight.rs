use std::fs;
use std::path::Path;

use crate::dataplane::Error;
use crate::service::{Mode, Service};

/// The file system type of BPF pins (`BPF_FS_MAGIC`).
const BPF_FS: u64 = 0xcafe_4a11;

/// Where BPF file systems are mounted by convention.
const USUAL: &str = "/sys/fs/bpf";

/// Makes the directory of pins; it must be in a BPF file system. The usual one
/// is mounted if it is not, as `ip` and `bpftool` do too.
pub(super) fn make_pins(pins: &Path) -> Result<(), Error> {
    if pins.starts_with(USUAL) && !is_bpf_fs(Path::new(USUAL)) {
        mount(USUAL)?;
    }
    fs::create_dir_all(pins)
        .map_err(|error| Error::io(format!("create {}", pins.display()), error))?;
    if is_bpf_fs(pins) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("pinning in {}", pins.display()),
        why: "it is in no BPF file system; mount one with: mount -t bpf bpf /sys/fs/bpf".into(),
    })
}

fn mount(path: &str) -> Result<(), Error> {
    use rustix::mount::{MountFlags, mount};
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", path, "bpf", flags, None)
        .map_err(|error| Error::io(format!("mount a BPF file system at {path}"), error.into()))
}

fn is_bpf_fs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|t| t == BPF_FS))
}

/// What this data plane can do on this machine, as `carrick preflight` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether programs can be loaded; else why not.
    pub loads: Result<(), String>,
    /// Whether a BPF file system is mounted at `/sys/fs/bpf`.
    pub bpf_fs: bool,
}

/// Tries what the data plane needs. Loads the program and lets it go again.
#[must_use]
pub fn facts() -> Facts {
    let loads = super::Program::load(super::Hook::Xdp, crate::tables::Sizes::small())
        .map(drop)
        .map_err(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        });
    Facts {
        loads,
        bpf_fs: is_bpf_fs(Path::new("/sys/fs/bpf")),
    }
}

/// Every mode is possible wherever the program loads; some combinations are not.
pub(super) fn supports(service: &Service) -> Result<(), Error> {
    let unsupported = |what: &str, why: &str| {
        Err(Error::Unsupported {
            what: what.into(),
            why: why.into(),
        })
    };
    let same_family = matches!(service.mode, Mode::Nat { .. } | Mode::L3Dsr { .. });
    let mixed = service.vips.iter().any(|vip| {
        service
            .servers
            .iter()
            .any(|server| server.address.is_ipv4() != vip.prefix.addr().is_ipv4())
    });
    if same_family && mixed {
        return unsupported(
            &format!("{} between IPv4 and IPv6", service.mode.name()),
            "it changes addresses, not the family",
        );
    }
    Ok(())
}
