//! The chains: what the kernel does with a packet.

use std::time::Duration;

use ipnet::IpNet;
use nlink::netlink::nftables::{CmpOp, Expr, MetaKey};

use super::code::{ACK, Code, FIN, RST, SCTP, SYN, TCP, Translation, UDP};
use super::layout::{Ip, Kind, name};
use super::reasons::Reason;
use crate::dataplane::{PutService, PutVip, ServiceNumber, VipNumber};
use crate::service::{Mode, OnEmpty, Policy, Snat};

/// A chain without a hook, and its rules in order.
#[derive(Debug, Clone)]
pub(super) struct ChainRules {
    pub(super) name: String,
    pub(super) rules: Vec<Vec<Expr>>,
}

impl ChainRules {
    fn new(name: impl Into<String>, rules: Vec<Code>) -> Self {
        Self {
            name: name.into(),
            rules: rules.into_iter().map(Code::expressions).collect(),
        }
    }
}

/// The chains at hooks, which never change.
///
/// ```text
/// prerouting -290   count; DSR services: choose, remember, send
///                   (before connection tracking, which one-way flows confuse,
///                    and after fragments were put together)
/// prerouting -100   NAT services: choose for a new connection, translate
/// output     -290   count
/// output     -100   NAT services, for what begins here
/// postrouting   0   count what goes to servers
/// postrouting 100   NAT services: SNAT where it is asked for
/// ```
pub(super) fn hooks(ip: Ip) -> Vec<ChainRules> {
    let code = || Code::new(ip);
    let branches = |prefix: &str, code: &dyn Fn() -> Code| -> Vec<Code> {
        Kind::ALL
            .into_iter()
            .map(|kind| {
                let chain = format!("{prefix}_{}", kind.name());
                code().of_kind(kind).goto(&chain)
            })
            .collect()
    };
    let mut pre = vec![errors_branch(ip)];
    pre.extend(branches("pre", &code));
    let sent = code()
        .sent_by_client()
        .translated_destination()
        .connection_mark()
        .contains_number(name::SERVER_PACKETS);
    let snat = code()
        .translated_destination()
        .connection_mark()
        .dispatch(name::SNAT_DISPATCH);
    vec![
        ChainRules::new("pre", pre),
        ChainRules::new("nat_pre", branches("nat", &code)),
        // Only what a process sends: duplicates on their way to a server have no socket.
        ChainRules::new("out", branches("out", &|| code().sent_by_process())),
        ChainRules::new("nat_out", branches("nat", &code)),
        ChainRules::new("sent", vec![sent]),
        ChainRules::new("nat_post", vec![snat]),
    ]
}

fn errors_branch(ip: Ip) -> Code {
    Code::new(ip).of_protocol(ip.icmp()).jump("errors")
}

/// The chains that depend on nothing but the family.
pub(super) fn common(ip: Ip) -> Vec<ChainRules> {
    vec![errors(ip), send(ip), l2(ip), l3dsr(ip)]
}

/// ICMP errors go where the flow goes that they speak of.
fn errors(ip: Ip) -> ChainRules {
    let rule = |number: u8, kind: Kind, map: &str| {
        let code = Code::new(ip).of_icmp_type(number).plain_inner();
        let code = match kind {
            Kind::Ports => code.inner_is_ported(),
            Kind::Echo | Kind::Other => code
                .inner_protocol_is(ip.icmp())
                .inner_icmp_type_is(ip.echo_reply()),
        };
        code.inner_key(kind)
            .find(map)
            .contains_number(name::ALIVE)
            .set_mark()
            .count(Reason::IcmpError.number())
            .goto("send")
    };
    let mut rules = Vec::new();
    for number in ip.errors() {
        for (kind, map) in [
            (Kind::Ports, name::FLOWS),
            (Kind::Ports, name::CLOSING),
            (Kind::Echo, name::FLOWS),
        ] {
            rules.push(rule(*number, kind, map));
        }
    }
    ChainRules::new("errors", rules)
}

/// Takes the packet to the server whose number is its mark.
fn send(ip: Ip) -> ChainRules {
    let code = Code::new(ip)
        .mark()
        .contains_number(name::SERVER_PACKETS)
        .dispatch(name::WAY);
    let lost = Code::new(ip).count(Reason::Internal.number()).drop();
    ChainRules::new("send", vec![code, lost])
}

