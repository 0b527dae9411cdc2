//! Servers that join by an NSM Request and leave by its Close: clients of the
//! network, told by their endpoints' monitor streams.
//!
//! Read first: [`Members`], which takes what streams tell, with the time, and
//! says who serves. It does no I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use carrick_types::{Connection, ConnectionId, EndpointName, Labels, State};

use crate::service::{Server, ServerId};

/// The clients of a network service that are servers of a balanced one
/// (NSM `vl3lb`).
#[derive(Debug)]
pub struct Members {
    selector: Labels,
    port: Option<NonZeroU16>,
    endpoints: BTreeMap<EndpointName, Told>,
}

/// What one endpoint tells.
#[derive(Debug, Default)]
struct Told {
    members: BTreeMap<ConnectionId, Member>,
    /// Since when its stream is broken.
    lost: Option<Instant>,
}

#[derive(Debug)]
struct Member {
    addresses: Vec<IpAddr>,
    up: bool,
}

impl Members {
    /// How long the clients of an endpoint that cannot be asked take new flows
    /// all the same: enough for its restart.
    pub const GRACE: Duration = Duration::from_secs(10);

    /// Nobody yet. A client is a server if it has all labels of `selector`; an
    /// empty one selects nobody. Packets go to `port`, or to the VIP's.
    #[must_use]
    pub fn new(selector: Labels, port: Option<NonZeroU16>) -> Self {
        Self {
            selector,
            port,
            endpoints: BTreeMap::new(),
        }
    }

    /// All connections that an endpoint has: the first event of its stream.
    pub fn all<'a>(
        &mut self,
        endpoint: &EndpointName,
        connections: impl IntoIterator<Item = &'a Connection>,
    ) {
        let members = connections
            .into_iter()
            .filter_map(|connection| Some((connection.id.clone(), self.member(connection)?)))
            .collect();
        let told = Told {
            members,
            lost: None,
        };
        self.endpoints.insert(endpoint.clone(), told);
    }

    /// A connection is new or has changed, be it only its labels.
    pub fn updated(&mut self, endpoint: &EndpointName, connection: &Connection) {
        let member = self.member(connection);
        let told = self.endpoints.entry(endpoint.clone()).or_default();
        match member {
            Some(member) => told.members.insert(connection.id.clone(), member),
            None => told.members.remove(&connection.id),
        };
    }

    /// A connection was closed.
    pub fn closed(&mut self, endpoint: &EndpointName, connection: &ConnectionId) {
        if let Some(told) = self.endpoints.get_mut(endpoint) {
            told.members.remove(connection);
        }
    }

    /// The stream of an endpoint broke: nothing is known of its clients from
    /// now on, while packets may well go on.
    pub fn lost(&mut self, endpoint: &EndpointName, now: Instant) {
        if let Some(told) = self.endpoints.get_mut(endpoint) {
            told.lost.get_or_insert(now);
        }
    }

    /// An endpoint left the registry.
    pub fn gone(&mut self, endpoint: &EndpointName) {
        self.endpoints.remove(endpoint);
    }

    /// When [`Members::servers`] says something else although nothing is told.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.endpoints.values().filter_map(|told| told.lost);
        due.map(|lost| lost + Self::GRACE)
            .filter(|due| *due > now)
            .min()
    }

    /// The servers, by address, which is also their id: a client that moves to
    /// another endpoint with its address keeps its flows. Without the addresses
    /// in `own`.
    ///
    /// A client whose connection is down, or whose endpoint could not be asked
    /// for [`Members::GRACE`], keeps its flows and gets no new ones (weight 0);
    /// unless no other is left, since then the error is likely here.
    #[must_use]
    pub fn servers(&self, own: &[IpAddr], now: Instant) -> Vec<Server> {
        let mut weights = BTreeMap::<IpAddr, u16>::new();
        for told in self.endpoints.values() {
            let known = told.lost.is_none_or(|lost| now < lost + Self::GRACE);
            for member in told.members.values() {
                let weight = u16::from(known && member.up);
                for address in member.addresses.iter().filter(|it| !own.contains(it)) {
                    let best = weights.entry(*address).or_default();
                    *best = weight.max(*best);
                }
            }
        }
        if weights.values().all(|weight| *weight == 0) {
            self.trust_the_last(&mut weights);
        }
        let server = |(address, weight)| self.server(address, weight);
        weights.into_iter().map(server).collect()
    }

    fn server(&self, address: IpAddr, weight: u16) -> Server {
        let id = ServerId::new(address.to_string()).expect("an address has no white space");
        Server {
            port: self.port.map(NonZeroU16::get),
            weight,
            ..Server::new(id, address)
        }
    }

    /// Of those whose endpoint cannot be asked, all that were up serve on.
    fn trust_the_last(&self, weights: &mut BTreeMap<IpAddr, u16>) {
        let members = self
            .endpoints
            .values()
            .flat_map(|told| told.members.values());
        for address in members
            .filter(|member| member.up)
            .flat_map(|it| &it.addresses)
        {
            if let Some(weight) = weights.get_mut(address) {
                *weight = 1;
            }
        }
    }

    /// What a connection is as a server: its first address of each family.
    fn member(&self, connection: &Connection) -> Option<Member> {
        if self.selector.0.is_empty() || !self.selector.is_subset_of(&connection.labels) {
            return None;
        }
        let all = connection
            .context
            .ip
            .src_addrs
            .iter()
            .map(carrick_types::IpNet::addr);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in all {
            if addresses.iter().all(|it| it.is_ipv4() != address.is_ipv4()) {
                addresses.push(address);
            }
        }
        let up = connection.state != State::Down;
        (!addresses.is_empty()).then_some(Member { addresses, up })
    }
}

