//! Whether packets go through: ICMP echoes from the client's namespace.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use carrick_agent::{Agent, Error, Netns};
use carrick_chain::Liveness;
use carrick_types::{Connection, IpNet};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tracing::{debug, warn};

use crate::error::causes;

/// Echoes of one probe that may wait for their answers at a time. How many
/// addresses there are is the endpoint's choice.
const AT_A_TIME: usize = 64;

/// Probes a connection by one echo from each address of the client to each of
/// the endpoint of the same family; one without an answer means that it is dead
/// (NSM `sdk-kernel` `liveness_check`, which sends four).
///
/// Where echoes cannot be sent at all, connections count as alive: what is not
/// known must not end traffic.
pub(crate) struct DataPath {
    agent: Arc<dyn Agent>,
    timeout: Duration,
    warned: Once,
}

impl fmt::Debug for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPath")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl DataPath {
    /// Each echo is waited for at most `timeout`.
    pub(crate) fn new(agent: Arc<dyn Agent>, timeout: Duration) -> Self {
        Self {
            agent,
            timeout,
            warned: Once::new(),
        }
    }

    async fn answers(&self, source: IpAddr, target: IpAddr) -> bool {
        let ping = self.agent.ping(&Netns::Own, source, target, self.timeout);
        match ping.await {
            Ok(answer) => answer.is_some(),
            Err(Error::Kernel { source: why, .. }) if is_no_way(&why) => {
                debug!(probe.source = %source, probe.target = %target, %why, "no echo can be sent this way");
                false
            }
            Err(error) => {
                self.warned.call_once(|| warn_of(&error));
                true
            }
        }
    }
}

fn warn_of(error: &Error) {
    warn!(
        error = causes(error),
        "cannot probe the data path, connections count as alive: ICMP sockets need the process's \
         group in sysctl net.ipv4.ping_group_range, or CAP_NET_RAW; \
         NSM_LIVENESS_CHECK_ENABLED=false turns probing off"
    );
}

/// The interface, its address or its routes are gone.
fn is_no_way(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, HostUnreachable, InvalidInput, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        AddrNotAvailable | HostUnreachable | InvalidInput | NetworkDown | NetworkUnreachable
    )
}

impl Liveness for DataPath {
    fn alive(&self, connection: &Connection) -> BoxFuture<'_, bool> {
        let pairs = pairs(connection);
        Box::pin(async move {
            let answers = stream::iter(pairs)
                .map(|(source, target)| self.answers(source, target))
                .buffer_unordered(AT_A_TIME);
            answers.all(std::future::ready).await
        })
    }
}

