//! Fragments: all parts of a datagram go to one server, in whatever order.

use super::Outcome;
use super::choose::Numbered;
use super::forward::Way;
use super::parse::{Body, Datagram};
use super::run::Run;
use super::treat::Flow;
use super::vip::Vip;
use crate::tables::{Key, Kind, Reason, Rule, Service, mode};

impl Run<'_> {
    /// Where the other fragments of a first one went, if that server can still
    /// take them.
    pub(super) fn memo_of(&self, flow: &Flow<'_>) -> Option<u16> {
        let part = flow.body.part?;
        let memo = flow.datagram.memo(flow.body, part);
        self.remembered(&memo)
            .filter(|server| self.belongs(*server, flow.of.number))
    }

    /// Notes where a first fragment goes, whose flow is on `server`. Gives the
    /// server of its datagram: that of the fragments that were faster.
    /// NAT cannot send a flow's packet to another server, and so sends the
    /// later fragments after it.
    pub(super) fn note_fragment(&mut self, flow: &Flow<'_>, server: u16) -> u16 {
        let Some(part) = flow.body.part else {
            return server;
        };
        let mut memo = self.memo_of(flow).unwrap_or(server);
        if memo != server {
            self.count(Reason::FragmentSplit);
        }
        if flow.of.service.mode == mode::NAT {
            memo = server;
        }
        self.remember(&flow.datagram.memo(flow.body, part), memo);
        self.remember(&flow.datagram.hint(flow.body), server);
        memo
    }

    /// A fragment that is not the first.
    pub(super) fn rest(
        mut self,
        datagram: &Datagram,
        body: &Body,
        vips: &[Vip],
        kind: Kind,
    ) -> Outcome {
        let Some(part) = body.part else {
            return self.drop(Reason::Internal);
        };
        let rule = self.memory.matching(vips, kind, None);
        let memo = datagram.memo(body, part);
        let hint = datagram.hint(body);
        let server = match self.rest_server(rule, &memo, &hint) {
            Rest::Server(server) => server,
            Rest::Empty(service, vip) => {
                self.count_vip(vip, datagram.length());
                return self.no_server(datagram, body, kind, &service);
            }
            Rest::Internal => return self.drop(Reason::Internal),
            Rest::NoRule => return self.no_rule(datagram, body, vips, kind),
        };
        if let Some(rule) = rule {
            self.count_vip(rule.vip, datagram.length());
        }
        let Some(of) = self.service_of(server) else {
            return self.drop(Reason::Internal);
        };
        let way = Way {
            datagram,
            body,
            hash: hint.hash(self.settings.table_seed),
            dscp: rule.map_or(0, |rule| rule.dscp),
            service: &of.service,
            server,
            error: false,
        };
        if of.service.mode == mode::NAT {
            return self.nat_rest(way, &of);
        }
        self.forward(way)
    }

    /// The server that the memo names; else that of the hint or of the hash,
    /// which becomes the memo.
    fn rest_server(&mut self, rule: Option<Rule>, memo: &Key, hint: &Key) -> Rest {
        if let Some(server) = self.remembered_server(memo) {
            return Rest::Server(server);
        }
        self.count(Reason::FragmentEarly);
        let hinted = self.remembered_server(hint).map(Rest::Server);
        let rest = hinted.unwrap_or_else(|| self.rest_choice(rule, hint));
        if let Rest::Server(server) = rest {
            self.remember(memo, server);
        }
        rest
    }

    /// The server that an entry names, if it is in use.
    fn remembered_server(&self, key: &Key) -> Option<u16> {
        self.remembered(key)
            .filter(|server| self.memory.server_in_use(*server).is_some())
    }

    /// The service of a server.
    fn service_of(&self, server: u16) -> Option<Numbered> {
        let number = self.memory.server_in_use(server)?.service;
        let service = self.memory.service(number)?;
        Some(Numbered { number, service })
    }

    /// A server for a fragment of which nothing is known.
    fn rest_choice(&self, rule: Option<Rule>, hint: &Key) -> Rest {
        let Some(rule) = rule else {
            return Rest::NoRule;
        };
        let Some(service) = self.memory.service(rule.service) else {
            return Rest::Internal;
        };
        if service.slots_count == 0 {
            return Rest::Empty(service, rule.vip);
        }
        Rest::Server(self.by_hash(&service, hint))
    }
}

enum Rest {
    /// The service and the VIP.
    Empty(Service, u16),
    Internal,
    NoRule,
    Server(u16),
}
