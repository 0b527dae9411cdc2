//! A batch of changes: made in order, undone together.

use std::io;

use super::netlink::error_number;
use super::netns::Namespaces;
use super::put::put_link;
use super::router::put_router;
use super::settle::settle;
use super::state::{EndState, RouterState};
use super::step::Step;
use crate::{Change, Error, Netns, Side};
use carrick_types::ConnectionId;

/// What a batch has done, so that it can be undone.
#[derive(Debug)]
pub(super) enum Done {
    /// A device was changed; this is how it was.
    ChangedEnd {
        netns: Netns,
        index: u32,
        was: Box<EndState>,
    },
    /// A router was changed; this is how it was.
    ChangedRouter { netns: Netns, was: RouterState },
    /// A link was made; the other end goes with this one.
    MadeLink { netns: Netns, index: u32 },
    /// A namespace was made.
    MadeNetns { name: String },
    /// A VXLAN was replaced; these steps make it again.
    RemovedVxlan {
        own: Step,
        netns: Netns,
        index: u32,
        was: Box<EndState>,
    },
}

/// Makes what the changes put, or nothing of it.
pub(super) fn put(namespaces: &mut Namespaces, changes: &[Change]) -> Result<(), Error> {
    let mut journal = Vec::new();
    let made = put_all(namespaces, changes, &mut journal);
    if made.is_err() {
        undo(namespaces, journal);
    }
    made
}

fn put_all(
    namespaces: &mut Namespaces,
    changes: &[Change],
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    for change in changes {
        match change {
            Change::PutLink(link) => put_link(namespaces, link, journal)?,
            Change::PutRouter(router) => put_router(namespaces, router, journal)?,
            Change::DeleteLink { .. } | Change::DeleteRouter { .. } => {}
        }
    }
    Ok(())
}

/// Whether a batch puts something.
pub(super) fn puts(changes: &[Change]) -> bool {
    changes
        .iter()
        .any(|change| matches!(change, Change::PutLink(_) | Change::PutRouter(_)))
}

/// The links to be deleted, but those that are put again behind.
pub(super) fn deleted_links(changes: &[Change]) -> Vec<(Netns, ConnectionId, Side)> {
    let deleted = changes.iter().enumerate();
    deleted
        .filter_map(|(position, change)| match change {
            Change::DeleteLink { netns, id, side }
                if !puts_link(&changes[position..], netns, id, *side) =>
            {
                Some((netns.clone(), id.clone(), *side))
            }
            _ => None,
        })
        .collect()
}

/// The routers to be deleted, but those that are put again behind.
pub(super) fn deleted_routers(changes: &[Change]) -> Vec<Netns> {
    let deleted = changes.iter().enumerate();
    deleted
        .filter_map(|(position, change)| match change {
            Change::DeleteRouter { netns } if !puts_router(&changes[position..], netns) => {
                Some(netns.clone())
            }
            _ => None,
        })
        .collect()
}

fn puts_link(changes: &[Change], netns: &Netns, id: &ConnectionId, side: Side) -> bool {
    changes.iter().any(|change| match change {
        Change::PutLink(link) => (&link.near.netns, &link.id, link.side) == (netns, id, side),
        _ => false,
    })
}

fn puts_router(changes: &[Change], netns: &Netns) -> bool {
    changes
        .iter()
        .any(|change| matches!(change, Change::PutRouter(router) if router.netns == *netns))
}

/// Deletes a device and with it a veth's other end.
pub(super) fn delete_device(
    namespaces: &mut Namespaces,
    netns: &Netns,
    index: u32,
) -> Result<(), Error> {
    match make(namespaces, netns, &[Step::Delete { index }]) {
        Err(Error::Kernel { source, .. }) if is_gone(&source) => Ok(()),
        result => result,
    }
}

