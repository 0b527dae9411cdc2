use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use carrick_types::{EndpointName, Invalid, ServiceName};

use crate::{Endpoint, EndpointQuery, Service, ServiceQuery};

/// How much a [`Registry`] takes and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time an endpoint lives without being registered again; 1 min
    /// by default, as in NSM. More than zero.
    pub period: Duration,
    /// Most endpoints; 100,000 by default.
    pub endpoints: usize,
    /// Most services; 10,000 by default.
    pub services: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(60),
            endpoints: 100_000,
            services: 10_000,
        }
    }
}

/// One moment on both clocks: expiry is told in wall time and kept in
/// monotonic time, so that setting the clock forward expires nobody.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock.
    pub wall: SystemTime,
}

impl Now {
    /// When, on the monotonic clock, the wall clock will show `time`; now if
    /// that is past.
    fn until(&self, time: SystemTime) -> Instant {
        self.instant + time.duration_since(self.wall).unwrap_or_default()
    }
}

/// Why a registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Another live endpoint holds the name.
    #[error(
        "endpoint name {name} is held by {holder}, and {asking} is another endpoint: \
         give each its own name, or wait until the holder has expired"
    )]
    Conflict {
        /// The name that both want.
        name: EndpointName,
        /// Who has it.
        holder: String,
        /// Who asked.
        asking: String,
    },
    /// There is no room.
    #[error("the registry is full: it takes at most {max} {what}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// What an operation changed in one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<T> {
    /// The entry before, if there was one.
    pub before: Option<Arc<T>>,
    /// The entry now; `None` if it is gone.
    pub after: Option<Arc<T>>,
}

impl<T> Change<T> {
    fn removed(before: Arc<T>) -> Self {
        Self {
            before: Some(before),
            after: None,
        }
    }
}

/// Services and endpoints, and when each of these expires. Reads no clock and
/// does no I/O; whoever calls it passes changes on to watchers.
///
/// To register or remove one of `n` endpoints takes `O(s · log n)` for the `s`
/// services that it serves.
#[derive(Debug)]
pub struct Registry {
    limits: Limits,
    endpoints: BTreeMap<EndpointName, Entry>,
    by_service: BTreeSet<(ServiceName, EndpointName)>,
    expiries: BTreeSet<(Instant, EndpointName)>,
    services: BTreeMap<ServiceName, Arc<Service>>,
}

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    expires: Instant,
}