/// To the neighbour: a duplicate whose next hop is the server, and the
/// original goes no further.
fn l2(ip: Ip) -> ChainRules {
    let place = ip.place();
    let send = Code::new(ip)
        .mark()
        .lookup(name::TARGET, place.number(), place.address())
        .duplicate();
    ChainRules::new("l2", vec![send, Code::new(ip).drop()])
}

/// To the server's address, by whatever route leads there.
fn l3dsr(ip: Ip) -> ChainRules {
    let place = ip.place();
    let send = Code::new(ip)
        .mark()
        .lookup(name::TARGET, place.number(), place.address())
        .write_destination()
        .set_mark_to(0)
        .untracked()
        .accept();
    let lost = Code::new(ip).count(Reason::Internal.number()).drop();
    ChainRules::new("l3dsr", vec![send, lost])
}

/// The chains that find a packet's VIP; `lengths` are the prefix lengths in
/// use, in any order.
pub(super) fn vips(ip: Ip, lengths: &[u8]) -> Vec<ChainRules> {
    let mut lengths = lengths.to_vec();
    lengths.sort_unstable();
    lengths.dedup();
    lengths.reverse();
    let mut chains = Vec::new();
    for kind in Kind::ALL {
        let find = |length: &u8| find_vip(ip, kind, *length);
        let each = |with: &dyn Fn(Code) -> Code| lengths.iter().map(|l| with(find(l))).collect();
        let counted = |code: Code| code.contains_number(name::VIP_PACKETS);
        chains.extend([
            ChainRules::new(
                format!("pre_{}", kind.name()),
                each(&|code| counted(code).dispatch(name::DISPATCH)),
            ),
            ChainRules::new(
                format!("out_{}", kind.name()),
                each(&|code| counted(code).accept()),
            ),
            ChainRules::new(
                format!("nat_{}", kind.name()),
                each(&|code| code.dispatch(name::NAT_DISPATCH)),
            ),
        ]);
    }
    chains
}

fn find_vip(ip: Ip, kind: Kind, length: u8) -> Code {
    let place = ip.place();
    let code = Code::new(ip).meta(MetaKey::L4Proto, place.key()).network(
        place.vip_address(),
        ip.destination(),
        ip.width(),
    );
    let code = if u32::from(length) < 8 * ip.width() {
        code.mask(place.vip_address(), &prefix_mask(ip, length))
    } else {
        code
    };
    let code = match kind {
        Kind::Ports => code.transport(place.vip_port(), 2, 2),
        Kind::Echo | Kind::Other => code.immediate(place.vip_port(), &[0; 2]),
    };
    code.find(&name::prefixes(length))
}

fn prefix_mask(ip: Ip, length: u8) -> Vec<u8> {
    let mut bits = usize::from(length);
    (0..ip.width())
        .map(|_| {
            let here = bits.min(8);
            bits -= here;
            u8::try_from((0xff00_u16 >> here) & 0xff).expect("it is masked")
        })
        .collect()
}

/// The chain of a VIP of a service that is not NAT: its number goes along as
/// the mark until a server takes its place.
pub(super) fn vip_chain(number: VipNumber) -> String {
    format!("vip_{number}")
}

/// See [`vip_chain`].
pub(super) fn vip(ip: Ip, put: &PutVip, mode: &Mode) -> ChainRules {
    let code = Code::new(ip);
    let code = match mode {
        Mode::L3Dsr { dscp } => dscp
            .iter()
            .find(|(prefix, _)| *prefix == put.vip.prefix)
            .map_or(code.clone(), |(prefix, value)| {
                write_dscp(ip, code, *prefix, value.get())
            }),
        _ => code,
    };
    let goto = code
        .set_mark_to(put.number.get().into())
        .goto(&service_chain(put.service));
    ChainRules::new(vip_chain(put.number), vec![goto])
}