/// Makes steps in a namespace; the error names the first that was refused.
pub(super) fn make(
    namespaces: &mut Namespaces,
    netns: &Netns,
    steps: &[Step],
) -> Result<(), Error> {
    if steps.is_empty() {
        return Ok(());
    }
    let handle = namespaces.enter(netns)?;
    let messages = steps.iter().map(Step::message).collect();
    let refused = handle
        .socket
        .change(messages)
        .map_err(Error::kernel(format!("talk to the kernel in {netns}")))?;
    let Some(first) = refused
        .into_iter()
        .find(|refusal| !steps[refusal.position].is_met(&refusal.source))
    else {
        return Ok(());
    };
    Err(Error::Kernel {
        step: format!("{} in {netns}", steps[first.position]),
        source: first.source,
    })
}

impl Step {
    /// Whether a refusal means that all is as it shall be already.
    fn is_met(&self, refusal: &io::Error) -> bool {
        use super::step::Toggle::{Add, Remove};
        use nix::libc::{EADDRNOTAVAIL, EEXIST, ENOENT, ESRCH};
        let number = error_number(refusal);
        match self {
            Self::Address { toggle: Remove, .. } => number == Some(EADDRNOTAVAIL),
            Self::Neighbor { toggle: Remove, .. } => number == Some(ENOENT),
            Self::Route { toggle: Remove, .. } | Self::Unreachable { toggle: Remove, .. } => {
                number == Some(ESRCH)
            }
            Self::Route { toggle: Add, .. } | Self::Unreachable { toggle: Add, .. } => {
                number == Some(EEXIST)
            }
            _ => false,
        }
    }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    error_number(error) == Some(nix::libc::ENODEV)
}

/// Takes back what a failed batch has done, last first. What cannot be taken
/// back is logged: the caller gets the error that began it.
fn undo(namespaces: &mut Namespaces, journal: Vec<Done>) {
    for done in journal.into_iter().rev() {
        if let Err(error) = undo_one(namespaces, &done) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                ?done,
                "could not undo a part of a failed batch"
            );
        }
    }
}

fn undo_one(namespaces: &mut Namespaces, done: &Done) -> Result<(), Error> {
    match done {
        Done::ChangedEnd { netns, index, was } => converge_end(namespaces, netns, *index, was),
        Done::ChangedRouter { netns, was } => super::router::converge(namespaces, netns, was),
        Done::MadeLink { netns, index } => delete_device(namespaces, netns, *index),
        Done::MadeNetns { name } => namespaces.remove(name),
        Done::RemovedVxlan {
            own,
            netns,
            index,
            was,
        } => {
            namespaces.enter(netns)?;
            make(namespaces, &Netns::Own, std::slice::from_ref(own))?;
            converge_end(namespaces, netns, *index, was)
        }
    }
}

/// Rounds of looking and changing: removing a last address takes routes with
/// it, which the second round puts back; the third finds nothing to do.
const ROUNDS: usize = 3;

/// Makes a device as `wanted`, whatever it is like now.
pub(super) fn converge_end(
    namespaces: &mut Namespaces,
    netns: &Netns,
    index: u32,
    wanted: &EndState,
) -> Result<(), Error> {
    for _ in 0..ROUNDS {
        let Some(now) = observe_end(namespaces, netns, index)? else {
            return Ok(());
        };
        let steps = now.steps(wanted, index);
        if steps.is_empty() {
            break;
        }
        make(namespaces, netns, &steps)?;
    }
    if wanted.has_v6() {
        settle(namespaces, netns, index)?;
    }
    Ok(())
}

/// Reads one end; `None` if it is gone.
pub(super) fn observe_end(
    namespaces: &mut Namespaces,
    netns: &Netns,
    index: u32,
) -> Result<Option<EndState>, Error> {
    let Some(handle) = namespaces.find(netns)? else {
        return Ok(None);
    };
    let device = handle
        .socket
        .end(index)
        .map_err(Error::kernel(format!("read a device in {netns}")))?;
    Ok(device.map(|device| device.state))
}
