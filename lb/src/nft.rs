//! The nftables data plane: the same services without a packet program, for
//! processes that have `CAP_NET_ADMIN` and not `CAP_BPF`.
//!
//! Read first: [`Nft`], and the module `rules`, which is what the kernel does
//! with a packet. There is one table per family, named [`TABLE`]; control
//! writes its sets and chains, each plan in one transaction, and packets write
//! the flows. Everything speaks netlink; the `nft` program is not needed, but
//! `nft list table ip carrick-lb` shows it all.
//!
//! NAT is the kernel's: a server is chosen for the first packet of a
//! connection, and connection tracking is the flow table. The other modes have
//! a map of flows with timeouts, before connection tracking, which does not
//! understand connections of which it sees one direction.
//!
//! What differs from the packet program, and why, see [`unsupported`] and:
//!
//! * A hash policy hashes with the kernel's `jhash`: nftables balancers agree
//!   among themselves, not with others.
//! * Turns are counted per family and service.
//! * With NAT, idle timeouts are those of connection tracking (`nf_conntrack`
//!   in sysctl), and what begins in the middle of a connection is followed
//!   only while `nf_conntrack_tcp_loose` is 1.
//! * Without NAT, packets that begin on the balancer itself are not balanced.
//! * An ICMP error about a flow that is not known goes to the kernel.
//! * There is no journal: nothing is told to other balancers, and of what they
//!   tell, flows of NAT services cannot be inserted.

mod code;
mod contents;
mod flows;
mod layout;
mod limits;
mod preflight;
mod reasons;
mod rules;
mod session;
mod state;
mod statistics;

use std::collections::BTreeSet;

use nlink::netlink::nftables::{
    BaseChain, Chain, FilterHook, NatHook, Priority, Rule, RuleSpec, SetElement, Transaction,
};

use contents::{Contents, difference};
use layout::{Ip, name};
use rules::ChainRules;
use session::Session;
use state::{Chains, State};

use crate::dataplane::{
    Applied, Dataplane, Error, FlowRecord, Installed, Plan, ServerNumber, ServiceNumber,
    Statistics, VipNumber,
};
use crate::service::Service;

pub use limits::{Refusal, unsupported};
pub use preflight::preflight;

/// The name of the tables.
pub const TABLE: &str = "carrick-lb";

/// The nftables data plane of a network namespace.
#[derive(Debug)]
pub struct Nft {
    session: Session,
    state: State,
    /// Whether this process wrote the chains that never change.
    complete: bool,
    /// Whether the tables were there when it came.
    found: bool,
}

impl Nft {
    /// Takes over what is installed in the calling thread's network namespace,
    /// or begins with nothing. Changes nothing yet.
    ///
    /// # Errors
    ///
    /// The kernel has no nftables, or the process may not read them.
    pub fn open() -> Result<Self, Error> {
        let session = Session::open()?;
        let mut state = State::empty();
        let mut found = false;
        for ip in Ip::BOTH {
            if let Some(table) = read_table(&session, ip)? {
                state.tables.insert(ip, table);
                found = true;
            }
        }
        Ok(Self {
            session,
            state,
            complete: false,
            found,
        })
    }

