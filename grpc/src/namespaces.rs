//! Network namespaces that go along with Requests and Closes (NSM `sendfd`).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use carrick_chain::elements::OWN_NAMESPACE;
use carrick_types::{Connection, Mechanism};
use rustix::fs::{fstatfs, stat};
use tracing::{debug, warn};

use crate::descriptors::{Identity, identity_of, open_path};
use crate::{Attachment, Attachments, Descriptors, Url};

/// `NSFS_MAGIC` of the kernel's `magic.h`.
const NSFS: i64 = 0x6e73_6673;

/// This process's network namespace.
const OWN: &str = "/proc/self/ns/net";

/// What goes along with one call to the next hop, and under which URLs.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    attached: Vec<Attachment>,
    /// As sent, and as it was.
    urls: Vec<(String, String)>,
}

impl Lent {
    /// Attaches the namespaces that `connection` offers, and names them by
    /// their inodes in it.
    ///
    /// What it says besides comes from an answer, thus from the other side: of
    /// that nothing is opened but what was offered too, and our own namespace.
    pub(crate) fn attach(on: Option<&Attachments>, connection: &mut Connection) -> Self {
        let mut lent = Self::default();
        let Some(on) = on else {
            return lent;
        };
        for offer in &mut connection.preferences {
            lent.lend(on, offer, |_, _| true);
        }
        let own = own_identity();
        let chosen = connection.mechanism.iter_mut();
        chosen.for_each(|chosen| {
            lent.lend(on, chosen, |identity, lent| {
                Some(identity) == own || lent.has(identity)
            });
        });
        lent
    }

    /// Names what was lent by the URLs that it had.
    pub(crate) fn restore(&self, answer: &mut Connection) {
        let Some(mechanism) = &mut answer.mechanism else {
            return;
        };
        let sent = mechanism.parameter(Mechanism::INODE_URL);
        let url = self.urls.iter().find(|(as_sent, _)| sent == Some(as_sent));
        if let Some((_, url)) = url {
            name(mechanism, url);
        }
    }

    fn lend(
        &mut self,
        on: &Attachments,
        mechanism: &mut Mechanism,
        may: impl FnOnce(Identity, &Self) -> bool,
    ) {
        let Some(url) = mechanism.parameter(Mechanism::INODE_URL).map(str::to_owned) else {
            return;
        };
        match open(&url) {
            Ok(Some(file)) if identity_of(&file).is_ok_and(|identity| may(identity, self)) => {
                match on.attach(file) {
                    Ok(attached) => {
                        let as_sent = attached.url().to_string();
                        name(mechanism, &as_sent);
                        self.attached.push(attached);
                        self.urls.push((as_sent, url));
                    }
                    Err(error) => warn!(%error, url, "the network namespace does not go along"),
                }
            }
            Ok(_) => {}
            Err(error) => debug!(%error, url, "not a network namespace of this process's view"),
        }
    }

    fn has(&self, (device, inode): Identity) -> bool {
        let url = Url::Inode(device, inode);
        self.attached.iter().any(|attached| attached.url() == url)
    }
}

/// Sends our own namespace with an answer that names it, and names it by its
/// inode. Nothing else is ever opened for an answer: a client that offers a
/// path must not get the file at it.
pub(crate) fn give(descriptors: Option<&Descriptors>, answer: &mut Connection) {
    let Some(mechanism) = &mut answer.mechanism else {
        return;
    };
    if mechanism.parameter(Mechanism::INODE_URL) != Some(OWN_NAMESPACE) {
        return;
    }
    if let Some(url) = descriptors.and_then(send_own) {
        name(mechanism, &url.to_string());
    }
}

/// Sends our own namespace with the answer to the Close of a connection that
/// ends in it; a forwarder that forgot it waits for it.
pub(crate) fn give_back(descriptors: Option<&Descriptors>, closed: &Connection) {
    let Some(descriptors) = descriptors else {
        return;
    };
    let mechanism = closed.mechanism.as_ref();
    let url = mechanism.and_then(|mechanism| mechanism.parameter(Mechanism::INODE_URL));
    let url = url.and_then(|url| url.parse().ok());
    if let (Some(Url::Inode(device, inode)), Some(own)) = (url, own_identity())
        && (device, inode) == own
    {
        send_own(descriptors);
    }
}

fn send_own(descriptors: &Descriptors) -> Option<Url> {
    let sent = open_path(Path::new(OWN)).and_then(|own| descriptors.send(own));
    sent.inspect_err(|error| warn!(%error, "our network namespace does not go along"))
        .ok()
}

fn name(mechanism: &mut Mechanism, url: &str) {
    let parameters = &mut mechanism.parameters;
    parameters.insert(Mechanism::INODE_URL.to_owned(), url.to_owned());
}

/// The namespace that a URL names to this process, if it is one.
fn open(url: &str) -> io::Result<Option<OwnedFd>> {
    let file = match (url.strip_prefix("file://"), url.parse()) {
        (Some(path), _) => open_path(Path::new(path))?,
        (_, Ok(Url::Inode(device, inode))) if own_identity() == Some((device, inode)) => {
            open_path(Path::new(OWN))?
        }
        _ => return Ok(None),
    };
    let is_namespace = fstatfs(&file)?.f_type == NSFS;
    Ok(is_namespace.then_some(file))
}

fn own_identity() -> Option<Identity> {
    let found = stat(OWN).ok()?;
    Some((found.st_dev, found.st_ino))
}
