//! The program in the kernel beside its model.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use carrick_lb::kernel::{Hook, Program};
use carrick_lb::model::{Arrival, Hop, Memory, Model, Outcome, Verdict};
use carrick_lb::tables::{Reason, Sizes, Table};
use carrick_tests::Namespace;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::packets::describe;
use super::state::{SERVER_HOSTS, address};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TCX_NEXT: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;

/// Loopback, by which frames come in when a program is run on its own.
const LOOPBACK: u32 = 1;

/// A namespace whose kernel knows the way to two servers, and to two clients.
pub(crate) struct Links {
    namespace: Namespace,
    hops: BTreeMap<IpAddr, Hop>,
}

const OWN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 1, 2];

impl Links {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new("agree");
        let run = |words: String| {
            let status = namespace.within(|| Command::new("sh").args(["-c", &words]).status());
            assert!(status.unwrap().success(), "{words}");
        };
        run("ip link set lo up && ip link add near type veth peer far".into());
        run(format!(
            "ip link set near address {} mtu 9000 up && ip link set far up",
            text(OWN)
        ));
        run(
            "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"
                .into(),
        );
        let interface = namespace
            .within(|| nix::net::if_::if_nametoindex("near"))
            .unwrap();
        let hop = Hop {
            interface,
            destination: PEER,
            source: OWN,
        };
        let mut hops = BTreeMap::new();
        for host in [SERVER_HOSTS[0], SERVER_HOSTS[1], 65, 66] {
            for v6 in [false, true] {
                let address = address(v6, host);
                run(format!("ip route add {address} dev near"));
                run(format!(
                    "ip neighbour add {address} lladdr {} dev near nud permanent",
                    text(PEER)
                ));
                hops.insert(address, hop);
            }
        }
        Self { namespace, hops }
    }

    /// Runs `work` where these links are, with room for the random values of a
    /// build without optimization.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.within(|| {
            std::thread::scope(|scope| {
                let worker = std::thread::Builder::new().stack_size(64 << 20);
                let worker = worker.spawn_scoped(scope, work).unwrap();
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The program and the model with the same tables.
pub(crate) struct Pair {
    program: Program,
    pub(crate) model: Model,
    hook: Hook,
    cpus: Vec<usize>,
    cpu: usize,
    /// Packets that went through both.
    pub(crate) packets: u64,
    /// How often each reason was counted.
    pub(crate) reasons: BTreeMap<&'static str, u64>,
}

impl Pair {
    /// Loads the program; `None` if that is not possible and need not be.
    pub(crate) fn load(links: &Links, hook: Hook, sizes: Sizes) -> Option<Self> {
        let program = match Program::load(hook, sizes) {
            Ok(program) => program,
            Err(error) if std::env::var_os("CARRICK_WITHOUT_BPF").is_some() => {
                eprintln!("NOT RUN: {}", why(&error));
                return None;
            }
            Err(error) => panic!(
                "the agreement of program and model was not tested, since the program cannot be \
                 loaded; it needs CAP_BPF and CAP_NET_ADMIN outside of user namespaces \
                 (CARRICK_WITHOUT_BPF=1 goes on without): {}",
                why(&error)
            ),
        };
        let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cpus: Vec<_> = (0..2).filter(|cpu| allowed.is_set(*cpu).unwrap()).collect();
        assert!(!cpus.is_empty(), "the test needs CPU 0 or 1");
        let model = Model {
            hops: links.hops.clone(),
            ..Model::new(sizes)
        };
        let mut pair = Self {
            program,
            model,
            hook,
            cpus,
            cpu: usize::MAX,
            packets: 0,
            reasons: BTreeMap::new(),
        };
        pair.reset();
        Some(pair)
    }

    /// Empties all tables.
    pub(crate) fn reset(&mut self) {
        self.model.memory = Memory::new(*self.model.memory.sizes());
        for table in Table::ALL {
            self.copy(table);
        }
    }

    /// Changes the tables of both.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Memory)) {
        let before = self.model.memory.clone();
        change(&mut self.model.memory);
        for table in Table::ALL {
            if before.bytes(table) != self.model.memory.bytes(table) {
                self.copy(table);
            }
        }
    }

    fn copy(&self, table: Table) {
        self.program
            .tables()
            .of(table)
            .write(0, self.model.memory.bytes(table));
    }

    /// Whether the kernel runs a program on such a frame: at TC it wants a whole
    /// IP header.
    pub(crate) fn takes(&self, frame: &[u8]) -> bool {
        let shortest = if frame[12..14] == [0x08, 0] { 34 } else { 54 };
        self.hook == Hook::Xdp || frame.len() >= shortest
    }

    /// Treats a frame with both.
    pub(crate) fn treat(&mut self, cpu: bool, frame: &[u8]) -> Result<Outcome, String> {
        self.move_to(usize::from(cpu) % self.cpus.len());
        let cpu = u32::try_from(self.cpus[self.cpu]).unwrap();
        let arrival = Arrival {
            cpu,
            jiffies: 0,
            interface: LOOPBACK,
        };
        let expected = self.model.treat(arrival, frame);
        let got = self
            .program
            .run(frame)
            .map_err(|error| format!("{error}: {error:?}"))?;
        self.packets += 1;
        let verdict = self.verdict(expected.verdict);
        let mut wrong = Vec::new();
        if verdict != got.verdict {
            let got = got.verdict;
            wrong.push(format!("verdict: the model {verdict}, the program {got}"));
        }
        if expected.verdict != Verdict::Drop && expected.frame != got.frame {
            wrong.push(format!("frame: the model   {}", describe(&expected.frame)));
            wrong.push(format!("       the program {}", describe(&got.frame)));
        }
        for table in Table::ALL {
            wrong.extend(self.difference(table));
        }
        if wrong.is_empty() {
            return Ok(expected);
        }
        Err(format!("of {}\n{}", describe(frame), wrong.join("\n")))
    }

    /// The kernel's number for a verdict.
    fn verdict(&self, verdict: Verdict) -> u32 {
        match (self.hook, verdict) {
            (Hook::Xdp, Verdict::Drop) => XDP_DROP,
            (Hook::Xdp, Verdict::Pass) => XDP_PASS,
            (Hook::Xdp, Verdict::Out(LOOPBACK)) => XDP_TX,
            (Hook::Xdp, Verdict::Out(_)) => XDP_REDIRECT,
            (_, Verdict::Drop) => TC_ACT_SHOT,
            (_, Verdict::Pass) => TCX_NEXT,
            (_, Verdict::Out(_)) => TC_ACT_REDIRECT,
        }
    }

    fn move_to(&mut self, cpu: usize) {
        if self.cpu == cpu {
            return;
        }
        let mut set = CpuSet::new();
        set.set(self.cpus[cpu]).unwrap();
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
        self.cpu = cpu;
    }

    /// The values of a table in which the two differ.
    fn difference(&self, table: Table) -> Vec<String> {
        let expected = self.model.memory.bytes(table);
        let mut got = vec![0; expected.len()];
        self.program.tables().of(table).read_into(0, &mut got);
        if expected == got {
            return Vec::new();
        }
        if table == Table::Counters {
            return counters(expected, &got);
        }
        let (name, size) = (table.name(), table.value_size());
        let values = expected.chunks(size).zip(got.chunks(size)).enumerate();
        let differing = values.filter(|(_, (expected, got))| expected != got);
        let lines = differing.map(|(at, (expected, got))| {
            format!("{name}[{at}]: the model   {expected:02x?}\n  the program {got:02x?}")
        });
        lines.collect()
    }

    /// How often the model counted a reason since the tables were emptied.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let reasons = reasons(self.model.memory.bytes(Table::Counters));
        let found = reasons.into_iter().find(|(reason, _)| *reason == name);
        found.expect("a reason of that name").1
    }

    /// Adds what was counted to [`Pair::reasons`].
    pub(crate) fn note_reasons(&mut self) {
        for (name, value) in reasons(self.model.memory.bytes(Table::Counters)) {
            *self.reasons.entry(name).or_default() += value;
        }
    }
}

/// An error with its causes; of the verifier's log only the end.
fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let whole = error.to_string();
        let end = whole.len().saturating_sub(400);
        text = format!("{text}: {}", whole.get(end..).unwrap_or(&whole));
        source = error.source();
    }
    text
}

/// The counters of all CPUs by name.
fn reasons(bytes: &[u8]) -> Vec<(&'static str, u64)> {
    let at = |cpu: &[u8], reason: usize| {
        let bytes = cpu[reason * 8..].first_chunk().copied();
        u64::from_le_bytes(bytes.unwrap())
    };
    let cpus: Vec<_> = bytes.chunks(Table::Counters.value_size()).collect();
    let sum = |reason: usize| cpus.iter().map(|cpu| at(cpu, reason)).sum();
    let reasons = Reason::ALL.iter().enumerate();
    reasons
        .map(|(at, reason)| (reason.name(), sum(at)))
        .collect()
}

fn counters(expected: &[u8], got: &[u8]) -> Vec<String> {
    let pairs = reasons(expected).into_iter().zip(reasons(got));
    let differing = pairs.filter(|(expected, got)| expected != got);
    differing
        .map(|((name, expected), (_, got))| {
            format!("{name}: the model {expected}, the program {got}")
        })
        .collect()
}
