//! Rules, written as the expressions they are made of.

use std::time::Duration;

use nlink::netlink::nftables::{
    ChainName, CmpOp, CtDirection, CtKey, CtStatus, DynsetExpr, DynsetOp, Expr, FibFlags,
    FibResult, HashKind, LookupExpr, MetaKey, NumgenKind, PayloadBase, PayloadCsum, RawExpr,
    Register, Verdict,
};

use super::layout::{Ip, Kind, name};

/// One rule: a list of expressions, each of which may end it.
#[derive(Debug, Clone)]
pub(super) struct Code {
    ip: Ip,
    expressions: Vec<Expr>,
}

/// TCP flags.
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;

impl Code {
    pub(super) fn new(ip: Ip) -> Self {
        Self {
            ip,
            expressions: Vec::new(),
        }
    }

    pub(super) fn expressions(self) -> Vec<Expr> {
        self.expressions
    }

    pub(super) fn then(mut self, expression: impl Into<Expr>) -> Self {
        self.expressions.push(expression.into());
        self
    }

    // === matches ===

    fn is(self, sreg: Register, data: &[u8]) -> Self {
        self.compare(sreg, CmpOp::Eq, data)
    }

    fn compare(self, sreg: Register, op: CmpOp, data: &[u8]) -> Self {
        self.then(Expr::Cmp {
            sreg,
            op,
            data: data.to_vec(),
        })
    }

    fn protocol(self, op: CmpOp, number: u8) -> Self {
        let scratch = self.ip.place().scratch();
        self.meta(MetaKey::L4Proto, scratch)
            .compare(scratch, op, &[number])
    }

    pub(super) fn of_protocol(self, number: u8) -> Self {
        self.protocol(CmpOp::Eq, number)
    }

    fn ported(self, invert: bool) -> Self {
        let scratch = self.ip.place().scratch();
        let lookup = LookupExpr::new(name::PORTED, scratch);
        let lookup = if invert { lookup.invert() } else { lookup };
        self.meta(MetaKey::L4Proto, scratch).then(lookup)
    }

    /// Goes on only with packets of the kind.
    pub(super) fn of_kind(self, kind: Kind) -> Self {
        let icmp = self.ip.icmp();
        match kind {
            Kind::Echo => {
                let request = self.ip.echo_request();
                self.of_protocol(icmp).of_icmp_type(request)
            }
            Kind::Other => self.ported(true).protocol(CmpOp::Neq, icmp),
            Kind::Ports => self.ported(false),
        }
    }

    pub(super) fn of_icmp_type(self, number: u8) -> Self {
        let scratch = self.ip.place().scratch();
        self.transport(scratch, 0, 1).is(scratch, &[number])
    }

    /// Of the flags in `mask`, exactly those in `value` (or not exactly those).
    pub(super) fn tcp_flags(self, mask: u8, op: CmpOp, value: u8) -> Self {
        let scratch = self.ip.place().scratch();
        self.of_protocol(TCP)
            .transport(scratch, 13, 1)
            .mask(scratch, &[mask])
            .compare(scratch, op, &[value])
    }

    /// The first byte of an IP header without options.
    pub(super) fn plain_inner(self) -> Self {
        let scratch = self.ip.place().scratch();
        match self.ip {
            Ip::V4 => self.transport(scratch, 8, 1).is(scratch, &[0x45]),
            Ip::V6 => self,
        }
    }

    pub(super) fn inner_protocol_is(self, number: u8) -> Self {
        let (scratch, offset) = (self.ip.place().scratch(), 8 + self.ip.protocol());
        self.transport(scratch, offset, 1).is(scratch, &[number])
    }

    pub(super) fn inner_is_ported(self) -> Self {
        let (scratch, offset) = (self.ip.place().scratch(), 8 + self.ip.protocol());
        self.transport(scratch, offset, 1)
            .then(LookupExpr::new(name::PORTED, scratch))
    }

