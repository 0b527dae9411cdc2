use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};

use super::program::PROGRAM;
use super::{Hook, Program};
use crate::dataplane::Error;

/// An interface and the hook of it that the program runs at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// Name of the interface, in the network namespace of the calling thread.
    pub interface: String,
    /// Where.
    pub hook: Hook,
}

impl Attachment {
    /// The pin of its link.
    fn pin(&self, pins: &Path) -> PathBuf {
        pins.join(format!(
            "link-{}-{}",
            self.hook.name(),
            self.interface.replace('.', "_")
        ))
    }
}

fn failed(what: &Attachment, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let Attachment { interface, hook } = what;
    Error::access(format!("attach to {interface} at {}", hook.name()), error)
}

/// Attaches the program. With pins, a link left by an earlier process gets
/// this program at once, without a packet between; else a new link is pinned.
pub(super) fn attach(
    program: &mut Program,
    to: &Attachment,
    pins: Option<&Path>,
) -> Result<(), Error> {
    let pin = pins.map(|pins| to.pin(pins));
    if let Some(pin) = pin.as_ref().filter(|pin| pin.exists()) {
        if take_over(program, to, pin).is_ok() {
            return Ok(());
        }
        // The interface it was on is gone; so is what it did.
        fs::remove_file(pin).map_err(|error| failed(to, error))?;
    }
    let link = new_link(program, to)?;
    if let Some(pin) = pin {
        // What is pinned outlives the descriptor that is dropped here.
        link.pin(pin).map_err(|error| failed(to, error))?;
    } else {
        program.links.push(link);
    }
    Ok(())
}

fn new_link(program: &mut Program, to: &Attachment) -> Result<FdLink, Error> {
    let inner = program
        .ebpf
        .program_mut(PROGRAM)
        .expect("the object holds it");
    match to.hook {
        Hook::Xdp => {
            let xdp = <&mut Xdp>::try_from(inner).map_err(|error| failed(to, error))?;
            let id = xdp
                .attach(&to.interface, XdpMode::default())
                .map_err(|error| failed(to, error))?;
            let link: XdpLink = xdp.take_link(id).map_err(|error| failed(to, error))?;
            FdLink::try_from(link).map_err(|error| failed(to, error))
        }
        Hook::Tc | Hook::TcEgress => {
            let tc = <&mut SchedClassifier>::try_from(inner).map_err(|error| failed(to, error))?;
            let side = match to.hook {
                Hook::TcEgress => TcAttachType::Egress,
                _ => TcAttachType::Ingress,
            };
            let id = tc
                .attach(&to.interface, side)
                .map_err(|error| failed(to, error))?;
            let link: SchedClassifierLink = tc.take_link(id).map_err(|error| failed(to, error))?;
            FdLink::try_from(link).map_err(|error| failed(to, error))
        }
    }
}

fn take_over(program: &mut Program, to: &Attachment, pin: &Path) -> Result<(), Error> {
    let link: FdLink = PinnedLink::from_pin(pin)
        .map_err(|error| failed(to, error))?
        .into();
    let inner = program
        .ebpf
        .program_mut(PROGRAM)
        .expect("the object holds it");
    match to.hook {
        Hook::Xdp => {
            let xdp = <&mut Xdp>::try_from(inner).map_err(|error| failed(to, error))?;
            let link = XdpLink::try_from(link).map_err(|error| failed(to, error))?;
            xdp.attach_to_link(link)
                .map_err(|error| failed(to, error))?;
        }
        Hook::Tc | Hook::TcEgress => {
            let tc = <&mut SchedClassifier>::try_from(inner).map_err(|error| failed(to, error))?;
            let link = SchedClassifierLink::try_from(link).map_err(|error| failed(to, error))?;
            tc.attach_to_link(link).map_err(|error| failed(to, error))?;
        }
    }
    Ok(())
}

/// Removes everything pinned under a directory: links first, so that no packet
/// meets the program after its tables are gone.
pub(super) fn remove(pins: &Path) -> Result<(), Error> {
    let gone = |error| Error::io(format!("remove {}", pins.display()), error);
    let entries = match fs::read_dir(pins) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(gone(error)),
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(gone)?;
    paths.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default();
        !name.to_string_lossy().starts_with("link-")
    });
    for path in paths {
        fs::remove_file(path).map_err(gone)?;
    }
    fs::remove_dir(pins).map_err(gone)
}