/// The six bits, with ECN kept (RFC 2474 §3, RFC 8200 §7).
fn write_dscp(ip: Ip, code: Code, prefix: IpNet, dscp: u8) -> Code {
    let scratch = ip.place().scratch();
    let (keep, set) = match ip {
        Ip::V4 => ([0xff, 0x03], [0, dscp << 2]),
        Ip::V6 => ([0xf0, 0x3f], [dscp >> 2, (dscp & 3) << 6]),
    };
    let address = match prefix.addr() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    code.destination_is(&address)
        .network(scratch, 0, 2)
        .bits(scratch, &keep, &set)
        .write(scratch, 0, 2, false)
}

/// The chain of a service that is not NAT.
pub(super) fn service_chain(service: ServiceNumber) -> String {
    format!("service_{service}")
}

/// The chain of a NAT service, for the first packet of a connection.
pub(super) fn nat_chain(service: ServiceNumber) -> String {
    format!("nat_{service}")
}

/// The chain of a NAT service that decides about SNAT.
pub(super) fn snat_chain(service: ServiceNumber) -> String {
    format!("snat_{service}")
}

/// The maps and sets of a service.
pub(super) fn ring_map(service: ServiceNumber) -> String {
    format!("ring_{service}")
}

/// The hash table.
pub(super) fn hash_map(service: ServiceNumber) -> String {
    format!("hash_{service}")
}

/// Clients and their last server.
pub(super) fn affinity_map(service: ServiceNumber) -> String {
    format!("affinity_{service}")
}

/// Clients that are servers.
pub(super) fn near_set(service: ServiceNumber) -> String {
    format!("near_{service}")
}

/// Addresses for SNAT.
pub(super) fn snat_map(service: ServiceNumber) -> String {
    format!("sources_{service}")
}

/// What the chains of a service are made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServiceRules<'a> {
    pub(super) ip: Ip,
    pub(super) put: &'a PutService,
    /// Slots whose server can be reached by this family.
    pub(super) ring: u32,
    pub(super) hash: u32,
    pub(super) sources: u32,
}

/// Seed of the hash that chooses slots: equal on all balancers.
const SLOT_SEED: u32 = 0x6361_7272;

