//! What a packet costs each packet program: known flows, new flows, and what is not for a VIP.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::ProgramFd;
use serde::Serialize;

use super::netns::within;
use super::ours::{Config, Ours, Plane};
use super::rig::{self, Case, Cost, Packet, Rig, Subject, What};
use super::world::{BALANCER, VIP, World};
use super::{Options, Tell};

/// The VIP's port in this part.
pub(super) const PORT: u16 = 80;

/// New flows of one round, and the pause before it: programs that store so many a second at most shall store them all.
const NEW: (u32, Duration) = (100_000, Duration::from_millis(1100));

/// How packets get to servers: names, and as the balancer's file has them.
const MODES: [(&str, &str); 7] = [
    ("IPIP", "ipip"),
    ("NAT", "nat"),
    ("L2", "l2"),
    ("GUE", "gue"),
    ("GRE", "gre"),
    ("VXLAN", "{ name: vxlan, vni: 7 }"),
    ("L3DSR", "{ name: l3dsr, dscp: { 10.0.0.1: 12 } }"),
];

/// What one kind of packet costs one program, in nanoseconds, the rig's own share included.
#[derive(Clone, Debug, Serialize)]
pub struct PacketCost {
    /// The program.
    pub program: String,
    /// The kind of packet.
    pub packet: String,
    /// Flows that take turns.
    pub flows: u32,
    /// What it costs.
    #[serde(flatten)]
    pub cost: Cost,
}

/// A program in the rig.
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) program: ProgramFd,
    pub(super) vip: IpAddr,
    /// Whether it is measured with every number of flows and every kind of packet.
    pub(super) whole: bool,
}

/// An object file that is measured too.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its XDP program is taken.
    pub object: PathBuf,
    /// What its maps shall hold.
    pub maps: Option<PathBuf>,
}

pub(super) fn measure(
    options: &Options,
    world: &World,
    tell: &mut Tell,
) -> Result<Vec<PacketCost>> {
    let bench = Bench::new(options)?;
    within(BALANCER, || bench.all(world, tell))
}

