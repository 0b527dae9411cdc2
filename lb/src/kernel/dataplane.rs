use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use super::attach;
use super::plane::{Book, with_hop};
use super::{Hook, Options, Program, Tables, flows, hops, preflight, read};
use crate::dataplane::{Applied, Dataplane, Error, FlowRecord, Installed, Plan, Statistics};
use crate::service::Service;
use crate::tables::{CpuState, JournalRecord, Key, Meta, SETTING_JOURNAL, Server, Sizes, Table};

/// How often idle flows are freed and next hops asked for again.
const ROUND: Duration = Duration::from_secs(2);

/// The eBPF data plane.
#[derive(Debug)]
pub struct Kernel {
    shared: Arc<Shared>,
    journal: Vec<u64>,
    sweeper: Option<Thread>,
}

#[derive(Debug)]
struct Shared {
    /// One program per kind of hook, all with the same tables.
    programs: Vec<Program>,
    book: Mutex<Book>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic while writing leaves tables the program can still read.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn program(&self) -> &Program {
        self.programs
            .first()
            .expect("there is at least one program")
    }

    fn now(&self, book: &Book) -> Result<u16, Error> {
        self.program()
            .probe()
            .ticks(book.clock.shift)
            .ok_or(Error::Unsupported {
                what: "reading the kernel's clock".into(),
                why: "the probe program did not run".into(),
            })
    }

    /// Frees flows that are idle or whose server is gone, and asks again where
    /// servers are.
    fn round(&self) {
        let mut book = self.book();
        let gone = std::mem::take(&mut book.unclean);
        flows::purge(self.program().tables(), &book.sizes, &gone);
        if let Ok(now) = self.now(&book) {
            flows::sweep(self.program().tables(), &book, now);
        }
        self.refresh_hops(&mut book);
    }

    fn refresh_hops(&self, book: &mut Book) {
        let region = self.program().tables().of(Table::Servers);
        let mtu = book.mtu;
        for (number, server) in &mut book.servers {
            let hop = hops::resolve(self.program(), super::plane::address_of(server));
            let value = match hop {
                Some(hop) => with_hop(*server, hop, mtu),
                None => Server {
                    ifindex: 0,
                    ..*server
                },
            };
            if value != *server {
                region.write(number.index() * Server::SIZE, &value.encode());
                *server = value;
            }
        }
    }
}

impl Kernel {
    /// Loads and attaches the program. With pins, tables and attachments of an
    /// earlier process are taken over; packets flow all the while.
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: no privileges, no BPF file system, no such interface.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pins = options.pins.as_deref();
        let adopted = pins.map_or(Ok(None), read::pinned_sizes)?;
        let sizes = adopted.unwrap_or(options.sizes);
        if let Some(pins) = pins {
            preflight::make_pins(pins)?;
        }
        let mut programs = load(options, sizes, pins)?;
        let tables = programs[0].tables();
        let book = if adopted.is_some() {
            read::adopt(tables, sizes)
        } else {
            Book::new(sizes)
        };
        let mut book = book;
        book.mtu = options.mtu;
        book.settings.flags &= !SETTING_JOURNAL;
        if options.journal {
            book.settings.flags |= SETTING_JOURNAL;
        }
        book.settings.budget = options.flow_rate.map_or(0, |rate| per_tick(rate, &book));
        book.write_settings(tables);
        read::write_slices(tables, sizes.slices);
        for to in &options.attach {
            let mut programs = programs.iter_mut();
            // One was loaded for each hook.
            if let Some(program) = programs.find(|program| program.hook().object_of(to.hook)) {
                attach::attach(program, to, pins)?;
            }
        }
        let shared = Arc::new(Shared {
            programs,
            book: Mutex::new(book),
        });
        Ok(Self {
            journal: heads(shared.program()),
            sweeper: Some(sweep_in_background(&shared)?),
            shared,
        })
    }

    /// Takes away all that was pinned in a directory, attachments first. What
    /// is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: the pins cannot be removed.
    pub fn remove(pins: &Path) -> Result<(), Error> {
        attach::remove(pins)
    }

    /// The program, for tests and measurements.
    #[must_use]
    pub fn program(&self) -> &Program {
        self.shared.program()
    }

    /// Asks the kernel again where each server is. Done in the background every
    /// two seconds.
    pub fn refresh_hops(&mut self) {
        let mut book = self.shared.book();
        self.shared.refresh_hops(&mut book);
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.take() {
            sweeper.unpark();
        }
    }
}

