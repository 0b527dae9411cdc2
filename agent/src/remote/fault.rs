//! Errors on the wire: what a caller may act on arrives as what it was.

use std::io;

use carrick_proto::agent as wire;
use carrick_proto::agent::error::Error as Kind;
use carrick_types::{ConnectionId, Invalid, Vni};

use super::convert::{netns_from_wire, netns_to_wire};
use crate::Error;

/// The error as part of an answer; `Err` if it is none that concerns the request.
pub(super) fn to_wire(error: Error) -> Result<wire::Error, tonic::Status> {
    let kind = match error {
        Error::Invalid(invalid) => invalid_to_wire(invalid),
        Error::Kernel { step, source } => Kind::Kernel(wire::Kernel {
            step,
            errno: number(&source),
            source: source.to_string(),
        }),
        Error::NoDevice { id, netns } => Kind::NoDevice(wire::NoDevice {
            id: id.to_string(),
            netns: Some(netns_to_wire(&netns)),
        }),
        Error::NoNetns { netns, source } => Kind::NoNetns(wire::NoNetns {
            netns: Some(netns_to_wire(&netns)),
            errno: number(&source),
            source: source.to_string(),
        }),
        Error::Unavailable(source) => {
            return Err(tonic::Status::unavailable(source.to_string()));
        }
        Error::VniInUse { vni, port } => Kind::VniInUse(wire::VniInUse {
            vni: vni.value(),
            port: port.into(),
        }),
    };
    Ok(wire::Error { error: Some(kind) })
}

fn invalid_to_wire(invalid: Invalid) -> Kind {
    Kind::Invalid(wire::Invalid {
        field: invalid.field,
        value: invalid.value,
        expected: invalid.expected.to_owned(),
    })
}

/// The error in an answer, if there is one.
pub(super) fn from_wire(error: Option<wire::Error>) -> Result<(), Error> {
    let Some(error) = error else {
        return Ok(());
    };
    let unknown = || Error::Unavailable("the agent answers with an error not known here".into());
    Err(match error.error.ok_or_else(unknown)? {
        // What can be said beforehand was checked before the request was sent,
        // with the exact words.
        Kind::Invalid(invalid) => {
            let expected = "what this version of the agent takes";
            Error::Invalid(Invalid::new(invalid.field, invalid.value, expected))
        }
        Kind::Kernel(kernel) => Error::Kernel {
            step: kernel.step,
            source: io_error(kernel.errno, kernel.source),
        },
        Kind::NoDevice(device) => Error::NoDevice {
            id: ConnectionId::new(device.id).map_err(Error::Invalid)?,
            netns: netns_from_wire(device.netns),
        },
        Kind::NoNetns(netns) => Error::NoNetns {
            netns: netns_from_wire(netns.netns),
            source: io_error(netns.errno, netns.source),
        },
        Kind::VniInUse(in_use) => Error::VniInUse {
            vni: Vni::new(in_use.vni).map_err(Error::Invalid)?,
            port: u16::try_from(in_use.port).unwrap_or_default(),
        },
    })
}

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}

/// The plain error of the system where the words are its own.
fn io_error(number: i32, words: String) -> io::Error {
    let plain = io::Error::from_raw_os_error(number);
    if number != 0 && plain.to_string() == words {
        plain
    } else {
        io::Error::new(plain.kind(), words)
    }
}