/// Every address of the client with every one of the endpoint, by family. Made
/// as they are used, since both lists are as long as the endpoint wants.
fn pairs(connection: &Connection) -> impl Iterator<Item = (IpAddr, IpAddr)> + Send + use<> {
    let ip = &connection.context.ip;
    let sources: Vec<IpAddr> = ip.src_addrs.iter().map(IpNet::addr).collect();
    let targets: Vec<IpAddr> = ip.dst_addrs.iter().map(IpNet::addr).collect();
    sources.into_iter().flat_map(move |source| {
        let same = |target: &IpAddr| target.is_ipv4() == source.is_ipv4();
        let targets: Vec<IpAddr> = targets.iter().copied().filter(same).collect();
        targets.into_iter().map(move |target| (source, target))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use carrick_agent::{Change, Found, Protocol, Socket};
    use carrick_types::{ConnectionId, ServiceName};
    use futures::FutureExt;

    use super::*;

    /// Answers each ping by a rule, and remembers it.
    struct Rule<F>(F, Mutex<BTreeSet<(IpAddr, IpAddr)>>);

    impl<F> Agent for Rule<F>
    where
        F: Fn(IpAddr) -> Result<bool, i32> + Send + Sync + 'static,
    {
        fn apply(&self, _: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
            panic!("a client makes no links")
        }

        fn list<'a>(
            &'a self,
            _: &'a Netns,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Vec<Found>, Error>> {
            panic!("a client asks for no links")
        }

        fn ping<'a>(
            &'a self,
            netns: &'a Netns,
            source: IpAddr,
            target: IpAddr,
            _: Duration,
        ) -> BoxFuture<'a, Result<Option<Duration>, Error>> {
            assert_eq!(*netns, Netns::Own);
            self.1.lock().unwrap().insert((source, target));
            let answer = match (self.0)(target) {
                Ok(answers) => Ok(answers.then_some(Duration::ZERO)),
                Err(number) => Err(Error::Kernel {
                    step: "ping".into(),
                    source: io::Error::from_raw_os_error(number),
                }),
            };
            std::future::ready(answer).boxed()
        }

        fn bind<'a>(
            &'a self,
            _: &'a Netns,
            _: Protocol,
            _: SocketAddr,
        ) -> BoxFuture<'a, Result<Socket, Error>> {
            panic!("a client binds no sockets through its agent")
        }
    }

    fn connection(sources: &[&str], targets: &[&str]) -> Connection {
        let service = ServiceName::new("vl3").unwrap();
        let mut connection = Connection::new(ConnectionId::new("nsc-0").unwrap(), service);
        for source in sources {
            let source = source.parse().unwrap();
            connection.context.ip.add_src_addr(source);
        }
        for target in targets {
            let target = target.parse().unwrap();
            connection.context.ip.add_dst_addr(target);
        }
        connection
    }

    async fn alive(
        rule: impl Fn(IpAddr) -> Result<bool, i32> + Send + Sync + 'static,
        connection: &Connection,
    ) -> (bool, BTreeSet<(IpAddr, IpAddr)>) {
        let agent = Arc::new(Rule(rule, Mutex::default()));
        let path = DataPath::new(agent.clone(), Duration::from_secs(1));
        let alive = path.alive(connection).await;
        let asked = agent.1.lock().unwrap().clone();
        (alive, asked)
    }

    #[tokio::test]
    async fn every_pair_of_equal_family_is_probed() {
        let sources = ["10.0.0.1/32", "fd00::1/128"];
        let targets = ["10.0.0.0/32", "10.1.0.0/32", "fd00::/128"];
        let (is_alive, asked) = alive(|_| Ok(true), &connection(&sources, &targets)).await;
        let pair = |source: &str, target: &str| (source.parse().unwrap(), target.parse().unwrap());
        let all = [
            pair("10.0.0.1", "10.0.0.0"),
            pair("10.0.0.1", "10.1.0.0"),
            pair("fd00::1", "fd00::"),
        ];
        assert!(is_alive);
        assert_eq!(asked, all.into_iter().collect());
    }

    #[tokio::test]
    async fn one_pair_without_an_answer_is_dead() {
        let connection = connection(&["10.0.0.1/32"], &["10.0.0.0/32", "10.1.0.0/32"]);
        let silent: IpAddr = "10.1.0.0".parse().unwrap();
        assert!(
            !alive(move |target| Ok(target != silent), &connection)
                .await
                .0
        );
    }

    #[tokio::test]
    async fn a_vanished_interface_is_dead() {
        let connection = connection(&["10.0.0.1/32"], &["10.0.0.0/32"]);
        for errno in [22, 99, 100, 101, 113] {
            assert!(!alive(move |_| Err(errno), &connection).await.0, "{errno}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_probed_counts_as_alive() {
        let one = connection(&["10.0.0.1/32"], &["10.0.0.0/32"]);
        for errno in [1, 13, 24] {
            assert!(alive(move |_| Err(errno), &one).await.0, "{errno}");
        }
        let none = connection(&["10.0.0.1/32"], &["fd00::/128"]);
        assert!(alive(|_| Ok(false), &none).await.0);
    }
}
