//! The thread that talks to the kernel.

use std::io;

use carrick_types::IfName;
use tokio::sync::{mpsc, oneshot};

use super::held::HeldNamespaces;
use super::netns::Namespaces;
use super::observe::DeviceKind;
use crate::{Error, Found, Netns};

/// Jobs that may wait; who comes then waits to hand in.
const WAITING_MAX: usize = 256;

type Job = Box<dyn FnOnce(&mut Namespaces) + Send>;

/// A handle on the thread; it ends when the last one is dropped.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
}

/// The thread has ended, which only a defect of ours can cause.
#[derive(Debug, thiserror::Error)]
#[error("the thread that talks to the kernel has ended")]
struct Ended;

impl Worker {
    /// Starts the thread in the calling thread's namespace.
    pub(super) fn start(held: HeldNamespaces) -> io::Result<Self> {
        let mut namespaces = Namespaces::new(held)?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING_MAX);
        std::thread::Builder::new()
            .name("agent".to_owned())
            .spawn(move || {
                while let Some(job) = waiting.blocking_recv() {
                    job(&mut namespaces);
                    namespaces.tidy();
                }
            })?;
        Ok(Self { jobs })
    }

    /// Has the thread do `work`, behind what was handed in before. The work is
    /// done even if the caller goes away meanwhile.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Namespaces) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |namespaces| {
            let _ = answer.send(work(namespaces)); // nobody waits any more
        });
        let ended = || Error::Unavailable(Box::new(Ended));
        self.jobs.send(job).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

/// The links of `owner` in a namespace.
pub(super) fn list(
    namespaces: &mut Namespaces,
    netns: &Netns,
    owner: &str,
) -> Result<Vec<Found>, Error> {
    let Some(handle) = namespaces.find(netns)? else {
        return Ok(Vec::new());
    };
    let step = || Error::kernel(format!("list the links in {netns}"));
    let devices = handle.socket.devices().map_err(step())?;
    let mut routed = handle.socket.routed().map_err(step())?;
    let found = devices
        .into_iter()
        .filter(|(device, alias)| device.kind != DeviceKind::Other && alias.is_owned_by(owner))
        .filter_map(|(device, alias)| {
            Some(Found {
                id: alias.id,
                side: alias.side,
                owner: owner.to_owned(),
                netns: netns.clone(),
                name: IfName::new(&device.state.name).ok()?,
                up: device.carrier,
                mtu: device.state.mtu,
                routes: routed.remove(&device.index).unwrap_or_default(),
            })
        });
    Ok(found.collect())
}
