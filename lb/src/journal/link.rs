use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::{Exchange, Record, Tally};
use crate::config::Journal;
use crate::control::Control;
use crate::dataplane::{self, Dataplane, FlowRecord};

/// How often flows that had packets since are told again. Well below the idle
/// timeout of a flow that was told at its first packet.
pub const REFRESH: Duration = Duration::from_secs(20);

/// New flows that are taken at a time.
const FLOWS: usize = 16_384;

/// Datagrams sent to each peer, and received, per turn: with a turn each
/// millisecond about a million flows a second.
const PACE: usize = 32;

/// Room for what peers send while this thread applies a plan.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Why flows cannot be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data plane cannot tell or take flows.
    #[error("the data plane failed to exchange flows")]
    Dataplane(#[from] dataplane::Error),
    /// The socket cannot be made.
    #[error("cannot listen for flow records on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
}

/// The exchange of one balancer over its UDP socket. Whoever drives the data
/// plane calls [`Link::turn`] often; it never waits.
#[derive(Debug)]
pub struct Link {
    socket: UdpSocket,
    exchange: Exchange,
    refresh: Instant,
    flows: Vec<FlowRecord>,
    buffer: Vec<u8>,
}

impl Link {
    /// Listens; the first turn asks all peers for their flows.
    ///
    /// # Errors
    ///
    /// The address is not ours or in use.
    pub fn open(config: &Journal, run: u64, now: Instant) -> Result<Self, Error> {
        let socket = listen(config.listen).map_err(|source| Error::Listen {
            address: config.listen,
            source,
        })?;
        Ok(Self {
            socket,
            exchange: Exchange::new(run, config.peers.iter().copied()),
            refresh: now + REFRESH,
            flows: Vec::with_capacity(FLOWS),
            buffer: vec![0; 2_048],
        })
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// The system does not know it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes what began here, what others tell, and sends what is due. Gives
    /// whether there may be more to do at once.
    ///
    /// # Errors
    ///
    /// The data plane fails; the next turn tries again.
    pub fn turn<D: Dataplane>(
        &mut self,
        control: &mut Control<D>,
        now: Instant,
    ) -> Result<bool, Error> {
        let took = self.take(control)?;
        let heard = self.hear(control)?;
        if now >= self.refresh {
            self.refresh = now + REFRESH;
            let records = records(control, |flow| flow.idle < REFRESH)?;
            self.exchange.tell(records);
        }
        for (peer, datagram) in self.exchange.send(now, PACE) {
            // A peer that is not there is no mistake, and nor is a full buffer:
            // the sequence tells.
            let _ = self.socket.send_to(&datagram, peer);
        }
        Ok(took || heard || self.exchange.is_busy())
    }

    /// New flows of the data plane, told to all.
    fn take<D: Dataplane>(&mut self, control: &mut Control<D>) -> Result<bool, Error> {
        self.flows.clear();
        let plane = control.dataplane_mut();
        let lost = plane.take_new_flows(&mut self.flows, FLOWS)?;
        self.exchange.tally_mut().overwritten += lost;
        let records = self.flows.iter().filter_map(|flow| record(control, flow));
        self.exchange.tell(records);
        Ok(self.flows.len() == FLOWS)
    }

    /// What peers have sent, for the data plane.
    fn hear<D: Dataplane>(&mut self, control: &mut Control<D>) -> Result<bool, Error> {
        for _ in 0..PACE {
            let Ok((length, from)) = self.socket.recv_from(&mut self.buffer) else {
                return Ok(false);
            };
            let received = self.exchange.receive(from, &self.buffer[..length]);
            self.insert(control, &received.records)?;
            if received.asked {
                let records = records(control, |_| true)?;
                self.exchange.answer(from, records);
            }
        }
        Ok(true)
    }

    fn insert<D: Dataplane>(
        &mut self,
        control: &mut Control<D>,
        records: &[Record],
    ) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let known = records.iter().filter_map(|record| {
            let number = control.number(record.server)?;
            Some(record.flow(number))
        });
        let flows: Vec<_> = known.collect();
        let tally = self.exchange.tally_mut();
        tally.unknown_server += (records.len() - flows.len()) as u64;
        tally.inserted += control.dataplane_mut().insert_flows(&flows)? as u64;
        Ok(())
    }

    /// Peers that have told all, and all peers.
    #[must_use]
    pub fn joined(&self) -> (usize, usize) {
        (self.exchange.joined(), self.exchange.peers())
    }

    /// What went over the wire so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.exchange.tally()
    }
}

fn listen(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    // As much as the system allows; a smaller buffer only asks again more often.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn record<D: Dataplane>(control: &Control<D>, flow: &FlowRecord) -> Option<Record> {
    Some(Record::of(flow, control.identity(flow.server)?))
}

/// The live flows that are wanted.
fn records<D: Dataplane>(
    control: &Control<D>,
    wanted: impl Fn(&FlowRecord) -> bool,
) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    control.dataplane().each_flow(&mut |flow| {
        if wanted(&flow) {
            records.extend(record(control, &flow));
        }
    })?;
    Ok(records)
}
