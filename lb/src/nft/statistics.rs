//! Counters read back.

use std::collections::BTreeMap;

use super::Nft;
use super::contents::read_number;
use super::layout::{Ip, name};
use super::reasons::Reason;
use crate::dataplane::{
    Counters, Error, FlowState, ServerCounters, ServerNumber, Statistics, VipNumber,
};

impl Nft {
    pub(super) fn read_statistics(&self) -> Result<Statistics, Error> {
        let mut statistics = Statistics::default();
        let vips = self.both(name::VIP_PACKETS, name::VIP_FLOWS)?;
        let vips = vips
            .into_iter()
            .filter_map(|(number, counters)| Some((VipNumber::new(number)?, counters)));
        statistics.vips = vips.collect();
        let servers = self.both(name::SERVER_PACKETS, name::SERVER_FLOWS)?;
        let servers = servers.into_iter().filter_map(|(number, total)| {
            Some((
                ServerNumber::new(number)?,
                ServerCounters { total, live: 0 },
            ))
        });
        statistics.servers = servers.collect();
        self.show_flows(&mut |flow| {
            let live = flow.state != FlowState::Closing;
            if let Some(server) = statistics.servers.get_mut(&flow.server) {
                server.live += u64::from(live);
            }
        })?;
        let reasons = self.counted(name::REASONS)?;
        statistics.reasons = Reason::ALL
            .into_iter()
            .map(|reason| {
                let number = u16::try_from(reason.number()).unwrap_or_default();
                let packets = reasons.get(&number).map_or(0, |(packets, _)| *packets);
                (reason.name(), packets)
            })
            .collect();
        Ok(statistics)
    }

    /// Packets, bytes and flows from two sets of counters, of both families.
    fn both(&self, packets: &str, flows: &str) -> Result<BTreeMap<u16, Counters>, Error> {
        let mut all: BTreeMap<u16, Counters> = BTreeMap::new();
        for (number, (packets, bytes)) in self.counted(packets)? {
            let counters = all.entry(number).or_default();
            counters.packets = packets;
            counters.bytes = bytes;
        }
        for (number, (flows, _)) in self.counted(flows)? {
            all.entry(number).or_default().flows = flows;
        }
        Ok(all)
    }

    fn counted(&self, set: &str) -> Result<BTreeMap<u16, (u64, u64)>, Error> {
        let mut sums = BTreeMap::new();
        for ip in Ip::BOTH {
            for element in self.elements(ip, set)? {
                let number = read_number(element.key()).and_then(|n| u16::try_from(n).ok());
                let counter = element.counter();
                if let Some((number, (packets, bytes))) = number.zip(counter) {
                    let sum: &mut (u64, u64) = sums.entry(number).or_default();
                    *sum = (sum.0 + packets, sum.1 + bytes);
                }
            }
        }
        Ok(sums)
    }
}