    pub(super) fn inner_icmp_type_is(self, number: u8) -> Self {
        let (scratch, offset) = (self.ip.place().scratch(), 8 + self.ip.header());
        self.transport(scratch, offset, 1).is(scratch, &[number])
    }

    pub(super) fn destination_is(self, address: &[u8]) -> Self {
        let (key, at, width) = (
            self.ip.place().key(),
            self.ip.destination(),
            self.ip.width(),
        );
        self.network(key, at, width).is(key, address)
    }

    /// The source is an address of this machine.
    pub(super) fn source_is_local(self) -> Self {
        const RTN_LOCAL: u32 = 2;
        let scratch = self.ip.place().scratch();
        self.then(Expr::Fib {
            dreg: scratch,
            result: FibResult::AddrType,
            flags: FibFlags::SADDR,
        })
        .is(scratch, &RTN_LOCAL.to_ne_bytes())
    }

    pub(super) fn translated_destination(self) -> Self {
        let scratch = self.ip.place().scratch();
        let bit = CtStatus::DST_NAT.bits().to_ne_bytes();
        self.then(Expr::Ct {
            dreg: scratch,
            key: CtKey::Status,
        })
        .mask(scratch, &bit)
        .compare(scratch, CmpOp::Neq, &[0; 4])
    }

    /// Packets that have no socket know no user, and the rule ends.
    pub(super) fn sent_by_process(self) -> Self {
        let scratch = self.ip.place().scratch();
        self.meta(MetaKey::SkUid, scratch)
    }

    pub(super) fn sent_by_client(self) -> Self {
        let scratch = self.ip.place().scratch();
        self.then(Expr::Ct {
            dreg: scratch,
            key: CtKey::Direction,
        })
        .is(scratch, &[CtDirection::Original as u8])
    }

    // === loads ===

    pub(super) fn meta(self, key: MetaKey, dreg: Register) -> Self {
        self.then(Expr::Meta { dreg, key })
    }

    pub(super) fn network(self, dreg: Register, offset: u32, len: u32) -> Self {
        self.payload(PayloadBase::Network, dreg, offset, len)
    }

    pub(super) fn transport(self, dreg: Register, offset: u32, len: u32) -> Self {
        self.payload(PayloadBase::Transport, dreg, offset, len)
    }

    fn payload(self, base: PayloadBase, dreg: Register, offset: u32, len: u32) -> Self {
        self.then(Expr::Payload {
            dreg,
            base,
            offset,
            len,
        })
    }

    pub(super) fn immediate(self, dreg: Register, data: &[u8]) -> Self {
        self.then(Expr::Immediate {
            dreg,
            data: data.to_vec(),
        })
    }

    pub(super) fn mask(self, register: Register, mask: &[u8]) -> Self {
        self.bits(register, mask, &vec![0; mask.len()])
    }

    /// `(register & mask) ^ xor`.
    pub(super) fn bits(self, register: Register, mask: &[u8], xor: &[u8]) -> Self {
        self.then(Expr::Bitwise {
            sreg: register,
            dreg: register,
            len: u32::try_from(mask.len()).expect("a mask is as long as an address at most"),
            mask: mask.to_vec(),
            xor: xor.to_vec(),
        })
    }

    /// The flow's key.
    pub(super) fn key(self, kind: Kind) -> Self {
        let (ip, place) = (self.ip, self.ip.place());
        let code = self
            .network(place.key(), ip.source(), ip.width())
            .network(place.destination(), ip.destination(), ip.width())
            .meta(MetaKey::L4Proto, place.protocol());
        match kind {
            Kind::Echo => code
                .transport(place.source_port(), 4, 2)
                .immediate(place.destination_port(), &[0; 2]),
            Kind::Other => code
                .immediate(place.source_port(), &[0; 2])
                .immediate(place.destination_port(), &[0; 2]),
            Kind::Ports => {
                code.transport(place.source_port(), 0, 2)
                    .transport(place.destination_port(), 2, 2)
            }
        }
    }

