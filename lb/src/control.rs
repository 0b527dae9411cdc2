//! Changes to services, applied whole or not at all.
//!
//! Read first: [`Control`], which drives one data plane, and [`Wanted`], what
//! it shall do; a [`Worker`] is the thread around it. What is wanted is checked, compared with what is there and
//! turned into a [`Plan`](crate::dataplane::Plan), the difference; known flows
//! and their servers never notice.
//!
//! # Guarantees
//!
//! * A change that is refused, or that the data plane fails at, changes nothing.
//! * A restarted control finds the numbers of all it finds installed again by
//!   identity, so that flows keep their servers and counters go on.
//!
//! Limits: a server that is removed takes its flows with it; to keep them, set
//! its weight to 0 and wait until none [remains](Control::remaining).

mod book;
mod change;
mod error;
mod status;
#[cfg(test)]
pub(crate) mod testing;
mod worker;

pub use change::{Change, Wanted};
pub use error::{Conflict, Error, Refused};
pub use status::{ServerState, ServerStatus, ServiceStatus, Status, VipStatus};
pub use worker::{Driven, Ended, Worker};

use crate::dataplane::{Applied, Dataplane, ServerNumber};
use crate::service::{Identity, ServerId, ServiceName};

use book::Book;

/// Drives one data plane towards what is wanted.
#[derive(Debug)]
pub struct Control<D> {
    dataplane: D,
    wanted: Wanted,
    book: Book,
}

impl<D: Dataplane> Control<D> {
    /// Takes over a data plane with whatever an earlier control installed. It
    /// goes on balancing as it is until the first change says what is wanted.
    ///
    /// # Errors
    ///
    /// The data plane cannot tell what it holds.
    pub fn adopt(dataplane: D) -> Result<Self, Error> {
        let book = Book::adopt(&dataplane.installed()?);
        Ok(Self {
            dataplane,
            wanted: Wanted::default(),
            book,
        })
    }

    /// What is wanted now.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The data plane itself.
    #[must_use]
    pub fn dataplane(&self) -> &D {
        &self.dataplane
    }

    /// The data plane itself, for its journal and flows.
    #[must_use]
    pub fn dataplane_mut(&mut self) -> &mut D {
        &mut self.dataplane
    }

    /// Gives back the data plane, which goes on balancing.
    #[must_use]
    pub fn into_dataplane(self) -> D {
        self.dataplane
    }

    /// Makes these changes together.
    ///
    /// # Errors
    ///
    /// The first change that is refused, or the data plane's failure; nothing
    /// has changed then.
    pub fn change(&mut self, changes: &[Change]) -> Result<Applied, Error> {
        let wanted = self.wanted.changed(changes)?;
        self.replace(wanted)
    }

    /// Wants this and nothing else.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, or the data plane's failure; nothing has
    /// changed then.
    pub fn replace(&mut self, wanted: Wanted) -> Result<Applied, Error> {
        wanted.check()?;
        for service in wanted.services() {
            self.dataplane.supports(service)?;
        }
        let (plan, book) = self.book.plan(&wanted)?;
        let applied = if plan.is_empty() {
            Applied::default()
        } else {
            self.dataplane.apply(&plan)?
        };
        self.book = book;
        self.wanted = wanted;
        Ok(applied)
    }

    /// Live flows of a server, known by its weight of 0 or not; `None` if it
    /// is not there.
    ///
    /// # Errors
    ///
    /// The data plane cannot be read.
    pub fn remaining(
        &self,
        service: &ServiceName,
        server: &ServerId,
    ) -> Result<Option<u64>, Error> {
        let Some(service) = self.wanted.service(service) else {
            return Ok(None);
        };
        let Some(number) = self.book.server(service.server_identity(server)) else {
            return Ok(None);
        };
        let statistics = self.dataplane.statistics()?;
        Ok(Some(
            statistics.servers.get(&number).map_or(0, |one| one.live),
        ))
    }

    /// Everything worth showing: services, servers, counters.
    ///
    /// # Errors
    ///
    /// The data plane cannot be read.
    pub fn status(&self) -> Result<Status, Error> {
        let statistics = self.dataplane.statistics()?;
        let name = self.dataplane.name();
        Ok(Status::of(name, &self.wanted, &self.book, &statistics))
    }

    /// What other balancers call the server of that number.
    #[must_use]
    pub fn identity(&self, server: ServerNumber) -> Option<Identity> {
        self.book.identity(server)
    }

    /// The number of a server of which another balancer speaks.
    #[must_use]
    pub fn number(&self, server: Identity) -> Option<ServerNumber> {
        self.book.server(server)
    }
}

#[cfg(test)]
mod tests;
