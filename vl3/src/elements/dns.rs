use carrick_chain::{Element, Error, Kind, Next};
use carrick_types::{Connection, DnsConfig, IpNet};
use hickory_proto::rr::Name;

use crate::Vl3;
use crate::dns::{Records, Template};

/// What a [`DnsContext`] is told by its configuration.
#[derive(Clone, Debug, Default)]
pub struct DnsContextOptions {
    /// How workloads are named.
    pub templates: Vec<Template>,
    /// Further name servers and zones for clients, behind our own.
    pub configs: Vec<DnsConfig>,
}

/// Tells clients where names are served, and publishes theirs (NSM `vl3dns`).
///
/// Stands behind the addresses. A name is published after the rest of the
/// chain has succeeded, and is its connection's: the Close of a namesake
/// leaves it alone.
#[derive(Clone, Debug)]
pub struct DnsContext {
    vl3: Vl3,
    records: Records,
    options: DnsContextOptions,
}

impl DnsContext {
    /// The element of a network that publishes in `records`.
    #[must_use]
    pub fn new(vl3: Vl3, records: Records, options: DnsContextOptions) -> Self {
        Self {
            vl3,
            records,
            options,
        }
    }

    fn names(&self, connection: &Connection) -> Vec<Name> {
        if self.vl3.dialled_by(&connection.id).is_some() {
            return Vec::new();
        }
        self.options
            .templates
            .iter()
            .filter_map(|template| template.render(connection))
            .collect()
    }

    /// Puts our configuration first. What other endpoints of the network gave
    /// the client before it came to us is left out; a peer's says where its
    /// own server is, and stays.
    fn configure(&self, connection: &mut Connection, names: &[Name]) -> Result<(), Error> {
        let server_ips = self.vl3.addresses();
        if server_ips.is_empty() {
            return Err(Error::request(
                Self::NAME,
                connection,
                Kind::Unavailable,
                NoAddress,
            ));
        }
        let networks = self.vl3.ground().networks;
        let from_peer = self.vl3.dialled_by(&connection.id).is_some();
        let ours = DnsConfig {
            server_ips,
            search_domains: search_domains(names),
        };
        let of_network = |config: &DnsConfig| {
            let inside = |ip: &std::net::IpAddr| networks.iter().any(|net| net.contains(*ip));
            !config.server_ips.is_empty() && config.server_ips.iter().all(inside)
        };
        let configs = &mut connection.context.dns;
        configs.retain(|config| *config != ours && (from_peer || !of_network(config)));
        configs.insert(0, ours);
        // Peers would put each question about a name that they lack to them.
        for config in self.options.configs.iter().filter(|_| !from_peer) {
            if !configs.contains(config) {
                configs.push(config.clone());
            }
        }
        Ok(())
    }
}

/// Each name without its first label, and so on up to the last label, as text
/// without the final dot (NSM `vl3dns`: search domains).
fn search_domains(names: &[Name]) -> Vec<String> {
    let mut domains = Vec::new();
    for name in names {
        let suffixes = std::iter::successors(Some(name.base_name()), |name| Some(name.base_name()));
        for suffix in suffixes.take_while(|name| !name.is_root()) {
            let text = suffix.to_ascii().trim_end_matches('.').to_owned();
            if !domains.contains(&text) {
                domains.push(text);
            }
        }
    }
    domains
}

/// The endpoint has no address yet.
#[derive(Debug, thiserror::Error)]
#[error("DNS address is initializing")]
struct NoAddress;

impl Element for DnsContext {
    const NAME: &'static str = "dns";
    type State = ();

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        let names = self.names(&connection);
        self.configure(&mut connection, &names)?;
        *state = Some(());
        let answer = next.request(connection).await?;
        let addresses = answer
            .context
            .ip
            .src_addrs
            .iter()
            .map(IpNet::addr)
            .collect();
        self.records
            .publish(&answer.id, names, addresses)
            .map_err(|full| Error::request(Self::NAME, &answer, Kind::Exhausted, full))?;
        Ok(answer)
    }

    async fn close(&self, connection: &Connection, (): &mut ()) -> Result<(), Error> {
        self.records.remove(&connection.id);
        Ok(())
    }
}