#[cfg(test)]
mod tests {
    use carrick_types::ServiceName;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn members(selector: &[(&str, &str)]) -> Members {
        Members::new(labels(selector), NonZeroU16::new(8080))
    }

    fn endpoint(name: &str) -> EndpointName {
        EndpointName::new(name).unwrap()
    }

    fn connection(id: &str, addresses: &[&str], has: &[(&str, &str)]) -> Connection {
        let id = ConnectionId::new(id).unwrap();
        let mut connection = Connection::new(id, ServiceName::new("vl3").unwrap());
        connection.labels = labels(has);
        for address in addresses {
            connection.context.ip.add_src_addr(address.parse().unwrap());
        }
        connection
    }

    fn weights(members: &Members, now: Instant) -> Vec<(String, u16)> {
        let servers = members.servers(&["10.0.0.9".parse().unwrap()], now);
        let weight = |server: Server| (server.id.to_string(), server.weight);
        servers.into_iter().map(weight).collect()
    }

    fn one(address: &str, weight: u16) -> (String, u16) {
        (address.to_owned(), weight)
    }

    const WEB: &[(&str, &str)] = &[("app", "web")];

    #[test]
    fn all_labels_of_the_selector_must_fit_and_an_empty_one_selects_nobody() {
        let both = [("app", "web"), ("tier", "1")];
        let some = [
            connection("1", &["10.0.0.1/32"], &both),
            connection("2", &["10.0.0.2/32"], WEB),
        ];
        let mut selected = members(&both);
        selected.all(&endpoint("a"), &some);
        assert_eq!(weights(&selected, Instant::now()), [one("10.0.0.1", 1)]);
        let mut nobody = members(&[]);
        nobody.all(&endpoint("a"), &some);
        assert!(nobody.servers(&[], Instant::now()).is_empty());
    }

    #[test]
    fn a_server_has_an_address_of_each_family_and_the_target_port() {
        let mut members = members(WEB);
        let addresses = ["10.0.0.1/32", "2001:db8::1/128", "10.0.0.2/32"];
        members.updated(&endpoint("a"), &connection("1", &addresses, WEB));
        let servers = members.servers(&[], Instant::now());
        let of: Vec<_> = servers.iter().map(|it| (it.address, it.port)).collect();
        let expected = ["10.0.0.1", "2001:db8::1"].map(|it| (it.parse().unwrap(), Some(8080)));
        assert_eq!(of, expected);
    }

    #[test]
    fn who_closes_or_loses_the_label_leaves_and_who_is_down_drains() {
        let (a, now) = (endpoint("a"), Instant::now());
        let mut members = members(WEB);
        let ids = ["1", "2", "3", "4"];
        for id in ids {
            members.updated(&a, &connection(id, &[&format!("10.0.0.{id}/32")], WEB));
        }
        members.closed(&a, &ConnectionId::new("1").unwrap());
        members.updated(&a, &connection("2", &["10.0.0.2/32"], &[("app", "db")]));
        let mut down = connection("3", &["10.0.0.3/32"], WEB);
        down.state = State::Down;
        members.updated(&a, &down);
        let left = [one("10.0.0.3", 0), one("10.0.0.4", 1)];
        assert_eq!(weights(&members, now), left);
    }

    #[test]
    fn a_client_that_moves_with_its_address_stays_one_server() {
        let now = Instant::now();
        let mut members = members(WEB);
        let mut old = connection("1", &["10.0.0.1/32"], WEB);
        members.updated(&endpoint("a"), &old);
        members.updated(&endpoint("b"), &connection("9", &["10.0.0.1/32"], WEB));
        old.state = State::Down;
        members.updated(&endpoint("a"), &old);
        assert_eq!(weights(&members, now), [one("10.0.0.1", 1)]);
        members.gone(&endpoint("a"));
        assert_eq!(weights(&members, now), [one("10.0.0.1", 1)]);
    }

    #[test]
    fn the_balancer_is_no_server_of_its_own() {
        let mut members = members(WEB);
        members.updated(&endpoint("a"), &connection("1", &["10.0.0.9/32"], WEB));
        assert!(weights(&members, Instant::now()).is_empty());
    }

    #[test]
    fn clients_of_an_endpoint_that_is_silent_for_long_drain_while_there_are_others() {
        let (a, b, now) = (endpoint("a"), endpoint("b"), Instant::now());
        let late = now + Members::GRACE;
        let mut members = members(WEB);
        members.all(&a, &[connection("1", &["10.0.0.1/32"], WEB)]);
        members.all(&b, &[connection("2", &["10.0.0.2/32"], WEB)]);
        members.lost(&a, now);
        let all = [one("10.0.0.1", 1), one("10.0.0.2", 1)];
        assert_eq!(weights(&members, now), all);
        assert_eq!(members.due(now), Some(late));
        let drained = [one("10.0.0.1", 0), one("10.0.0.2", 1)];
        assert_eq!(weights(&members, late), drained);

        members.lost(&b, now);
        assert_eq!(weights(&members, late), all, "nobody knows better");
        members.all(&a, &[]);
        assert_eq!(weights(&members, late), [one("10.0.0.2", 1)]);
    }
}
