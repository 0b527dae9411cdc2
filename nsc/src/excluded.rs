use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carrick_chain::{Element, Error, Kind, Next};
use carrick_types::{Connection, ConnectionId, IpContext, IpNet, Prefix, host};

/// Keeps the addresses of one connection of this client out of its other ones
/// (NSM `excludedprefixes` client): tells endpoints what others have given, and
/// refuses an answer that has such an address all the same. Connections of one
/// awareness group do not mind each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Excluded {
    groups: Arc<BTreeMap<ConnectionId, usize>>,
    given: Arc<Mutex<BTreeMap<ConnectionId, Given>>>,
}

/// What a connection was given.
#[derive(Clone, Debug, Default)]
struct Given {
    /// By whom.
    endpoint: Option<String>,
    /// Addresses of both ends, and routes to single addresses.
    hosts: Vec<IpAddr>,
}

/// An answer has an address that another connection has.
#[derive(Debug, thiserror::Error)]
#[error("{address} is given to connection {other} already, and they share no awareness group")]
struct Taken {
    address: IpAddr,
    other: ConnectionId,
}

impl Excluded {
    /// `groups` has the awareness group of each connection that is in one.
    pub(crate) fn new(groups: BTreeMap<ConnectionId, usize>) -> Self {
        Self {
            groups: Arc::new(groups),
            given: Arc::default(),
        }
    }

    fn given(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Given>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn minds(&self, one: &ConnectionId, other: &ConnectionId) -> bool {
        let group = |id| self.groups.get(id);
        one != other && (group(one).is_none() || group(one) != group(other))
    }

    /// What the others have, in the form in which it is told.
    fn of_others(&self, id: &ConnectionId) -> Vec<Prefix> {
        let given = self.given();
        let others = given.iter().filter(|(other, _)| self.minds(id, other));
        let hosts = others.flat_map(|(_, given)| &given.hosts);
        hosts.copied().map(host).collect()
    }

    /// Remembers what an answer gives, if no other connection has it. An
    /// endpoint may be the same at both ends of two connections.
    fn take(&self, answer: &Connection) -> Result<(), Taken> {
        let ip = &answer.context.ip;
        let endpoint = endpoint(answer);
        let mut given = self.given();
        for (other, theirs) in given
            .iter()
            .filter(|(other, _)| self.minds(&answer.id, other))
        {
            let is_same_endpoint = endpoint.is_some() && endpoint == theirs.endpoint;
            let far = ip.dst_addrs.iter().filter(|_| !is_same_endpoint);
            let mut addresses = ip.src_addrs.iter().chain(far).map(IpNet::addr);
            if let Some(address) = addresses.find(|address| theirs.hosts.contains(address)) {
                let other = other.clone();
                return Err(Taken { address, other });
            }
        }
        let hosts = hosts(ip);
        given.insert(answer.id.clone(), Given { endpoint, hosts });
        Ok(())
    }
}

/// Who answered: the last in the path.
fn endpoint(answer: &Connection) -> Option<String> {
    let last = answer.path.segments.last().map(|segment| &segment.name);
    answer
        .endpoint
        .as_ref()
        .map(ToString::to_string)
        .or_else(|| last.cloned())
}

fn hosts(ip: &IpContext) -> Vec<IpAddr> {
    let addresses = ip.src_addrs.iter().chain(&ip.dst_addrs).map(IpNet::addr);
    let routes = ip.src_routes.iter().chain(&ip.dst_routes);
    let single = routes.filter(|route| route.prefix.length() == route.prefix.width());
    addresses
        .chain(single.map(|route| route.prefix.network()))
        .collect()
}

impl Element for Excluded {
    const NAME: &'static str = "excludedprefixes";
    type State = ();

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        *state = Some(());
        let ip = &mut connection.context.ip;
        let before = ip.excluded_prefixes.clone();
        // What it has itself it may keep.
        let own: Vec<Prefix> = hosts(ip).into_iter().map(host).collect();
        for prefix in self.of_others(&connection.id) {
            if !own.contains(&prefix) && !ip.excluded_prefixes.contains(&prefix) {
                ip.excluded_prefixes.push(prefix);
            }
        }
        let mut answer = next.request(connection).await?;
        self.take(&answer)
            .map_err(|taken| Error::request(Self::NAME, &answer, Kind::Unavailable, taken))?;
        answer.context.ip.excluded_prefixes = before;
        Ok(answer)
    }

