//! Fragments: all parts of a datagram go to one server, in whatever order.

use super::Outcome;
use super::choose::Numbered;
use super::forward::Way;
use super::parse::{Body, Datagram, Part};
use super::run::Run;
use super::treat::Flow;
use super::vip::Vip;
use crate::tables::{Key, Kind, Reason, Rule, mode};

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
    pub(super) fn fragments(&mut self, flow: &Flow<'_>, server: u16) -> u16 {
        let Some(part) = flow.body.part else {
            return server;
        };
        let memo = self.memo_of(flow).unwrap_or(server);
        if memo != server {
            self.count(Reason::FragmentSplit);
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
        let (of, server) = match self.rest_server(&memo, &hint, part) {
            Some(known) => known,
            None => match self.rest_choice(rule, &hint) {
                Rest::Server(of, server) => (of, server),
                Rest::Empty(of) => return self.no_server(datagram, body, kind, &of.service),
                Rest::Internal => return self.drop(Reason::Internal),
                Rest::NoRule => return self.no_rule(datagram, body, vips, kind),
            },
        };
        if let Some(rule) = rule {
            self.count_vip(rule.vip, datagram.length());
        }
        self.remember(&memo, server);
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

    /// The server that the memo or the hint names, and its service.
    fn rest_server(&mut self, memo: &Key, hint: &Key, _part: Part) -> Option<(Numbered, u16)> {
        let known = self.remembered(memo).and_then(|server| self.served(server));
        if known.is_some() {
            return known;
        }
        self.count(Reason::FragmentEarly);
        self.remembered(hint).and_then(|server| self.served(server))
    }

    /// A server in use with its service.
    fn served(&self, server: u16) -> Option<(Numbered, u16)> {
        let number = self.memory.server_in_use(server)?.service;
        let service = self.memory.service(number)?;
        Some((Numbered { number, service }, server))
    }

    /// A server for a fragment of which nothing is known.
    fn rest_choice(&self, rule: Option<Rule>, hint: &Key) -> Rest {
        let Some(rule) = rule else {
            return Rest::NoRule;
        };
        let Some(service) = self.memory.service(rule.service) else {
            return Rest::Internal;
        };
        let of = Numbered {
            number: rule.service,
            service,
        };
        if service.slots_count == 0 {
            return Rest::Empty(of);
        }
        Rest::Server(of, self.by_hash(&service, hint))
    }
}

enum Rest {
    Empty(Numbered),
    Internal,
    NoRule,
    Server(Numbered, u16),
}