struct Bench<'a> {
    options: &'a Options,
    rig: Rig,
    rows: Vec<PacketCost>,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        Ok(Self {
            options,
            rig: Rig::load()?,
            rows: Vec::new(),
        })
    }

    fn all(mut self, world: &World, tell: &mut Tell) -> Result<Vec<PacketCost>> {
        super::stay_on_one_processor()?;
        tell("packets: floors of the rig");
        self.floors()?;
        if let Some(other) = &self.options.subject {
            let name = other
                .object
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let subject = Subject::load(&other.object, other.maps.as_deref())
                .with_context(|| format!("cannot measure {}", other.object.display()))?;
            let contender = Contender {
                name,
                program: subject.program()?,
                vip: VIP.into(),
                whole: true,
            };
            self.contender(&contender, tell)?;
        }
        self.ours(world, tell)?;
        Ok(self.rows)
    }

    /// This project's program, as its balancer has attached it, with each mode.
    fn ours(&mut self, world: &World, tell: &mut Tell) -> Result<()> {
        let modes = if self.options.quick {
            &MODES[..2]
        } else {
            &MODES[..]
        };
        for &(name, mode) in modes {
            let config = Config {
                plane: Plane::Xdp,
                policy: "weighted-round-robin",
                mode,
                // 20 MB of IPv4 flows; translated ones take more room.
                more: ", flows: 1250000, nat-flows: 1000000".to_owned(),
                servers: world.servers().map(|address| (address, 1)).collect(),
            };
            let ours = match Ours::start(&self.options.carrick, BALANCER, &config) {
                Ok(ours) => ours,
                Err(error) => {
                    tell(&format!("packets: {name} is left out: {error:#}"));
                    continue;
                }
            };
            let contender = Contender {
                name: format!("carrick, {name}"),
                program: Ours::program(BALANCER, "b0")?,
                vip: VIP.into(),
                whole: name == "IPIP",
            };
            self.contender(&contender, tell)?;
            ours.tell_reasons(tell)?;
        }
        Ok(())
    }

    fn case(&self) -> Case {
        if self.options.quick {
            Case {
                packets: 100_000,
                rounds: 3,
            }
        } else {
            Case {
                packets: 1_000_000,
                rounds: 21,
            }
        }
    }

    fn floors(&mut self) -> Result<()> {
        let packet = packet(What::Ack, VIP.into(), 10_000);
        let case = self.case();
        let mut times = Vec::new();
        for _ in 0..case.rounds {
            times.push(self.rig.run_program("pass", &packet, case.packets)?);
        }
        times.sort_unstable();
        let nanoseconds = |at: usize| u64::try_from(times[at].0.as_nanos()).unwrap_or(u64::MAX);
        let cost = Cost {
            min: nanoseconds(0),
            median: nanoseconds(times.len() / 2),
            verdict: times[0].1,
        };
        self.add("an empty program, no rig", "any", 1, cost);
        let cost = rig::measure(&mut self.rig, None, &packet, case, || Ok(()))?;
        self.add("rig alone", "any", packet.flows, cost);
        for (name, program) in [
            ("rig + empty program", "pass"),
            ("rig + bare IPIP", "encapsulate"),
        ] {
            let program = self.rig.program(program)?;
            let cost = rig::measure(&mut self.rig, Some(&program), &packet, case, || Ok(()))?;
            self.add(name, "any", packet.flows, cost);
        }
        Ok(())
    }

    fn contender(&mut self, contender: &Contender, tell: &mut Tell) -> Result<()> {
        let Contender {
            name, whole, vip, ..
        } = contender;
        let numbers: &[u32] = match (whole, self.options.quick) {
            (true, false) => &[1, 10_000, 100_000, 1_000_000],
            (true, true) => &[1, 10_000],
            (false, _) => &[10_000],
        };
        for &flows in numbers {
            tell(&format!("packets: {name}, {flows} known flows"));
            self.known(contender, What::Ack, flows)?;
        }
        if *whole {
            tell(&format!("packets: {name}, datagrams, not a VIP, new flows"));
            self.known(contender, What::Udp, 10_000)?;
            let elsewhere = match vip {
                IpAddr::V4(_) => IpAddr::from([192, 0, 2, 1]),
                IpAddr::V6(_) => "2001:db8::1".parse()?,
            };
            let packet = packet(What::Ack, elsewhere, 10_000);
            let case = self.case();
            let cost = rig::measure(
                &mut self.rig,
                Some(&contender.program),
                &packet,
                case,
                || Ok(()),
            )?;
            self.add(name, "not a VIP", packet.flows, cost);
        }
        self.new_flows(contender)
    }

    /// Flows that are known, because each was seen before the first round.
    fn known(&mut self, contender: &Contender, what: What, flows: u32) -> Result<()> {
        let first = packet(
            if what == What::Udp {
                What::Udp
            } else {
                What::Syn
            },
            contender.vip,
            flows,
        );
        self.rig.hand_to(Some(&contender.program))?;
        self.rig.make(&first)?;
        self.see_all(&first)?;
        let packet = packet(what, contender.vip, flows);
        self.rig.make(&packet)?;
        self.see_all(&packet)?;
        let case = self.case();
        let cost = rig::measure(
            &mut self.rig,
            Some(&contender.program),
            &packet,
            case,
            || Ok(()),
        )?;
        let kind = if what == What::Udp {
            "known flow, UDP"
        } else {
            "known flow"
        };
        self.add(&contender.name, kind, flows, cost);
        Ok(())
    }

    fn see_all(&mut self, packet: &Packet) -> Result<()> {
        let (at_a_time, pause) = (100_000, NEW.1);
        let mut seen = 0;
        while seen < packet.flows {
            self.rig.run(packet, at_a_time.min(packet.flows))?;
            seen += at_a_time;
            if packet.flows > at_a_time {
                super::rest(pause);
            }
        }
        Ok(())
    }

    fn new_flows(&mut self, contender: &Contender) -> Result<()> {
        let mut packet = packet(What::Syn, contender.vip, u32::MAX);
        // Others than those that are known.
        packet.offset = 4_000_000;
        let (packets, pause) = NEW;
        let rounds = if self.options.quick { 2 } else { 7 };
        let case = Case { packets, rounds };
        let cost = rig::measure(
            &mut self.rig,
            Some(&contender.program),
            &packet,
            case,
            || {
                super::rest(pause);
                Ok(())
            },
        )?;
        self.add(
            &contender.name,
            "new flow",
            packets * u32::try_from(rounds)?,
            cost,
        );
        Ok(())
    }

    fn add(&mut self, program: &str, packet: &str, flows: u32, cost: Cost) {
        self.rows.push(PacketCost {
            program: program.to_owned(),
            packet: packet.to_owned(),
            flows,
            cost,
        });
    }
}

fn packet(what: What, to: IpAddr, flows: u32) -> Packet {
    Packet {
        what,
        to,
        port: PORT,
        flows,
        ethernet: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
        // XDP_DROP: nothing of it goes on.
        verdict: 1,
        offset: 0,
    }
}