    async fn close(&self, connection: &Connection, (): &mut ()) -> Result<(), Error> {
        self.given().remove(&connection.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use carrick_chain::testing::{Check, TestTokens, request, soon};
    use carrick_chain::{Chain, Endpoint, EndpointOptions};
    use carrick_types::Route;

    use super::*;

    fn id(text: &str) -> ConnectionId {
        ConnectionId::new(text).unwrap()
    }

    fn answer(name: &str, endpoint: &str, src: &str, dst: &str) -> Connection {
        let service = carrick_types::ServiceName::new("vl3").unwrap();
        let mut answer = Connection::new(id(name), service);
        answer.endpoint = Some(carrick_types::EndpointName::new(endpoint).unwrap());
        answer.context.ip.add_src_addr(src.parse().unwrap());
        answer.context.ip.add_dst_addr(dst.parse().unwrap());
        let network = "10.0.0.0/16".parse().unwrap();
        answer.context.ip.add_src_route(Route::direct(network));
        answer
    }

    #[test]
    fn what_one_endpoint_gave_no_other_may_give() {
        let excluded = Excluded::default();
        let first = answer("nsc-0", "nse-1", "10.0.0.1/32", "10.0.0.0/32");
        excluded.take(&first).unwrap();
        let both = ["10.0.0.1/32", "10.0.0.0/32"].map(|p| p.parse().unwrap());
        assert_eq!(excluded.of_others(&id("nsc-1")), both);
        assert_eq!(excluded.of_others(&id("nsc-0")), []);

        for (src, dst) in [
            ("10.0.0.1/32", "10.9.0.0/32"),
            ("10.9.0.1/32", "10.0.0.0/32"),
        ] {
            let other = answer("nsc-1", "nse-2", src, dst);
            let refused = excluded.take(&other).unwrap_err().to_string();
            assert!(refused.contains("nsc-0"), "{refused}");
        }
        assert_eq!(excluded.of_others(&id("nsc-2")), both);
        // A refresh of its own is no conflict, and neither is a shared endpoint.
        excluded.take(&first).unwrap();
        excluded
            .take(&answer("nsc-1", "nse-1", "10.0.0.2/32", "10.0.0.0/32"))
            .unwrap();
    }

    #[test]
    fn connections_of_one_awareness_group_do_not_mind_each_other() {
        let groups = [("nsc-0", 0), ("nsc-1", 0), ("nsc-2", 1)];
        let excluded = Excluded::new(groups.map(|(name, group)| (id(name), group)).into());
        let give = |name| excluded.take(&answer(name, name, "10.0.0.1/32", "10.0.0.0/32"));
        give("nsc-0").unwrap();
        assert_eq!(excluded.of_others(&id("nsc-1")), []);
        give("nsc-1").unwrap();
        give("nsc-2").unwrap_err();
        give("nsc-3").unwrap_err();
    }

    #[tokio::test]
    async fn a_request_tells_what_others_have_and_a_close_forgets_it() {
        let excluded = Excluded::default();
        let first = answer("nsc-0", "nse-1", "10.0.0.1/32", "10.0.0.0/32");
        excluded.take(&first).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        let look = Check::new(move |connection| {
            let prefixes = &connection.context.ip.excluded_prefixes;
            seen.lock().unwrap().clone_from(prefixes);
            Ok(())
        });
        let chain = Chain::default().then(excluded.clone()).then(look);
        let endpoint = Endpoint::new(EndpointOptions::new("nsc", TestTokens::default()), chain);
        let up = endpoint.request(request("app", "1"), soon()).await.unwrap();
        assert_eq!(told.lock().unwrap().len(), 2);
        assert_eq!(up.context.ip.excluded_prefixes, []);
        assert_eq!(excluded.given().len(), 2);
        endpoint.close(up).await.unwrap();
        assert_eq!(excluded.given().len(), 1);
    }
}
