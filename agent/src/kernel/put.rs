//! Links: made, changed in place, replaced.

use std::io;
use std::os::fd::AsRawFd as _;

use carrick_types::{ConnectionId, Invalid};

use super::batch::{Done, converge_end, delete_device, make, observe_end};
use super::netlink::error_number;
use super::netns::Namespaces;
use super::observe::{Device, DeviceKind, Slot};
use super::settle::settle;
use super::state::{Dressing, EndState};
use super::step::{self, Step, Vxlan};
use crate::identity::Alias;
use crate::{Error, Link, LinkKind, Netns, Side};

/// Makes a link as it shall be and writes down what was done.
pub(super) fn put_link(
    namespaces: &mut Namespaces,
    link: &Link,
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    match &link.kind {
        LinkKind::Given => put_given(namespaces, link, journal),
        LinkKind::Veth { far } => put_veth(namespaces, link, &far.netns, journal),
        LinkKind::VethOpen { netns, .. } => put_veth(namespaces, link, netns, journal),
        LinkKind::Vxlan {
            vni,
            local,
            remote,
            port,
        } => {
            let vxlan = Vxlan {
                vni: *vni,
                local: *local,
                remote: *remote,
                port: *port,
            };
            put_vxlan(namespaces, link, vxlan, journal)
        }
    }
}

fn put_given(
    namespaces: &mut Namespaces,
    link: &Link,
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    let netns = &link.near.netns;
    let device = find(namespaces, netns, &link.id, link.side)?.ours();
    let device = device.ok_or_else(|| Error::NoDevice {
        id: link.id.clone(),
        netns: netns.clone(),
    })?;
    let wanted = EndState::near(link);
    if !is_nobodys(&device) {
        return change_end(namespaces, netns, device.index, &wanted, journal);
    }
    let was = EndState {
        dressing: Some(Dressing::default()),
        ..device.state
    };
    change_from(namespaces, netns, device.index, was, &wanted, journal)
}

/// Whether nobody has claimed a device, so that nothing lies on it yet.
fn is_nobodys(device: &Device) -> bool {
    let alias = Alias::parse(&device.state.alias);
    alias.is_some_and(|alias| alias.is_owned_by(""))
}

fn put_veth(
    namespaces: &mut Namespaces,
    link: &Link,
    far_netns: &Netns,
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    let netns = &link.near.netns;
    let near = EndState::near(link);
    let far = EndState::far(link).expect("a veth has a far end");
    let near_slot = find(namespaces, netns, &link.id, link.side)?;
    let far_slot = find(namespaces, far_netns, &link.id, link.side.other())?;
    if let (Slot::Ours(near_device), Slot::Ours(far_device)) = (&near_slot, &far_slot)
        && near_device.kind == DeviceKind::Veth
        && near_device.peer == Some(far_device.index)
    {
        change_end(namespaces, netns, near_device.index, &near, journal)?;
        return change_end(namespaces, far_netns, far_device.index, &far, journal);
    }
    let near_index = clear(namespaces, netns, link, link.side, near_slot, journal)?;
    let far_index = clear(
        namespaces,
        far_netns,
        link,
        link.side.other(),
        far_slot,
        journal,
    )?;
    let create = Step::CreateVeth {
        near: new_device(&near, near_index),
        far: new_device(&far, far_index),
        netns: namespaces.enter(far_netns)?.file.as_raw_fd(),
    };
    let mut steps = vec![create];
    steps.extend(near.fresh().steps(&near, near_index));
    journal.push(Done::MadeLink {
        netns: netns.clone(),
        index: near_index,
    });
    if let Err(error) = make(namespaces, netns, &steps) {
        let is_near = namespaces.enter(netns)?.socket.has(&near.name);
        return Err(match is_near {
            Ok(false) => name_in_use(error, &far.name),
            _ => error,
        });
    }
    make(namespaces, far_netns, &far.fresh().steps(&far, far_index))?;
    settle(namespaces, netns, near_index)?;
    if far.has_v6() {
        settle(namespaces, far_netns, far_index)?;
    }
    Ok(())
}

fn put_vxlan(
    namespaces: &mut Namespaces,
    link: &Link,
    vxlan: Vxlan,
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    let netns = &link.near.netns;
    let near = EndState::near(link);
    let slot = find(namespaces, netns, &link.id, link.side)?;
    if let Slot::Ours(device) = &slot
        && device.kind == DeviceKind::Vxlan(vxlan)
    {
        return change_end(namespaces, netns, device.index, &near, journal);
    }
    let index = clear(namespaces, netns, link, link.side, slot, journal)?;
    let create = create_vxlan(namespaces, netns, &near, index, vxlan)?;
    make(namespaces, &Netns::Own, &[create]).map_err(|e| vni_in_use(e, vxlan))?;
    journal.push(Done::MadeLink {
        netns: netns.clone(),
        index,
    });
    make(namespaces, netns, &near.fresh().steps(&near, index))?;
    if near.has_v6() {
        settle(namespaces, netns, index)?;
    }
    Ok(())
}

