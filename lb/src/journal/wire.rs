//! The datagrams. All numbers are big-endian.
//!
//! Header, 24 bytes: "CLBJ", version 1, kind, count of records (2), run of the
//! sender (8), sequence (8). Record: flags (1), protocol (1), idle seconds (2),
//! server (8), ports (4), addresses (8 or 32), and with SNAT the translated
//! address (4 or 16) and port (2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Record;
use crate::dataplane::{FlowKey, FlowState};
use crate::service::Identity;

/// Longest datagram: fits every link without fragments.
pub(super) const DATAGRAM: usize = 1_400;
const HEADER: usize = 24;
const MAGIC: [u8; 5] = *b"CLBJ\x01";

const IPV6: u8 = 1;
const TRANSLATED: u8 = 2;
const STATE_SHIFT: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The sender wants all.
    Ask = 1,
    /// All has been told.
    End = 2,
    /// Records.
    Flows = 3,
}

/// What a datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) kind: Kind,
    pub(super) run: u64,
    pub(super) sequence: u64,
    pub(super) records: Vec<Record>,
}

/// Records as they stand in a datagram, behind the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    kind: Kind,
    count: u16,
    bytes: Vec<u8>,
}

impl Body {
    /// A body without records.
    pub(super) fn bare(kind: Kind) -> Self {
        Self {
            kind,
            count: 0,
            bytes: Vec::new(),
        }
    }

    /// Number of records.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// As many bodies as these records need.
    pub(super) fn of(records: impl IntoIterator<Item = Record>) -> Vec<Self> {
        let mut bodies: Vec<Self> = Vec::new();
        let mut one = Vec::new();
        for record in records {
            one.clear();
            write(&record, &mut one);
            let full = |body: &Self| HEADER + body.bytes.len() + one.len() > DATAGRAM;
            if bodies.last().is_none_or(full) {
                bodies.push(Self::bare(Kind::Flows));
            }
            if let Some(body) = bodies.last_mut() {
                body.bytes.extend_from_slice(&one);
                body.count += 1;
            }
        }
        bodies
    }

    /// The datagram with this body.
    pub(super) fn datagram(&self, run: u64, sequence: u64) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(HEADER + self.bytes.len());
        datagram.extend_from_slice(&MAGIC);
        datagram.push(self.kind as u8);
        datagram.extend_from_slice(&self.count.to_be_bytes());
        datagram.extend_from_slice(&run.to_be_bytes());
        datagram.extend_from_slice(&sequence.to_be_bytes());
        datagram.extend_from_slice(&self.bytes);
        datagram
    }
}

fn write(record: &Record, bytes: &mut Vec<u8>) {
    let key = &record.key;
    let state = match record.state {
        FlowState::Opening => 0,
        FlowState::Established => 1,
        FlowState::Closing => 2,
    };
    let ipv6 = if key.source.is_ipv6() { IPV6 } else { 0 };
    let translated = record.translated.map_or(0, |_| TRANSLATED);
    bytes.push(ipv6 | translated | state << STATE_SHIFT);
    bytes.push(key.protocol);
    let idle = u16::try_from(record.idle.as_secs()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&idle.to_be_bytes());
    bytes.extend_from_slice(&record.server.bits().to_be_bytes());
    bytes.extend_from_slice(&key.source_port.to_be_bytes());
    bytes.extend_from_slice(&key.destination_port.to_be_bytes());
    write_address(key.source, bytes);
    write_address(key.destination, bytes);
    if let Some(translated) = record.translated {
        write_address(translated.ip(), bytes);
        bytes.extend_from_slice(&translated.port().to_be_bytes());
    }
}

fn write_address(address: IpAddr, bytes: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}