    /// The key of the flow that an ICMP error speaks of, turned round.
    pub(super) fn inner_key(self, kind: Kind) -> Self {
        let (ip, place) = (self.ip, self.ip.place());
        let ports = 8 + ip.header();
        let code = self
            .transport(place.key(), 8 + ip.destination(), ip.width())
            .transport(place.destination(), 8 + ip.source(), ip.width())
            .transport(place.protocol(), 8 + ip.protocol(), 1);
        match kind {
            Kind::Ports => code.transport(place.source_port(), ports + 2, 2).transport(
                place.destination_port(),
                ports,
                2,
            ),
            Kind::Echo | Kind::Other => code
                .transport(place.source_port(), ports + 4, 2)
                .immediate(place.destination_port(), &[0; 2]),
        }
    }

    pub(super) fn client(self) -> Self {
        let (ip, place) = (self.ip, self.ip.place());
        self.network(place.key(), ip.source(), ip.width())
    }

    // === sets ===

    pub(super) fn contains(self, set: &str, sreg: Register) -> Self {
        self.then(LookupExpr::new(set, sreg))
    }

    pub(super) fn lookup(self, map: &str, sreg: Register, dreg: Register) -> Self {
        self.then(LookupExpr::new(map, sreg).dreg(dreg))
    }

    pub(super) fn contains_number(self, set: &str) -> Self {
        let number = self.ip.place().number();
        self.contains(set, number)
    }

    pub(super) fn dispatch(self, map: &str) -> Self {
        let number = self.ip.place().number();
        self.lookup(map, number, Register::Verdict)
    }

    /// The key's number in a map.
    pub(super) fn find(self, map: &str) -> Self {
        let place = self.ip.place();
        self.lookup(map, place.key(), place.number())
    }

    /// Remembers the number under the key, or keeps what is there alive.
    pub(super) fn remember(self, map: &str, timeout: Duration) -> Self {
        let place = self.ip.place();
        self.then(
            DynsetExpr::new(DynsetOp::Update, map, place.key())
                .sreg_data(place.number())
                .timeout(timeout),
        )
    }

    /// Takes the key away; the number is only there because the kernel wants a
    /// map's rule to have one.
    pub(super) fn forget(self, map: &str) -> Self {
        let place = self.ip.place();
        self.then(DynsetExpr::new(DynsetOp::Delete, map, place.key()).sreg_data(place.number()))
    }

    // === numbers ===

    /// 0, 1, 2, … below `modulus`, for all processors together.
    pub(super) fn turn(self, modulus: u32) -> Self {
        let dreg = self.ip.place().number();
        self.then(Expr::Numgen {
            dreg,
            kind: NumgenKind::Incremental,
            modulus,
            offset: 0,
        })
    }

    /// A hash of what begins where keys begin.
    pub(super) fn hash(self, len: u32, modulus: u32, seed: u32) -> Self {
        let place = self.ip.place();
        self.then(Expr::Hash {
            dreg: place.number(),
            kind: HashKind::Jenkins,
            sreg: Some(place.key()),
            len,
            modulus,
            seed: Some(seed),
            offset: 0,
        })
    }

    pub(super) fn number_in(self, map: &str) -> Self {
        let number = self.ip.place().number();
        self.lookup(map, number, number)
    }

    pub(super) fn mark(self) -> Self {
        let number = self.ip.place().number();
        self.meta(MetaKey::Mark, number)
    }

    pub(super) fn set_mark(self) -> Self {
        let sreg = self.ip.place().number();
        self.then(Expr::MetaSet {
            key: MetaKey::Mark,
            sreg,
        })
    }

    pub(super) fn set_mark_to(self, number: u32) -> Self {
        let dreg = self.ip.place().number();
        self.immediate(dreg, &number.to_ne_bytes()).set_mark()
    }