/// Where the socket's namespace is the underlay, the device can be anywhere.
fn create_vxlan(
    namespaces: &mut Namespaces,
    netns: &Netns,
    state: &EndState,
    index: u32,
    vxlan: Vxlan,
) -> Result<Step, Error> {
    Ok(Step::CreateVxlan {
        device: new_device(state, index),
        netns: namespaces.enter(netns)?.file.as_raw_fd(),
        vxlan,
    })
}

/// The near name and the indices are known to be free; what exists is the name
/// that somebody chose.
fn name_in_use(error: Error, name: &str) -> Error {
    match error {
        Error::Kernel { source, .. } if error_number(&source) == Some(nix::libc::EEXIST) => {
            let expected = "a name that no other interface of the namespace has";
            Error::Invalid(Invalid::new(Link::FAR_NAME, name, expected))
        }
        other => other,
    }
}

/// The name and the index are known to be free or the kernel says so in other
/// words; what exists then is the identifier.
fn vni_in_use(error: Error, vxlan: Vxlan) -> Error {
    match error {
        Error::Kernel { source, .. } if is_vni_in_use(&source) => Error::VniInUse {
            vni: vxlan.vni,
            port: vxlan.port,
        },
        other => other,
    }
}

fn is_vni_in_use(error: &io::Error) -> bool {
    error_number(error) == Some(nix::libc::EEXIST) && error.to_string().contains("VNI")
}

fn find(
    namespaces: &mut Namespaces,
    netns: &Netns,
    id: &ConnectionId,
    side: Side,
) -> Result<Slot, Error> {
    let step = format!("look for the link of connection {id} in {netns}");
    let handle = namespaces.enter(netns)?;
    handle.socket.slot(id, side).map_err(Error::kernel(step))
}

/// Changes one end in place, unless it is as it shall be.
fn change_end(
    namespaces: &mut Namespaces,
    netns: &Netns,
    index: u32,
    wanted: &EndState,
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    if is_as(namespaces, netns, index, wanted)? {
        return Ok(());
    }
    match observe_end(namespaces, netns, index)? {
        Some(was) => change_from(namespaces, netns, index, was, wanted, journal),
        None => Ok(()),
    }
}

/// Changes one end that is as `was`.
fn change_from(
    namespaces: &mut Namespaces,
    netns: &Netns,
    index: u32,
    was: EndState,
    wanted: &EndState,
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    let steps = was.steps(wanted, index);
    if steps.is_empty() {
        return Ok(());
    }
    journal.push(Done::ChangedEnd {
        netns: netns.clone(),
        index,
        was: Box::new(was),
    });
    make(namespaces, netns, &steps)?;
    if !is_as(namespaces, netns, index, wanted)? {
        return converge_end(namespaces, netns, index, wanted);
    }
    if wanted.has_v6() {
        settle(namespaces, netns, index)?;
    }
    Ok(())
}

fn is_as(
    namespaces: &mut Namespaces,
    netns: &Netns,
    index: u32,
    wanted: &EndState,
) -> Result<bool, Error> {
    let handle = namespaces.enter(netns)?;
    let is_as = handle.socket.is_as(index, wanted);
    is_as.map_err(Error::kernel(format!("read a device in {netns}")))
}

/// Makes room for a new device: removes one of another kind, and says which
/// index is free.
fn clear(
    namespaces: &mut Namespaces,
    netns: &Netns,
    link: &Link,
    side: Side,
    slot: Slot,
    journal: &mut Vec<Done>,
) -> Result<u32, Error> {
    match slot {
        Slot::Free(index) => Ok(index),
        Slot::Ours(device) => {
            remove(namespaces, netns, &device, journal)?;
            Ok(device.index)
        }
        Slot::Taken => Err(Error::Kernel {
            step: format!("find an index for connection {}, {side:?} side", link.id),
            source: io::Error::from(io::ErrorKind::AddrInUse),
        }),
    }
}

fn remove(
    namespaces: &mut Namespaces,
    netns: &Netns,
    device: &Device,
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    let index = device.index;
    if let DeviceKind::Vxlan(vxlan) = device.kind
        && let Some(was) = observe_end(namespaces, netns, index)?
    {
        journal.push(Done::RemovedVxlan {
            own: create_vxlan(namespaces, netns, &was, index, vxlan)?,
            netns: netns.clone(),
            index,
            was: Box::new(was),
        });
    }
    delete_device(namespaces, netns, index)
}

fn new_device(state: &EndState, index: u32) -> step::Device {
    step::Device {
        index,
        name: state.name.clone(),
        mac: state.mac,
        mtu: state.mtu,
    }
}
