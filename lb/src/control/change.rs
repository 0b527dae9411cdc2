use std::collections::{BTreeMap, HashMap};

use super::{Conflict, Refused};
use crate::dataplane::Local;
use crate::service::{Problems, Server, ServerId, Service, ServiceName, Vip};

/// One change; several make one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a server to a service, or replaces the one of its id.
    PutServer(ServiceName, Server),
    /// Adds a service, or replaces the one of its name with all its servers.
    PutService(Service),
    /// Takes a server away, with its flows.
    RemoveServer(ServiceName, ServerId),
    /// Takes a service away, with its servers and VIPs.
    RemoveService(ServiceName),
    /// Sets a server's weight; 0 drains it.
    SetWeight(ServiceName, ServerId, u16),
}

/// Everything a balancer shall do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Its own addresses.
    pub local: Local,
    services: BTreeMap<ServiceName, Service>,
}

impl Wanted {
    /// Wants these services; of two with one name the later counts, as
    /// [`Change::PutService`] would have it.
    #[must_use]
    pub fn new(local: Local, services: impl IntoIterator<Item = Service>) -> Self {
        let named = services.into_iter().map(|one| (one.name.clone(), one));
        Self {
            local,
            services: named.collect(),
        }
    }

    /// The services by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The same with these changes, made one after the other.
    ///
    /// # Errors
    ///
    /// A change names what is not there. Whether the result makes sense is for
    /// [`Wanted::check`].
    pub fn changed(&self, changes: &[Change]) -> Result<Self, Refused> {
        let mut wanted = self.clone();
        for change in changes {
            wanted.apply(change)?;
        }
        Ok(wanted)
    }

    fn apply(&mut self, change: &Change) -> Result<(), Refused> {
        match change {
            Change::PutServer(service, server) => {
                let servers = &mut self.named(service)?.servers;
                match servers.iter_mut().find(|known| known.id == server.id) {
                    Some(known) => known.clone_from(server),
                    None => servers.push(server.clone()),
                }
            }
            Change::PutService(service) => {
                self.services.insert(service.name.clone(), service.clone());
            }
            Change::RemoveServer(service, server) => {
                self.server(service, server)?;
                self.named(service)?.servers.retain(|one| one.id != *server);
            }
            Change::RemoveService(service) => {
                self.named(service)?;
                self.services.remove(service);
            }
            Change::SetWeight(service, server, weight) => {
                self.server(service, server)?.weight = *weight;
            }
        }
        Ok(())
    }

    fn named(&mut self, name: &ServiceName) -> Result<&mut Service, Refused> {
        let service = self.services.get_mut(name);
        service.ok_or_else(|| Refused::UnknownService(name.clone()))
    }

    fn server(&mut self, service: &ServiceName, id: &ServerId) -> Result<&mut Server, Refused> {
        let servers = &mut self.named(service)?.servers;
        let server = servers.iter_mut().find(|server| server.id == *id);
        server.ok_or_else(|| Refused::UnknownServer {
            service: service.clone(),
            server: id.clone(),
        })
    }

    /// Checks every service by itself and all of them together.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with single services, or else the first
    /// conflict between two.
    pub fn check(&self) -> Result<(), Refused> {
        let problems = self.services().filter_map(|service| service.check().err());
        let problems: Vec<_> = problems.flat_map(|problems| problems.0).collect();
        if !problems.is_empty() {
            return Err(Refused::Invalid(Problems(problems)));
        }
        self.conflicts()
    }

    fn conflicts(&self) -> Result<(), Refused> {
        let mut taken: HashMap<_, Vec<(&ServiceName, &Vip)>> = HashMap::new();
        for service in self.services() {
            for vip in &service.vips {
                let others = taken.entry(vip.prefix).or_default();
                let clash = others.iter().find(|(_, other)| vip.conflicts(other));
                if let Some((other, other_vip)) = clash {
                    return Err(Refused::Conflict(Box::new(Conflict {
                        service: service.name.clone(),
                        vip: vip.clone(),
                        other: (*other).clone(),
                        other_vip: (*other_vip).clone(),
                    })));
                }
                others.push((&service.name, vip));
            }
        }
        Ok(())
    }
}