fn load(options: &Options, sizes: Sizes, pins: Option<&Path>) -> Result<Vec<Program>, Error> {
    let mut programs: Vec<Program> = Vec::new();
    for hook in [Hook::Xdp, Hook::Tc] {
        let wanted = options.attach.iter().any(|to| hook.object_of(to.hook));
        if !wanted {
            continue;
        }
        if pins.is_none() && !programs.is_empty() {
            return Err(Error::Unsupported {
                what: "XDP beside TC".into(),
                why: "the two share their tables by pins; name a directory for them".into(),
            });
        }
        programs.push(Program::load_with(hook, sizes, pins)?);
    }
    if programs.is_empty() {
        programs.push(Program::load_with(Hook::Xdp, sizes, pins)?);
    }
    Ok(programs)
}

fn sweep_in_background(shared: &Arc<Shared>) -> Result<Thread, Error> {
    let weak = Arc::downgrade(shared);
    let handle = thread::Builder::new()
        .name("lb-sweep".into())
        .spawn(move || {
            loop {
                thread::park_timeout(ROUND);
                match weak.upgrade() {
                    Some(shared) => shared.round(),
                    None => return,
                }
            }
        })
        .map_err(|error| Error::io("start a thread", error))?;
    Ok(handle.thread().clone())
}

/// The journal's last record of each CPU.
fn heads(program: &Program) -> Vec<u64> {
    let region = program.tables().of(Table::Cpus);
    (0..program.sizes().cpus as usize)
        .map(|cpu| {
            region
                .long(cpu * CpuState::SIZE + 8)
                .load(Ordering::Acquire)
        })
        .collect()
}

impl Dataplane for Kernel {
    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn supports(&self, service: &Service) -> Result<(), Error> {
        preflight::supports(service)
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        self.shared.book().apply(self.shared.program(), plan)
    }

    fn installed(&self) -> Result<Installed, Error> {
        Ok(read::installed(&self.shared.book()))
    }

    fn statistics(&self) -> Result<Statistics, Error> {
        let book = self.shared.book();
        Ok(read::statistics(self.shared.program().tables(), &book))
    }

    fn take_new_flows(&mut self, into: &mut Vec<FlowRecord>, limit: usize) -> Result<u64, Error> {
        let book = self.shared.book();
        let now = self.shared.now(&book)?;
        let program = self.shared.program();
        let size = book.sizes.journal as usize;
        let region = program.tables().of(Table::Journal);
        let (mut lost, mut left) = (0, limit);
        for (cpu, (taken, head)) in self.journal.iter_mut().zip(heads(program)).enumerate() {
            let oldest = head.saturating_sub(size as u64);
            if *taken < oldest {
                lost += oldest - *taken;
                *taken = oldest;
            }
            while *taken < head && left > 0 {
                *taken += 1;
                left -= 1;
                let at = (cpu * size + index((*taken - 1) % size as u64)) * JournalRecord::SIZE;
                let record = JournalRecord::decode(&region.read(at));
                // Another sequence number: overwritten while it was read.
                let again = region.long(at).load(Ordering::Acquire);
                if record.sequence != *taken || again != *taken {
                    lost += 1;
                } else if let Some(record) = journal_record(program.tables(), &book, &record, now) {
                    into.push(record);
                }
            }
        }
        Ok(lost)
    }

    fn insert_flows(&mut self, flows: &[FlowRecord]) -> Result<usize, Error> {
        let book = self.shared.book();
        let now = self.shared.now(&book)?;
        let tables = self.shared.program().tables();
        let new = flows
            .iter()
            .filter(|flow| flows::insert(tables, &book, flow, now));
        Ok(new.count())
    }

    fn each_flow(&self, show: &mut dyn FnMut(FlowRecord)) -> Result<(), Error> {
        let book = self.shared.book();
        let now = self.shared.now(&book)?;
        flows::each(self.shared.program().tables(), &book, now, show);
        Ok(())
    }
}

/// A number below the size of a table.
fn index(number: u64) -> usize {
    usize::try_from(number).expect("tables fit into memory")
}

/// The budget of a tick.
fn per_tick(rate: u32, book: &Book) -> u32 {
    let flows = u128::from(rate) * book.clock.tick.as_millis() / 1_000;
    u32::try_from(flows).unwrap_or(u32::MAX).max(1)
}

fn journal_record(
    tables: &Tables,
    book: &Book,
    record: &JournalRecord,
    now: u16,
) -> Option<FlowRecord> {
    let address = |bytes: [u8; 16]| -> std::net::IpAddr {
        if record.family == 6 {
            bytes.into()
        } else {
            let [a, b, c, d, ..] = bytes;
            [a, b, c, d].into()
        }
    };
    let meta = Meta::decode(record.meta)?;
    let (source, destination) = (address(record.source), address(record.destination));
    let mut flow = flows::record(book, meta, source, destination, record.ports, now)?;
    flow.vip = crate::dataplane::VipNumber::new(record.vip);
    let key = Key {
        source,
        destination,
        ports: record.ports,
        kind: meta.kind,
    };
    flow.translated = flows::translated(tables, book, &key);
    Some(flow)
}
