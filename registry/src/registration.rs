use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::backoff::spread;
use crate::{Client, Endpoint, EndpointQuery, EndpointWatch, Error, Event, Service, ServiceQuery};

/// How a [`Registration`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct RegistrationOptions {
    /// Wait before a name that another endpoint holds is asked for again; 20 s
    /// by default. An NSM registry lets go of a dead holder within 1 min.
    pub conflict: Duration,
    /// Wait before a name is registered again that another endpoint had taken
    /// and that is free now; 2 s by default. A holder that the registry lost
    /// by mistake is back by then.
    pub freed: Duration,
    /// Shortest time between two registrations of what the registry keeps
    /// losing; 200 ms by default.
    pub shortest: Duration,
    /// When to register again if the registry names no time to come, be it
    /// that it does not expire entries or that the clocks differ; 20 s by default.
    pub unknown: Duration,
}

impl Default for RegistrationOptions {
    fn default() -> Self {
        Self {
            conflict: Duration::from_secs(20),
            freed: Duration::from_secs(2),
            shortest: Duration::from_millis(200),
            unknown: Duration::from_secs(20),
        }
    }
}

/// How a registration is.
#[derive(Clone, Debug)]
pub enum RegistrationState {
    /// It is not there, and this is why; attempts go on.
    Lost(Arc<Error>),
    /// No attempt has ended yet.
    Pending,
    /// It is there.
    Registered {
        /// Until when, unless it is refreshed; `None` if for ever.
        expires: Option<SystemTime>,
        /// Since when; peers order themselves by it.
        registered_at: Option<SystemTime>,
    },
}

impl RegistrationState {
    /// Whether the registry is known to have it.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        matches!(self, Self::Registered { .. })
    }
}

/// Keeps an endpoint registered, until it is told to
/// [unregister](Self::unregister) or is dropped; see [`Client::keep_registered`].
///
/// It registers again at two thirds of the time it was given (NSM `refresh`),
/// at once when the registry is seen to have lost it (NSM `heal`), and with
/// growing waits while the registry is away. Dropped, it just ends, and the
/// entry expires.
///
/// Most of NSM's registries let any endpoint replace another of the same name.
/// An endpoint with a [key](Endpoint::KEY_LABEL) sees that another one did:
/// its state is then [`Error::Taken`], and it leaves the name to the other one
/// until that is gone, as the two would else take each other's clients in turn.
#[derive(Debug)]
pub struct Registration {
    state: watch::Receiver<RegistrationState>,
    wanted: watch::Sender<Endpoint>,
    end: oneshot::Sender<Instant>,
    task: AbortOnDropHandle<Result<(), Error>>,
}

// === impl Registration ===

impl Registration {
    pub(crate) fn start(
        client: Client,
        endpoint: Endpoint,
        services: Vec<Service>,
        options: RegistrationOptions,
    ) -> Self {
        let (state_sender, state) = watch::channel(RegistrationState::Pending);
        let (wanted, wanted_receiver) = watch::channel(endpoint.clone());
        let (end, end_receiver) = oneshot::channel();
        let keeper = Keeper {
            client,
            services,
            options,
            endpoint,
            wanted: wanted_receiver,
            state: state_sender,
            own: None,
            taken: false,
            expires: None,
            period: None,
            failures: 0,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(keeper.run(end_receiver)));
        Self {
            state,
            wanted,
            end,
            task,
        }
    }