    pub(super) fn connection_mark(self) -> Self {
        let dreg = self.ip.place().number();
        self.then(Expr::Ct {
            dreg,
            key: CtKey::Mark,
        })
    }

    pub(super) fn set_connection_mark(self) -> Self {
        let sreg = self.ip.place().number();
        self.then(Expr::CtSet {
            key: CtKey::Mark,
            sreg,
        })
    }

    // === what becomes of the packet ===

    pub(super) fn verdict(self, verdict: Verdict) -> Self {
        self.then(Expr::Verdict(verdict))
    }

    pub(super) fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    pub(super) fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    pub(super) fn goto(self, chain: &str) -> Self {
        self.verdict(Verdict::GotoTo(chain_name(chain)))
    }

    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(Verdict::JumpTo(chain_name(chain)))
    }

    pub(super) fn reset(self) -> Self {
        self.then(Expr::Reject {
            reject_type: 1,
            icmp_code: 0,
        })
    }

    /// ICMP port unreachable.
    pub(super) fn unreachable(self) -> Self {
        let icmp_code = match self.ip {
            Ip::V4 => 3,
            Ip::V6 => 4,
        };
        self.then(Expr::Reject {
            reject_type: 0,
            icmp_code,
        })
    }

    /// Counts one of the reasons.
    pub(super) fn count(self, reason: u32) -> Self {
        let scratch = self.ip.place().scratch();
        self.immediate(scratch, &reason.to_ne_bytes())
            .contains(name::REASONS, scratch)
    }

    pub(super) fn duplicate(self) -> Self {
        let address = self.ip.place().address();
        self.then(Expr::Dup {
            sreg_addr: Some(address),
            sreg_dev: None,
        })
    }

    /// Rewrites an address, and with `port` the port, of the connection.
    pub(super) fn translate(self, translation: Translation, port: bool) -> Self {
        let place = self.ip.place();
        let (address, family) = (place.address().wire(), self.ip.family() as u32);
        let mut words = vec![
            (NFTA_NAT_TYPE, translation as u32),
            (NFTA_NAT_FAMILY, family),
            (NFTA_NAT_REG_ADDR_MIN, address),
        ];
        if port {
            words.push((NFTA_NAT_REG_PROTO_MIN, place.port().wire()));
        }
        let attributes = words
            .into_iter()
            .flat_map(|(kind, word)| attribute(kind, word));
        self.then(RawExpr::new("nat", attributes.collect()))
    }

    pub(super) fn write_destination(self) -> Self {
        let (sreg, offset, len) = (
            self.ip.place().address(),
            self.ip.destination(),
            self.ip.width(),
        );
        self.write(sreg, offset, len, true)
    }

    /// Writes to the IP header, checksums following.
    pub(super) fn write(self, sreg: Register, offset: u32, len: u32, addresses: bool) -> Self {
        let (csum, csum_offset) = match self.ip {
            Ip::V4 => (PayloadCsum::Inet, 10),
            Ip::V6 => (PayloadCsum::None, 0),
        };
        self.then(Expr::PayloadSet {
            sreg,
            base: PayloadBase::Network,
            offset,
            len,
            csum,
            csum_offset,
            l4_pseudo_header: addresses,
        })
    }

    pub(super) fn untracked(self) -> Self {
        self.then(Expr::Notrack)
    }
}

/// Which end of a connection is rewritten (`enum nft_nat_types`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Translation {
    Destination = 1,
    Source = 0,
}

// `enum nft_nat_attributes`.
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;

/// A netlink attribute that holds one word in network order.
fn attribute(kind: u16, word: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&8_u16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..].copy_from_slice(&word.to_be_bytes());
    bytes
}

pub(super) fn chain_name(name: &str) -> ChainName {
    ChainName::new(name).expect("names are made here, and short")
}
