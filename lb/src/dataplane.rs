//! What every data plane can be asked: the seam between control and packets.
//!
//! Read first: [`Plan`], the difference that is to be made, and [`Dataplane`].
//! Control gives every service, VIP and server a small number, by which tables
//! name it, and an [`Identity`](crate::service::Identity), by which it is found again after a restart
//! and by which balancers speak of it to each other.

mod error;
mod flow;
mod number;
mod plan;
mod statistics;

pub use error::Error;
pub use flow::{FlowKey, FlowRecord, FlowState};
pub use number::{ServerNumber, ServiceNumber, VipNumber};
pub use plan::{Applied, Local, Plan, PutServer, PutService, PutVip, Slots};
pub use statistics::{Counters, Installed, ServerCounters, Statistics};

use crate::service::Service;

/// A data plane: something that balances packets as its tables say.
///
/// # Guarantees asked of an implementation
///
/// * A plan is applied whole or not at all, as far as packets can tell: a
///   packet sees each service before the plan or after it, never between.
/// * No packet is lost by applying a plan, and no known flow changes its
///   server, unless the plan removes that server.
/// * Putting what is there already changes nothing.
/// * What is installed outlives the process that installed it.
pub trait Dataplane {
    /// Its name in status and errors, such as `ebpf`.
    fn name(&self) -> &'static str;

    /// Says whether this data plane can do the service on this machine.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with what and why.
    fn supports(&self, service: &Service) -> Result<(), Error>;

    /// Makes the difference.
    ///
    /// # Errors
    ///
    /// The tables are full or cannot be written; packets then still see what
    /// was before.
    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error>;

    /// What the tables hold, also from an earlier process.
    ///
    /// # Errors
    ///
    /// The tables cannot be read.
    fn installed(&self) -> Result<Installed, Error>;

    /// All counters since they were first installed.
    ///
    /// # Errors
    ///
    /// The tables cannot be read.
    fn statistics(&self) -> Result<Statistics, Error>;

    /// Takes the flows that began since the last call, at most `limit`, and
    /// appends them to `into`; gives the number that were overwritten before
    /// they could be taken. A data plane without a journal takes nothing.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    fn take_new_flows(&mut self, into: &mut Vec<FlowRecord>, limit: usize) -> Result<u64, Error>;

    /// Remembers flows of another balancer, as if their last packets had come
    /// here `idle` ago. A flow that is known already keeps its server; if the
    /// record's packet is the later one, its time and state are taken over.
    /// Balancers tell each other again and again what they know, so a record
    /// must never make a flow younger than its last packet. Gives the number
    /// that were not known before.
    ///
    /// # Errors
    ///
    /// The flow table cannot be written.
    fn insert_flows(&mut self, flows: &[FlowRecord]) -> Result<usize, Error>;

    /// Shows every live flow once.
    ///
    /// # Errors
    ///
    /// The flow table cannot be read.
    fn each_flow(&self, show: &mut dyn FnMut(FlowRecord)) -> Result<(), Error>;
}