// === impl Registry: endpoints ===

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            endpoints: BTreeMap::new(),
            by_service: BTreeSet::new(),
            expiries: BTreeSet::new(),
            services: BTreeMap::new(),
        }
    }

    /// Adds an endpoint or refreshes it. `after` of the change says when it
    /// expires: at the earliest of what it asked for, `token_expires` and the
    /// period from now. Its first registration time stays as long as it lives,
    /// and comes back with an endpoint that still knows it.
    ///
    /// # Errors
    ///
    /// [`Refused::Conflict`] if another endpoint holds the name,
    /// [`Refused::Full`], or [`Refused::Invalid`] if it would have expired already.
    pub fn register_endpoint(
        &mut self,
        mut endpoint: Endpoint,
        token_expires: Option<SystemTime>,
        now: Now,
    ) -> Result<Change<Endpoint>, Refused> {
        let expires = self.expiry(&endpoint, token_expires, now)?;
        let before = self.endpoints.get(&endpoint.name);
        let live = before.filter(|entry| entry.expires > now.instant);
        if let Some(entry) = live.filter(|entry| !entry.endpoint.is_same_as(&endpoint)) {
            return Err(conflict(&entry.endpoint, &endpoint));
        }
        if before.is_none() && self.endpoints.len() >= self.limits.endpoints {
            return Err(Refused::Full {
                what: "endpoints",
                max: self.limits.endpoints,
            });
        }
        let known = live.and_then(|entry| entry.endpoint.registered_at);
        let told = endpoint.registered_at.map(|time| time.min(now.wall));
        endpoint.registered_at = known.or(told).or(Some(now.wall));
        endpoint.expires = Some(expires);
        Ok(self.put(endpoint, now.until(expires)))
    }

    fn expiry(
        &self,
        endpoint: &Endpoint,
        token_expires: Option<SystemTime>,
        now: Now,
    ) -> Result<SystemTime, Invalid> {
        let future = |field: &str, time: Option<SystemTime>| match time {
            Some(time) if time <= now.wall => {
                let ago = now.wall.duration_since(time).unwrap_or_default();
                let value = format!("{:.3} s ago", ago.as_secs_f64());
                Err(Invalid::new(
                    field,
                    value,
                    "a time in the future by the registry's clock",
                ))
            }
            time => Ok(time),
        };
        let asked = future("network_service_endpoint.expiration_time", endpoint.expires)?;
        let token = future("nsm-client-token-expires", token_expires)?;
        let longest = now.wall + self.limits.period;
        Ok([asked, token]
            .into_iter()
            .flatten()
            .fold(longest, SystemTime::min))
    }

    /// Takes in an endpoint that was stored, with the expiry it was given;
    /// `None` if that has passed.
    pub fn restore_endpoint(&mut self, endpoint: Endpoint, now: Now) -> Option<Change<Endpoint>> {
        let longest = now.wall + self.limits.period;
        let expires = endpoint
            .expires
            .filter(|expires| *expires > now.wall)?
            .min(longest);
        Some(self.put(endpoint, now.until(expires)))
    }

    /// Removes an endpoint; `None` if it was not there, which is no error.
    ///
    /// # Errors
    ///
    /// [`Refused::Conflict`] if who asks is known not to be who holds the name.
    pub fn unregister_endpoint(
        &mut self,
        endpoint: &Endpoint,
    ) -> Result<Option<Change<Endpoint>>, Refused> {
        let Some(entry) = self.endpoints.get(&endpoint.name) else {
            return Ok(None);
        };
        let is_anonymous =
            endpoint.url.is_none() && endpoint.key().is_none() && endpoint.owner().is_none();
        if !is_anonymous && !entry.endpoint.is_same_as(endpoint) {
            return Err(conflict(&entry.endpoint, endpoint));
        }
        Ok(self.take(&endpoint.name).map(Change::removed))
    }

    /// Removes what has expired, each once.
    pub fn expire(&mut self, now: Instant) -> Vec<Change<Endpoint>> {
        let mut gone = Vec::new();
        while let Some((expires, name)) = self.expiries.first()
            && *expires <= now
        {
            let name = name.clone();
            gone.extend(self.take(&name).map(Change::removed));
        }
        gone
    }

    /// When the next endpoint expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(expires, _)| *expires)
    }

    /// The live endpoints that `query` asks for, by name.
    #[must_use]
    pub fn find_endpoints(&self, query: &EndpointQuery, now: Instant) -> Vec<Arc<Endpoint>> {
        let finds = |entry: &&Entry| entry.expires > now && query.matches(&entry.endpoint);
        let clone = |entry: &Entry| entry.endpoint.clone();
        match (&query.name, query.services.first()) {
            (Some(name), _) => self
                .endpoints
                .get(name)
                .iter()
                .copied()
                .filter(finds)
                .map(clone)
                .collect(),
            (None, Some(service)) => self.serving(service).filter(finds).map(clone).collect(),
            (None, None) => self.endpoints.values().filter(finds).map(clone).collect(),
        }
    }

    fn serving(&self, service: &ServiceName) -> impl Iterator<Item = &Entry> {
        // No name is empty, so a bound without one cannot be written; the
        // smallest name there is starts the range instead.
        let first = EndpointName::new(" ").expect("a space is a name");
        self.by_service
            .range((service.clone(), first)..)
            .take_while(move |(of, _)| of == service)
            .filter_map(|(_, name)| self.endpoints.get(name))
    }

    /// The endpoint of a name, even if it is about to be removed.
    #[must_use]
    pub fn endpoint(&self, name: &EndpointName) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(name).map(|entry| &entry.endpoint)
    }

    fn put(&mut self, endpoint: Endpoint, expires: Instant) -> Change<Endpoint> {
        let before = self.take(&endpoint.name);
        let endpoint = Arc::new(endpoint);
        let name = &endpoint.name;
        let keys = endpoint
            .services
            .iter()
            .map(|service| (service.clone(), name.clone()));
        self.by_service.extend(keys);
        self.expiries.insert((expires, name.clone()));
        let entry = Entry {
            endpoint: endpoint.clone(),
            expires,
        };
        self.endpoints.insert(name.clone(), entry);
        Change {
            before,
            after: Some(endpoint),
        }
    }

    fn take(&mut self, name: &EndpointName) -> Option<Arc<Endpoint>> {
        let entry = self.endpoints.remove(name)?;
        self.expiries.remove(&(entry.expires, name.clone()));
        for service in &entry.endpoint.services {
            self.by_service.remove(&(service.clone(), name.clone()));
        }
        Some(entry.endpoint)
    }
}

fn conflict(holder: &Endpoint, asking: &Endpoint) -> Refused {
    Refused::Conflict {
        name: asking.name.clone(),
        holder: who(holder),
        asking: who(asking),
    }
}

/// What is known of an endpoint, in words.
fn who(endpoint: &Endpoint) -> String {
    let url = endpoint.url.as_deref().unwrap_or("an endpoint without URL");
    match endpoint.key().or(endpoint.owner()) {
        Some(identity) => format!("{url} ({identity})"),
        None => url.to_owned(),
    }
}

// === impl Registry: services ===

impl Registry {
    /// Adds or replaces a service. Services do not expire.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`].
    pub fn register_service(&mut self, service: Service) -> Result<Change<Service>, Refused> {
        let is_new = !self.services.contains_key(&service.name);
        if is_new && self.services.len() >= self.limits.services {
            return Err(Refused::Full {
                what: "services",
                max: self.limits.services,
            });
        }
        let service = Arc::new(service);
        Ok(Change {
            before: self.services.insert(service.name.clone(), service.clone()),
            after: Some(service),
        })
    }

    /// Removes a service; `None` if it was not there, which is no error.
    pub fn unregister_service(&mut self, name: &ServiceName) -> Option<Change<Service>> {
        self.services.remove(name).map(Change::removed)
    }

    /// The services that `query` asks for, by name.
    #[must_use]
    pub fn find_services(&self, query: &ServiceQuery) -> Vec<Arc<Service>> {
        let finds = |service: &&Arc<Service>| query.matches(service);
        match &query.name {
            Some(name) => self
                .services
                .get(name)
                .into_iter()
                .filter(finds)
                .cloned()
                .collect(),
            None => self.services.values().filter(finds).cloned().collect(),
        }
    }

    /// The service of a name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }
}

#[cfg(test)]
mod tests;