    /// Removes the tables and all connections that were translated by them.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn remove(mut self) -> Result<(), Error> {
        if !self.found {
            return Ok(());
        }
        let servers = self.installed()?.servers;
        self.session.ask("remove the tables", async |connection| {
            let there: Vec<_> = tables(connection).await?;
            let mut transaction = connection.transaction();
            for ip in there {
                transaction = transaction.del_table(TABLE, ip.family());
            }
            transaction.commit(connection).await
        })?;
        for server in servers.keys() {
            self.forget_connections(*server, None)?;
        }
        self.found = false;
        Ok(())
    }

    fn commit(&self, after: &State, chains: &Chains) -> Result<usize, Error> {
        self.session.ask("change the tables", async |connection| {
            let there = if self.complete {
                Ip::BOTH.to_vec()
            } else {
                tables(connection).await?
            };
            let begin = connection.transaction();
            let (transaction, writes) = self.build(begin, &there, after, chains)?;
            transaction.commit(connection).await?;
            Ok(writes)
        })
    }

    /// Sends a plan and its undoing in one transaction: the kernel checks all
    /// of it, and no packet ever sees it.
    fn rehearse(&self, plan: &Plan) -> Result<(), Error> {
        let mut after = self.state.clone();
        let chains = after.apply(plan)?;
        self.session.ask("rehearse the tables", async |connection| {
            let begin = connection.transaction();
            let (mut transaction, _) = self.build(begin, &[], &after, &chains)?;
            for ip in Ip::BOTH {
                transaction = transaction.del_table(TABLE, ip.family());
            }
            transaction.commit(connection).await
        })
    }

    /// All changes of both families; `there` are those whose table exists.
    fn build(
        &self,
        mut transaction: Transaction,
        there: &[Ip],
        after: &State,
        chains: &Chains,
    ) -> nlink::Result<(Transaction, usize)> {
        let (mut writes, none) = (0, Contents::default());
        for ip in Ip::BOTH {
            let known = there.contains(&ip);
            if !known {
                transaction = transaction.add_table(TABLE, ip.family());
            }
            let before = if known {
                &self.state.tables[&ip]
            } else {
                &none
            };
            let more;
            (transaction, more) =
                self.change(transaction, ip, before, &after.tables[&ip], chains)?;
            writes += more;
        }
        Ok((transaction, writes))
    }

    fn change(
        &self,
        mut transaction: Transaction,
        ip: Ip,
        before: &Contents,
        after: &Contents,
        chains: &Chains,
    ) -> nlink::Result<(Transaction, usize)> {
        let mut fill = Vec::new();
        if !self.complete {
            for (name, base) in base_chains() {
                let chain = Chain::new(TABLE, name)?.family(ip.family());
                transaction = transaction.update_chain(chain.base(base));
            }
            fill.extend(rules::hooks(ip));
            fill.extend(rules::common(ip));
        }
        let lengths = after.lengths();
        if !self.complete || before.lengths() != lengths {
            fill.extend(rules::vips(ip, &Vec::from_iter(lengths)));
        }
        fill.extend(chains.fill.get(&ip).into_iter().flatten().cloned());
        let none = BTreeSet::new();
        let delete = chains.delete.get(&ip).unwrap_or(&none);
        fill.retain(|chain| !delete.contains(&chain.name));

        for chain in fill.iter().filter(|chain| !is_base(&chain.name)) {
            let chain = Chain::new(TABLE, chain.name.as_str())?.family(ip.family());
            transaction = transaction.update_chain(chain);
        }
        let writes;
        (transaction, writes) = difference(transaction, ip, before, after);
        for chain in &fill {
            transaction = transaction.flush_chain(TABLE, &chain.name, ip.family());
        }
        for name in delete {
            transaction = transaction.flush_chain(TABLE, name, ip.family());
        }
        for ChainRules { name, rules } in &fill {
            for expressions in rules {
                let mut spec = RuleSpec::new();
                for expression in expressions {
                    spec = spec.then(expression.clone());
                }
                let rule = Rule::from_spec(TABLE, name, spec).family(ip.family());
                transaction = transaction.add_rule(rule);
            }
        }
        for name in delete {
            transaction = transaction.del_chain(TABLE, name, ip.family());
        }
        for name in before.sets.keys() {
            if !after.sets.contains_key(name) {
                transaction = transaction.del_set(TABLE, name, ip.family());
            }
        }
        Ok((transaction, writes))
    }
}