    /// How it is, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// Waits until the registry has it.
    pub async fn registered(&self) -> RegistrationState {
        let mut state = self.state.clone();
        match state.wait_for(RegistrationState::is_registered).await {
            Ok(state) => state.clone(),
            // The runtime is being shut down; this task ends with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Registers it at once with what `change` makes of it: other labels,
    /// another URL. The name stays.
    pub fn update(&self, change: impl FnOnce(&mut Endpoint)) {
        self.wanted.send_modify(|endpoint| {
            let name = endpoint.name.clone();
            change(endpoint);
            endpoint.name = name;
        });
    }

    /// Takes it out of the registry, after an attempt that is under way. Its
    /// services stay, as other endpoints may serve them.
    ///
    /// # Errors
    ///
    /// The registry did not answer until `deadline` or did not do it; the
    /// entry then goes when it expires.
    pub async fn unregister(self, deadline: Instant) -> Result<(), Error> {
        // The task may have ended only with the runtime.
        let _ = self.end.send(deadline);
        let started = Instant::now();
        let late = || Error::DeadlineExceeded {
            call: "Unregister of an endpoint",
            after: deadline - started,
        };
        let ended = timeout_at(deadline, self.task).await.map_err(|_| late())?;
        ended.unwrap_or_else(|_| Err(late()))
    }
}

/// The task behind a [`Registration`].
struct Keeper {
    client: Client,
    services: Vec<Service>,
    options: RegistrationOptions,
    /// What is registered, with the first registration time once it is known.
    endpoint: Endpoint,
    wanted: watch::Receiver<Endpoint>,
    state: watch::Sender<RegistrationState>,
    /// What the registry says of the endpoint, from the first success on.
    own: Option<EndpointWatch>,
    /// Whether another endpoint has the name.
    taken: bool,
    /// When the entry ends unless it is refreshed, while it is there.
    expires: Option<Instant>,
    /// How long the registry lets an entry live, by its own clock.
    period: Option<Duration>,
    failures: u32,
}

/// What a [`Keeper`] waits for between two attempts.
enum Wake {
    Due,
    End,
    Gone,
    Taken(Box<Endpoint>),
    Updated,
}

// === impl Keeper ===

impl Keeper {
    async fn run(mut self, mut end: oneshot::Receiver<Instant>) -> Result<(), Error> {
        loop {
            let started = Instant::now();
            let mut next = self.attempt().await;
            loop {
                match self.wait(next, &mut end).await {
                    Wake::End => return self.unregister().await,
                    Wake::Gone if self.taken => {
                        self.taken = false;
                        next = Instant::now() + self.options.freed;
                    }
                    Wake::Gone => {
                        self.expires = None;
                        next = next.min(started + self.options.shortest);
                    }
                    Wake::Taken(holder) => self.leave_to(*holder),
                    // What it shall be is read when it is registered again.
                    Wake::Updated if self.taken => {}
                    Wake::Due | Wake::Updated => break,
                }
            }
        }
    }

    /// Registers once and says when to do so again.
    async fn attempt(&mut self) -> Instant {
        let registered_at = self.endpoint.registered_at;
        self.endpoint = self.wanted.borrow_and_update().clone();
        self.endpoint.registered_at = self.endpoint.registered_at.or(registered_at);
        self.endpoint.expires = None;
        match self.register().await {
            Ok(answer) => self.succeeded(&answer),
            Err(error) => self.failed(error),
        }
    }

    /// The services come first, as clients look for these; once the endpoint
    /// is there, it does not suffer from what befalls a service.
    async fn register(&self) -> Result<Endpoint, Error> {
        if let Err(error) = self.register_services().await {
            if self.expires.is_none() {
                return Err(error);
            }
            let error: &dyn std::error::Error = &error;
            warn!(error, endpoint = %self.endpoint.name, "could not look after its services");
        }
        self.client.register_endpoint(&self.endpoint).await
    }

    /// Adds the services that are not there. One that is there stays as it is
    /// unless we have rules of our own: whoever wrote its rules shall not lose
    /// them to each endpoint that starts.
    async fn register_services(&self) -> Result<(), Error> {
        for service in &self.services {
            let query = ServiceQuery::by_name(service.name.clone());
            let found = self.client.find_services(&query).await?;
            let is_there = found.iter().any(|found| {
                service.payload == found.payload
                    && (service.matches.is_empty() || service.matches == found.matches)
            });
            if !is_there {
                self.client.register_service(service).await?;
            }
        }
        Ok(())
    }

    fn succeeded(&mut self, answer: &Endpoint) -> Instant {
        let now = Instant::now();
        if self.endpoint.registered_at.is_none() {
            self.period = between(answer.registered_at, answer.expires);
        }
        let left = between(Some(SystemTime::now()), answer.expires);
        let lasts = lasting(left, self.period).unwrap_or(self.options.unknown * 3 / 2);
        self.endpoint.registered_at = answer.registered_at.or(self.endpoint.registered_at);
        self.failures = 0;
        self.expires = Some(now + lasts);
        if !self.state.borrow().is_registered() {
            info!(endpoint = %self.endpoint.name, "registered");
        }
        self.state.send_replace(RegistrationState::Registered {
            expires: answer.expires,
            registered_at: self.endpoint.registered_at,
        });
        if self.own.is_none() {
            let query = EndpointQuery::by_name(self.endpoint.name.clone());
            self.own = Some(self.client.watch_endpoints(query));
        }
        now + (lasts * 2 / 3).max(self.options.shortest)
    }

    /// A failed refresh changes nothing until what is there expires.
    fn failed(&mut self, error: Error) -> Instant {
        let now = Instant::now();
        self.failures = self.failures.saturating_add(1);
        let wait = match error {
            Error::Conflict { .. } | Error::Refused { .. } => spread(self.options.conflict),
            _ => self.client.options().backoff.after(self.failures),
        };
        if self.failures == 1 {
            let error: &dyn std::error::Error = &error;
            warn!(error, endpoint = %self.endpoint.name, "not registered; trying again");
        }
        let is_conflict = matches!(error, Error::Conflict { .. });
        if is_conflict || self.expires.is_none_or(|expires| expires <= now) {
            self.lose(error);
        }
        now + wait
    }

    /// Another endpoint has our name: its clients are not to be taken from it.
    fn leave_to(&mut self, holder: Endpoint) {
        let error = Error::Taken {
            name: holder.name,
            url: holder.url.unwrap_or_default(),
        };
        error!(%error, "not registered until the other one is gone; give each endpoint a name of its own");
        self.taken = true;
        self.lose(error);
    }

    fn lose(&mut self, error: Error) {
        self.expires = None;
        self.state
            .send_replace(RegistrationState::Lost(Arc::new(error)));
    }

    async fn wait(&mut self, next: Instant, end: &mut oneshot::Receiver<Instant>) -> Wake {
        let (endpoint, taken) = (&self.endpoint, self.taken);
        let is_there = self.expires.is_some() || taken;
        tokio::select! {
            deadline = end => match deadline {
                Ok(_) => Wake::End,
                // Dropped: this task is about to be aborted.
                Err(_) => std::future::pending().await,
            },
            Ok(()) = self.wanted.changed() => Wake::Updated,
            wake = seen(self.own.as_mut(), endpoint, taken), if is_there => wake,
            () = sleep_until(next), if !taken => Wake::Due,
        }
    }

    async fn unregister(&self) -> Result<(), Error> {
        let state = self.state.borrow().clone();
        match state {
            // It is another's.
            RegistrationState::Lost(error)
                if matches!(*error, Error::Conflict { .. } | Error::Taken { .. }) =>
            {
                Ok(())
            }
            _ => self.client.unregister_endpoint(&self.endpoint).await,
        }
    }
}

/// How long it is from one time to another, if the other is later.
fn between(from: Option<SystemTime>, to: Option<SystemTime>) -> Option<Duration> {
    let between = to?.duration_since(from?).ok()?;
    (!between.is_zero()).then_some(between)
}

/// How long an entry lives: until its expiry by our clock, but no longer than
/// the registry lets entries live by its own, as the two may differ.
fn lasting(left: Option<Duration>, period: Option<Duration>) -> Option<Duration> {
    match (left, period) {
        (Some(left), Some(period)) => Some(left.min(period)),
        (left, period) => left.or(period),
    }
}

/// Waits until the registry does not have the endpoint any more, or has
/// another one in its place. Where that is so already (`taken`), waits until
/// that one is gone.
async fn seen(own: Option<&mut EndpointWatch>, endpoint: &Endpoint, taken: bool) -> Wake {
    let Some(own) = own else {
        return std::future::pending().await;
    };
    // A registry that lost it before the watch was open never says so, but what
    // it tells does not hold it.
    let mut told = taken;
    loop {
        match own.recv().await {
            Event::Deleted(gone) if gone == endpoint.name => return Wake::Gone,
            Event::Synced if !told => return Wake::Gone,
            Event::Updated(seen) if seen.name == endpoint.name => {
                match (is_other(endpoint, &seen), taken) {
                    (true, false) => return Wake::Taken(Box::new(seen)),
                    (false, true) => return Wake::Gone,
                    (true, true) | (false, false) => told = true,
                }
            }
            _ => {}
        }
    }
}

/// Whether an entry under our name is another endpoint's. Registries change
/// URLs and add labels, but leave a label as it is.
fn is_other(own: &Endpoint, seen: &Endpoint) -> bool {
    own.key().is_some() && own.key() != seen.key()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

    fn from_to(from: u64, to: u64) -> Option<Duration> {
        let [from, to] = [from, to].map(|time| SystemTime::UNIX_EPOCH + Duration::from_secs(time));
        between(Some(from), Some(to))
    }

    #[test]
    fn only_what_the_registry_has_is_registered() {
        assert!(!RegistrationState::Pending.is_registered());
    }

    #[test]
    fn a_registry_whose_clock_is_ahead_is_not_believed() {
        let left = from_to(1000, 4660);
        assert_eq!(lasting(left, MINUTE), MINUTE);
    }

    #[test]
    fn a_registry_whose_clock_is_behind_is_not_asked_without_pause() {
        let left = from_to(5000, 4660);
        assert_eq!(lasting(left, MINUTE), MINUTE);
        assert_eq!(lasting(left, None), None);
    }

    #[test]
    fn an_expiry_that_a_token_makes_shorter_counts() {
        let left = from_to(1000, 1020);
        assert_eq!(lasting(left, MINUTE), Some(Duration::from_secs(20)));
    }
}