impl Datagram {
    /// Reads a datagram; `None` if it is not whole or not one of ours.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        if rest.take()? != MAGIC {
            return None;
        }
        let kind = match u8::from_be_bytes(rest.take()?) {
            1 => Kind::Ask,
            2 => Kind::End,
            3 => Kind::Flows,
            _ => return None,
        };
        let count = u16::from_be_bytes(rest.take()?);
        let run = u64::from_be_bytes(rest.take()?);
        let sequence = u64::from_be_bytes(rest.take()?);
        let records: Option<Vec<_>> = (0..count).map(|_| rest.record()).collect();
        rest.0.is_empty().then_some(Self {
            kind,
            run,
            sequence,
            records: records?,
        })
    }
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn port(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take()?))
    }

    fn address(&mut self, ipv6: bool) -> Option<IpAddr> {
        Some(if ipv6 {
            Ipv6Addr::from(self.take::<16>()?).into()
        } else {
            Ipv4Addr::from(self.take::<4>()?).into()
        })
    }

    fn record(&mut self) -> Option<Record> {
        let [flags, protocol] = self.take()?;
        let ipv6 = flags & IPV6 != 0;
        let state = match flags >> STATE_SHIFT {
            0 => FlowState::Opening,
            1 => FlowState::Established,
            2 => FlowState::Closing,
            _ => return None,
        };
        let idle = Duration::from_secs(u16::from_be_bytes(self.take()?).into());
        let server = Identity::from_bits(u64::from_be_bytes(self.take()?))?;
        let (source_port, destination_port) = (self.port()?, self.port()?);
        let (source, destination) = (self.address(ipv6)?, self.address(ipv6)?);
        let translated = match flags & TRANSLATED {
            0 => None,
            _ => Some(SocketAddr::new(self.address(ipv6)?, self.port()?)),
        };
        Some(Record {
            key: FlowKey {
                source,
                destination,
                protocol,
                source_port,
                destination_port,
            },
            server,
            state,
            idle,
            translated,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let v4 = any::<[[u8; 4]; 3]>().prop_map(|a| a.map(IpAddr::from));
        let v6 = any::<[[u8; 16]; 3]>().prop_map(|a| a.map(IpAddr::from));
        let state = prop_oneof![
            Just(FlowState::Closing),
            Just(FlowState::Established),
            Just(FlowState::Opening)
        ];
        let rest = (
            any::<u8>(),
            any::<[u16; 3]>(),
            any::<u16>(),
            1..=u64::MAX,
            any::<bool>(),
        );
        (prop_oneof![v4, v6], state, rest).prop_map(
            |([source, destination, snat], state, (protocol, ports, idle, server, translated))| {
                Record {
                    key: FlowKey {
                        source,
                        destination,
                        protocol,
                        source_port: ports[0],
                        destination_port: ports[1],
                    },
                    server: Identity::from_bits(server).unwrap(),
                    state,
                    idle: Duration::from_secs(idle.into()),
                    translated: translated.then(|| SocketAddr::new(snat, ports[2])),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn records_arrive_as_they_were_sent(records in prop::collection::vec(record(), 0..200)) {
            let mut arrived = Vec::new();
            for body in Body::of(records.iter().copied()) {
                let bytes = body.datagram(7, 9);
                prop_assert!(bytes.len() <= DATAGRAM);
                let datagram = Datagram::read(&bytes).unwrap();
                prop_assert_eq!((datagram.run, datagram.sequence), (7, 9));
                arrived.extend(datagram.records);
            }
            prop_assert_eq!(arrived, records);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Datagram::read(&bytes);
            let mut ours = MAGIC.to_vec();
            ours.push(3);
            ours.extend(bytes);
            let _ = Datagram::read(&ours);
        }

        #[test]
        fn what_is_cut_short_or_too_long_is_refused(record in record(), cut in 1_usize..24) {
            let mut bytes = Body::of([record])[0].datagram(1, 1);
            prop_assert_eq!(Datagram::read(&bytes[..bytes.len() - cut]), None);
            bytes.push(0);
            prop_assert_eq!(Datagram::read(&bytes), None);
        }
    }

    #[test]
    fn sixty_flows_of_ipv4_fit_a_datagram() {
        let flow = |n: u8| Record {
            key: crate::control::testing::flow("10.0.0.1", n.into()),
            server: Identity::of(&["a"]),
            state: FlowState::Opening,
            idle: Duration::ZERO,
            translated: None,
        };
        assert_eq!(Body::of((0..57).map(flow)).len(), 1);
    }
}