/// The chains at hooks; see `rules::hooks` for what they do.
fn base_chains() -> [(&'static str, BaseChain); 6] {
    let early = Priority::Custom(-290);
    [
        ("pre", BaseChain::filter(FilterHook::Prerouting, early)),
        (
            "nat_pre",
            BaseChain::nat(NatHook::Prerouting, Priority::DstNat),
        ),
        ("out", BaseChain::filter(FilterHook::Output, early)),
        ("nat_out", BaseChain::nat(NatHook::Output, Priority::DstNat)),
        (
            "sent",
            BaseChain::filter(FilterHook::Postrouting, Priority::Filter),
        ),
        (
            "nat_post",
            BaseChain::nat(NatHook::Postrouting, Priority::SrcNat),
        ),
    ]
}

fn is_base(chain: &str) -> bool {
    base_chains().iter().any(|(name, _)| *name == chain)
}

type Connection = nlink::netlink::Connection<nlink::netlink::Nftables>;

/// The families whose table is there.
async fn tables(connection: &Connection) -> nlink::Result<Vec<Ip>> {
    let mut there = Vec::new();
    for ip in Ip::BOTH {
        let tables = connection.list_tables_in(ip.family()).await?;
        if tables.iter().any(|table| table.name == TABLE) {
            there.push(ip);
        }
    }
    Ok(there)
}

fn read_table(session: &Session, ip: Ip) -> Result<Option<Contents>, Error> {
    session.ask("read the tables", async |connection| {
        if !tables(connection).await?.contains(&ip) {
            return Ok(None);
        }
        let mut contents = Contents::default();
        for set in connection.list_sets_in(TABLE, ip.family()).await? {
            let elements = if contents::is_dynamic(&set.name) {
                Vec::new()
            } else {
                connection
                    .list_set_elements(TABLE, &set.name, ip.family())
                    .await?
            };
            contents.sets.insert(set.name, contents::read(elements));
        }
        Ok(Some(contents))
    })
}

impl Dataplane for Nft {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn supports(&self, service: &Service) -> Result<(), Error> {
        if let Some(refusal) = unsupported(service).into_iter().next() {
            return Err(Error::Unsupported {
                what: refusal.what,
                why: refusal.why.to_owned(),
            });
        }
        limits::forwarding(service)
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        let mut after = self.state.clone();
        let chains = after.apply(plan)?;
        let writes = self.commit(&after, &chains)?;
        let before = std::mem::replace(&mut self.state, after);
        self.complete = true;
        self.found = true;
        let mut flows_forgotten = 0;
        for server in &plan.remove_servers {
            flows_forgotten += self.forget_connections(*server, None)?;
        }
        for vip in &plan.remove_vips {
            flows_forgotten += self.forget_vip(&before, *vip)?;
        }
        flows_forgotten += self.forget_flows(&plan.remove_servers)?;
        Ok(Applied {
            writes,
            flows_forgotten,
        })
    }

    fn installed(&self) -> Result<Installed, Error> {
        let mut installed = Installed::default();
        let Some(table) = self.state.tables.get(&Ip::V4) else {
            return Ok(installed);
        };
        let numbered = |set: &'static str| {
            table.named(set).filter_map(|(number, comment)| {
                let (identity, service) = state::owner(comment)?;
                Some((u16::try_from(number).ok()?, identity, service))
            })
        };
        for (number, identity, _) in numbered(name::SERVICES) {
            let number = ServiceNumber::new(number);
            installed.services.extend(number.map(|n| (n, identity)));
        }
        for (number, identity, service) in numbered(name::VIPS) {
            let number = VipNumber::new(number).zip(service);
            installed
                .vips
                .extend(number.map(|(n, s)| (n, (identity, s))));
        }
        for (number, identity, service) in numbered(name::SERVERS) {
            let number = ServerNumber::new(number).zip(service);
            installed
                .servers
                .extend(number.map(|(n, s)| (n, (identity, s))));
        }
        Ok(installed)
    }

    fn statistics(&self) -> Result<Statistics, Error> {
        self.read_statistics()
    }

    fn take_new_flows(&mut self, _: &mut Vec<FlowRecord>, _: usize) -> Result<u64, Error> {
        Ok(0)
    }

    fn insert_flows(&mut self, flows: &[FlowRecord]) -> Result<usize, Error> {
        self.insert(flows)
    }

    fn each_flow(&self, show: &mut dyn FnMut(FlowRecord)) -> Result<(), Error> {
        self.show_flows(show)
    }
}

impl Nft {
    /// The elements of a set as they are now; none while there is no table.
    fn elements(&self, ip: Ip, set: &str) -> Result<Vec<SetElement>, Error> {
        if !self.found {
            return Ok(Vec::new());
        }
        self.session.ask("read the tables", async |connection| {
            connection.list_set_elements(TABLE, set, ip.family()).await
        })
    }
}
