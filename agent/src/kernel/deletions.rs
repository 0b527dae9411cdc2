//! Deletions of links, gathered: the kernel waits for all its CPUs after each,
//! some ten milliseconds, however many devices are deleted at once.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use carrick_types::ConnectionId;
use tokio::sync::{Semaphore, oneshot};

use super::batch::{delete_device, make};
use super::netns::Namespaces;
use super::observe::Slot;
use super::step::Step;
use crate::{Error, Netns, Side};

/// Namespaces in which links are deleted at the same time.
const CONCURRENT: usize = 8;

/// The deletions that wait, by namespace.
#[derive(Debug)]
pub(super) struct Deletions {
    own: Arc<File>,
    waiting: Arc<Mutex<HashMap<Netns, Vec<Waiting>>>>,
    places: Arc<Semaphore>,
}

/// One link that shall not be there.
#[derive(Debug)]
struct Waiting {
    id: ConnectionId,
    side: Side,
    deleted: oneshot::Sender<Result<(), Error>>,
}

/// The task that deletes has ended, which only a defect of ours can cause.
#[derive(Debug, thiserror::Error)]
#[error("the task that deletes links has ended")]
struct Ended;

impl Deletions {
    /// Deletions of an agent whose own namespace is `own`.
    pub(super) fn new(own: File) -> Self {
        Self {
            own: Arc::new(own),
            waiting: Arc::default(),
            places: Arc::new(Semaphore::new(CONCURRENT)),
        }
    }

    /// Deletes a link, together with those of the same namespace that are to be
    /// deleted at the same time.
    pub(super) async fn delete(
        &self,
        netns: Netns,
        id: ConnectionId,
        side: Side,
    ) -> Result<(), Error> {
        let (deleted, done) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock().expect("no holder of this lock panics");
            let links = waiting.entry(netns.clone()).or_default();
            links.push(Waiting { id, side, deleted });
            links.len() == 1
        };
        if is_first {
            self.start(netns);
        }
        let ended = |_| Error::Unavailable(Box::new(Ended));
        done.await.map_err(ended)?
    }

    /// Deletes what waits for `netns` as soon as there is a place; more may come meanwhile.
    fn start(&self, netns: Netns) {
        let (own, waiting) = (Arc::clone(&self.own), Arc::clone(&self.waiting));
        let places = Arc::clone(&self.places);
        tokio::spawn(async move {
            let place = places.acquire_owned().await;
            let links = waiting
                .lock()
                .expect("no holder of this lock panics")
                .remove(&netns);
            let links = links.unwrap_or_default();
            tokio::task::spawn_blocking(move || {
                delete_all(&own, &netns, links);
                drop(place);
            });
        });
    }
}

/// Deletes links of one namespace and tells who waits.
fn delete_all(own: &File, netns: &Netns, links: Vec<Waiting>) {
    let own = own.try_clone().and_then(Namespaces::of);
    let mut namespaces = match own {
        Ok(namespaces) => namespaces,
        Err(e) => return fail(links, &e),
    };
    let mut found = Vec::with_capacity(links.len());
    for link in links {
        match find(&mut namespaces, netns, &link) {
            Ok(Some(index)) => found.push((index, link)),
            Ok(None) => answer(link, Ok(())),
            Err(e) => answer(link, Err(e)),
        }
    }
    let indices: Vec<u32> = found.iter().map(|(index, _)| *index).collect();
    let together = delete_together(&mut namespaces, netns, &indices);
    for (index, link) in found {
        let deleted = match &together {
            Ok(()) => Ok(()),
            Err(_) => delete_device(&mut namespaces, netns, index),
        };
        answer(link, deleted);
    }
}

fn find(namespaces: &mut Namespaces, netns: &Netns, link: &Waiting) -> Result<Option<u32>, Error> {
    let Some(handle) = namespaces.find(netns)? else {
        return Ok(None);
    };
    let step = || format!("find the link of connection {} in {netns}", link.id);
    let slot = handle.socket.slot(&link.id, link.side);
    match slot.map_err(|e| Error::kernel(step())(e))? {
        Slot::Ours(device) => Ok(Some(device.index)),
        Slot::Free(_) | Slot::Taken => Ok(None),
    }
}

/// Puts the devices into a group of their own and deletes that.
fn delete_together(
    namespaces: &mut Namespaces,
    netns: &Netns,
    indices: &[u32],
) -> Result<(), Error> {
    match indices {
        [] => Ok(()),
        [index] => delete_device(namespaces, netns, *index),
        _ => {
            let steps = indices.iter().map(|&index| Step::Condemn { index });
            make(namespaces, netns, &steps.collect::<Vec<_>>())?;
            make(namespaces, netns, &[Step::DeleteCondemned])
        }
    }
}

fn answer(link: Waiting, result: Result<(), Error>) {
    let _ = link.deleted.send(result); // nobody waits any more
}

fn fail(links: Vec<Waiting>, error: &io::Error) {
    for link in links {
        let source = io::Error::new(error.kind(), error.to_string());
        let step = format!("delete the link of connection {}", link.id);
        answer(link, Err(Error::Kernel { step, source }));
    }
}
