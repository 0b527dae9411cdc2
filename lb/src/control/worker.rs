use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Control;
use crate::dataplane::Dataplane;
use crate::journal::Link;

/// Requests that wait while one is served.
const WAITING: usize = 64;

/// How often new flows are taken where nobody is told: what is not taken does
/// not harm, but a restarted journal should not begin with old ones.
const ALONE: Duration = Duration::from_secs(1);

/// The thread that owns a control: data planes use calls that block, and one
/// owner needs no locks. It carries the flow journal between requests.
///
/// It ends soon after it is dropped, without touching what the data plane does.
#[derive(Debug)]
pub struct Worker<D> {
    requests: Option<SyncSender<Request<D>>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread owns.
pub struct Driven<D> {
    /// The control of the data plane.
    pub control: Control<D>,
    /// The way to the other balancers.
    pub link: Option<Link>,
    /// Why the last exchange of flows failed.
    pub trouble: Option<String>,
    interval: Duration,
    finish: Option<Finish<D>>,
}

type Finish<D> = Box<dyn FnOnce(D) + Send>;

type Request<D> = Box<dyn FnOnce(&mut Driven<D>) + Send>;

/// The thread has ended, by a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the control thread has ended")]
pub struct Ended;

impl<D: Dataplane + 'static> Worker<D> {
    /// Starts the thread and makes on it what it owns: a control, and a link
    /// with the interval of its turns.
    ///
    /// # Errors
    ///
    /// What `make` says.
    ///
    /// # Panics
    ///
    /// The system cannot start a thread.
    pub fn start<E: Send + 'static>(
        make: impl FnOnce() -> Result<(Control<D>, Option<(Link, Duration)>), E> + Send + 'static,
    ) -> Result<Self, E> {
        let (requests, inbox) = sync_channel::<Request<D>>(WAITING);
        let (result, wait) = sync_channel(1);
        let run = move || match make() {
            Ok((control, link)) => {
                let interval = link.as_ref().map_or(ALONE, |(_, interval)| *interval);
                let _ = result.send(Ok(()));
                let driven = Driven {
                    control,
                    link: link.map(|(link, _)| link),
                    trouble: None,
                    interval,
                    finish: None,
                };
                driven.run(&inbox);
            }
            Err(error) => {
                let _ = result.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("lb-control".to_owned());
        let thread = thread.spawn(run).expect("the system can start a thread");
        wait.recv().expect("the thread answers or panics")?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Does something with what the thread owns, and waits for it.
    ///
    /// # Errors
    ///
    /// The thread has ended.
    pub fn call<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Driven<D>) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (answer, wait) = sync_channel(1);
        let request: Request<D> = Box::new(move |driven| {
            let _ = answer.send(what(driven));
        });
        let requests = self.requests.as_ref().ok_or(Ended)?;
        requests.send(request).map_err(|_| Ended)?;
        wait.recv().map_err(|_| Ended)
    }

    /// Ends the thread, and does a last thing with the data plane; without
    /// that it goes on as it is.
    ///
    /// # Errors
    ///
    /// The thread has ended before, by a panic.
    pub fn end<T: Send + 'static>(
        mut self,
        last: impl FnOnce(D) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (answer, wait) = sync_channel(1);
        let finish: Finish<D> = Box::new(move |dataplane| {
            let _ = answer.send(last(dataplane));
        });
        self.call(move |driven| driven.finish = Some(finish))?;
        self.requests = None;
        let done = wait.recv().map_err(|_| Ended);
        let thread = self.thread.take().ok_or(Ended)?;
        thread.join().map_err(|_| Ended)?;
        done
    }
}

impl<D: Dataplane> Driven<D> {
    fn run(mut self, inbox: &Receiver<Request<D>>) {
        let mut busy = false;
        loop {
            let wait = if busy { Duration::ZERO } else { self.interval };
            match inbox.recv_timeout(wait) {
                Ok(request) => request(&mut self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            busy = self.turn();
        }
        if let Some(finish) = self.finish.take() {
            finish(self.control.into_dataplane());
        }
    }

    /// One turn of the journal; gives whether there is more to do.
    fn turn(&mut self) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        match link.turn(&mut self.control, Instant::now()) {
            Ok(busy) => {
                self.trouble = None;
                busy
            }
            Err(error) => {
                self.trouble = Some(chain(&error));
                false
            }
        }
    }
}

impl<D: std::fmt::Debug> std::fmt::Debug for Driven<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driven")
            .field("control", &self.control)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// An error with its sources, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| {
        format!("{text}: {source}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::Memory;

    #[test]
    fn a_request_is_answered_by_the_thread_that_owns_the_control() {
        let worker =
            Worker::start(|| Control::adopt(Memory::default()).map(|c| (c, None))).unwrap();
        let thread = worker
            .call(|driven| {
                assert_eq!(driven.control.dataplane().plans, 0);
                std::thread::current().name().map(str::to_owned)
            })
            .unwrap();
        assert_eq!(thread.as_deref(), Some("lb-control"));
        assert_eq!(worker.end(|dataplane| dataplane.plans).unwrap(), 0);
    }

    #[test]
    fn a_control_that_cannot_be_made_starts_nothing() {
        let made = Worker::<Memory>::start(|| Err("no"));
        assert_eq!(made.unwrap_err(), "no");
    }
}