impl ServiceRules<'_> {
    fn code(&self) -> Code {
        Code::new(self.ip)
    }

    fn number(&self) -> ServiceNumber {
        self.put.number
    }

    /// All chains of the service.
    pub(super) fn chains(&self) -> Vec<ChainRules> {
        let mut chains = vec![
            self.service(),
            ChainRules::new(nat_chain(self.number()), self.nat()),
            ChainRules::new(format!("nat_{}_go", self.number()), self.nat_go()),
            ChainRules::new(snat_chain(self.number()), self.snat()),
            ChainRules::new(format!("snat_{}_go", self.number()), self.snat_go()),
        ];
        for kind in Kind::ALL {
            chains.push(ChainRules::new(self.kind_chain(kind), self.dsr(kind)));
            chains.push(ChainRules::new(self.store_chain(kind), self.store(kind)));
        }
        chains
    }

    fn kind_chain(&self, kind: Kind) -> String {
        format!("service_{}_{}", self.number(), kind.name())
    }

    fn store_chain(&self, kind: Kind) -> String {
        format!("store_{}_{}", self.number(), kind.name())
    }

    // === DSR ===

    fn service(&self) -> ChainRules {
        let branch = |kind: Kind| self.code().of_kind(kind).goto(&self.kind_chain(kind));
        let name = service_chain(self.number());
        ChainRules::new(name, Kind::ALL.into_iter().map(branch).collect())
    }

    fn dsr(&self, kind: Kind) -> Vec<Code> {
        let mut rules = self.known(kind);
        // Its server is gone, and so is what is remembered of it.
        for map in [name::FLOWS, name::CLOSING] {
            rules.push(self.code().key(kind).find(map).forget(map));
        }
        if self.ring == 0 {
            rules.extend(self.empty());
            return rules;
        }
        let vip = self.code().mark().contains_number(name::VIP_FLOWS);
        rules.push(vip);
        rules.extend(self.choices(kind, &|code| code.set_mark().goto(&self.store_chain(kind))));
        rules
    }

    /// Packets of flows that are remembered, by what the packet says of its
    /// flow's future.
    fn known(&self, kind: Kind) -> Vec<Code> {
        let idle = &self.put.idle;
        let from = |code: Code, map: &str| {
            code.key(kind)
                .find(map)
                .contains_number(name::ALIVE)
                .set_mark()
        };
        let keep = |code: Code, timeout: Duration| {
            from(code, name::FLOWS)
                .remember(name::FLOWS, timeout)
                .goto("send")
        };
        let code = || self.code();
        if kind != Kind::Ports {
            return vec![keep(code(), idle.other)];
        }
        let last = code().tcp_flags(FIN | RST, CmpOp::Neq, 0);
        vec![
            from(last, name::FLOWS)
                .forget(name::FLOWS)
                .remember(name::CLOSING, idle.tcp_closing)
                .goto("send"),
            keep(
                code().tcp_flags(SYN | ACK, CmpOp::Eq, SYN),
                idle.tcp_opening,
            ),
            keep(code().of_protocol(TCP), idle.tcp),
            keep(code().of_protocol(UDP), idle.udp),
            keep(code().of_protocol(SCTP), idle.sctp),
            from(code().tcp_flags(SYN | ACK, CmpOp::Neq, SYN), name::CLOSING)
                .remember(name::CLOSING, idle.tcp_closing)
                .goto("send"),
        ]
    }

    /// Writes down what was chosen; whoever wrote first is right.
    fn store(&self, kind: Kind) -> Vec<Code> {
        let idle = &self.put.idle;
        let mut rules = Vec::new();
        if self.ring == 0 {
            return rules;
        }
        if let Some(affinity) = self.put.affinity {
            let map = affinity_map(self.number());
            let code = self.code().client().mark();
            rules.push(code.forget(&map).remember(&map, affinity));
        }
        let store = |code: Code, timeout: Duration| {
            code.key(kind)
                .mark()
                .remember(name::FLOWS, timeout)
                .find(name::FLOWS)
                .contains_number(name::SERVER_FLOWS)
                .set_mark()
                .goto("send")
        };
        let code = || self.code();
        rules.extend(match kind {
            Kind::Echo | Kind::Other => vec![store(code(), idle.other)],
            Kind::Ports => vec![
                store(
                    code().tcp_flags(SYN | ACK, CmpOp::Eq, SYN),
                    idle.tcp_opening,
                ),
                store(code().of_protocol(TCP), idle.tcp),
                store(code().of_protocol(UDP), idle.udp),
                store(code().of_protocol(SCTP), idle.sctp),
            ],
        });
        // No room: by hash, which needs no memory.
        let full = code().count(Reason::Full.number());
        rules.push(self.by_hash(full, kind).set_mark().goto("send"));
        rules
    }

    // === NAT ===

    fn nat(&self) -> Vec<Code> {
        if self.ring == 0 {
            return self.empty();
        }
        let go = format!("nat_{}_go", self.number());
        let chosen = |code: Code| code.set_connection_mark().goto(&go);
        let mut rules = Vec::new();
        rules.push(chosen(self.unknown(Kind::Ports)));
        if self.put.affinity.is_some() {
            rules.push(chosen(self.by_affinity()));
        }
        if self.hashes() {
            rules.extend(Kind::ALL.into_iter().map(|kind| {
                let code = self.code().of_kind(kind);
                chosen(self.by_hash(code, kind))
            }));
        } else {
            rules.push(chosen(self.by_turn()));
        }
        rules
    }

    fn nat_go(&self) -> Vec<Code> {
        let place = self.ip.place();
        let mut rules = vec![
            self.code()
                .connection_mark()
                .contains_number(name::SERVER_FLOWS),
        ];
        if let Some(affinity) = self.put.affinity {
            let map = affinity_map(self.number());
            let code = self.code().client().connection_mark();
            rules.push(code.forget(&map).remember(&map, affinity));
        }
        for protocol in [TCP, UDP] {
            rules.push(
                self.code()
                    .of_protocol(protocol)
                    .connection_mark()
                    .lookup(name::TARGET_PORT, place.number(), place.address())
                    .translate(Translation::Destination, true),
            );
        }
        rules.push(
            self.code()
                .connection_mark()
                .lookup(name::TARGET, place.number(), place.address())
                .translate(Translation::Destination, false),
        );
        rules
    }

    fn snat(&self) -> Vec<Code> {
        let go = format!("snat_{}_go", self.number());
        match &self.put.mode {
            Mode::Nat { snat } => match snat {
                Snat::Always(_) => vec![self.code().goto(&go)],
                Snat::Never => Vec::new(),
                Snat::WhenNeeded(_) => vec![
                    self.code()
                        .client()
                        .contains(&near_set(self.number()), self.ip.place().key())
                        .goto(&go),
                    self.code().source_is_local().goto(&go),
                ],
            },
            _ => Vec::new(),
        }
    }

    /// A client always has the same of the addresses.
    fn snat_go(&self) -> Vec<Code> {
        if self.sources == 0 {
            return vec![self.code().drop()];
        }
        let place = self.ip.place();
        let code = self.code().client();
        vec![
            code.hash(self.ip.width(), self.sources, SLOT_SEED)
                .lookup(&snat_map(self.number()), place.number(), place.address())
                .translate(Translation::Source, false),
        ]
    }

    // === choosing ===

    fn hashes(&self) -> bool {
        matches!(
            self.put.policy,
            Policy::Maglev { .. } | Policy::SourceHash { .. }
        )
    }

    /// The rules that put the number of a new flow's server where numbers are,
    /// each ended by `chosen`.
    fn choices(&self, kind: Kind, chosen: &dyn Fn(Code) -> Code) -> Vec<Code> {
        let mut rules = Vec::new();
        if kind == Kind::Ports {
            rules.push(chosen(self.unknown(kind)));
        }
        if self.put.affinity.is_some() {
            rules.push(chosen(self.by_affinity()));
        }
        rules.push(chosen(if self.hashes() {
            self.by_hash(self.code(), kind)
        } else {
            self.by_turn()
        }));
        rules
    }

    fn by_affinity(&self) -> Code {
        self.code()
            .client()
            .find(&affinity_map(self.number()))
            .contains_number(name::OPEN)
            .count(Reason::Affinity.number())
    }

    /// TCP in the middle of a flow that nobody remembers.
    fn unknown(&self, kind: Kind) -> Code {
        let code = self.code().tcp_flags(SYN | ACK, CmpOp::Neq, SYN);
        self.by_hash(code.count(Reason::Unknown.number()), kind)
    }

    fn by_turn(&self) -> Code {
        let ring = ring_map(self.number());
        self.code().turn(self.ring).number_in(&ring)
    }

    fn by_hash(&self, code: Code, kind: Kind) -> Code {
        let (map, slots) = if self.hash > 0 {
            (hash_map(self.number()), self.hash)
        } else {
            (ring_map(self.number()), self.ring)
        };
        match self.put.policy {
            Policy::SourceHash { .. } => code.client().hash(self.ip.width(), slots, SLOT_SEED),
            _ => code.key(kind).hash(self.ip.key_width(), slots, SLOT_SEED),
        }
        .number_in(&map)
    }

    fn empty(&self) -> Vec<Code> {
        let counted = self.code().count(Reason::NoServer.number());
        match self.put.on_empty {
            OnEmpty::Drop => vec![counted.drop()],
            OnEmpty::Reject => vec![
                counted,
                self.code()
                    .tcp_flags(RST, CmpOp::Eq, 0)
                    .count(Reason::Rejected.number())
                    .reset(),
                self.refused(TCP),
                self.refused(self.ip.icmp()),
                self.code().count(Reason::Rejected.number()).unreachable(),
            ],
        }
    }

    /// What must not be answered.
    fn refused(&self, protocol: u8) -> Code {
        let code = self.code().of_protocol(protocol);
        code.count(Reason::Dropped.number()).drop()
    }
}

/// The names of all chains of a service.
pub(super) fn chains_of_service(service: ServiceNumber) -> Vec<String> {
    let mut chains = vec![
        service_chain(service),
        nat_chain(service),
        format!("nat_{service}_go"),
        snat_chain(service),
        format!("snat_{service}_go"),
    ];
    for kind in Kind::ALL {
        chains.push(format!("service_{service}_{}", kind.name()));
        chains.push(format!("store_{service}_{}", kind.name()));
    }
    chains
}
