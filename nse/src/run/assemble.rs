//! The parts of an endpoint, made of its configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use carrick_agent::{Agent, AgentMetrics, Kernel, Metered, RemoteAgent};
use carrick_chain::{Handle, Tokens};
use carrick_grpc::{
    Channels, DialOptions, Es256Tokens, Identity, Security, SpiffeId, TokenOptions, Url,
};
use carrick_ipam::{
    AddressOptions, Addresses, EndpointMetrics, LeaseOptions, Leases, PrefixClient, PrefixOptions,
    PrefixServer, Prefixes,
};
use carrick_store::Store;
use carrick_telemetry::Metrics;
use carrick_types::{IpFamily, Mtu};
use carrick_vl3::dns::Records;
use carrick_vl3::elements::MtuElement;
use carrick_vl3::{Vl3, Vl3Options};

use crate::config::{AgentKind, Setting};
use crate::parts::{Parts, Plane};
use crate::peering::{Ask, Dials};
use crate::policies::Rules;
use crate::{Config, Error, serving};

/// The trust domain of identities that no SPIFFE Workload API gave.
const TRUST_DOMAIN: &str = "carrick";

pub(super) fn open_store(config: &Config) -> Result<Store, Error> {
    let file = |dir: &PathBuf| dir.join(format!("{}.redb", file_name(config.name.as_str())));
    Ok(match &config.state_dir {
        Some(dir) => Store::open(&file(dir))?,
        None => Store::in_memory()?,
    })
}

/// A name as part of a file's name.
pub(super) fn file_name(name: &str) -> String {
    name.replace('/', "_")
}

/// A name as it can stand in a SPIFFE id, which has no `@` of a floating name
/// (`nse@floating.domain`).
fn plain(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    name.chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect()
}

pub(super) fn assemble(
    config: &Arc<Config>,
    store: &Store,
    metrics: &Metrics,
) -> Result<(Parts, Option<PrefixClient>), Error> {
    let security = Security::plaintext(config.insecure);
    let identity = Arc::new(match &config.state_dir {
        Some(dir) => {
            let file = dir.join(format!("{}.key", file_name(config.name.as_str())));
            Identity::load_or_create(&file)?
        }
        None => Identity::generate(),
    });
    let subject = SpiffeId::new(TRUST_DOMAIN, &plain(config.name.as_str()))?;
    let lifetime = TokenOptions {
        max_lifetime: config.times.token,
    };
    let tokens: Arc<dyn Tokens> = Arc::new(Es256Tokens::new(&identity, subject, &lifetime));
    let channels = Channels::new(security, dial_options(config));

    let counted = EndpointMetrics::default();
    metrics.section("ipam", |section| counted.register(section));
    let (prefixes, prefix_client) = lease_prefixes(config, store, &channels, &counted)?;
    let vl3 = Vl3::new(Vl3Options {
        networks: config.addresses.networks.clone(),
        verify: Box::new(|token, key| carrick_grpc::verify(token, key, SystemTime::now()).is_ok()),
        ..Vl3Options::new(config.name.clone())
    });
    metrics.unprefixed(|registry| vl3.metrics().register(registry));
    let leases = Leases::open(
        store,
        LeaseOptions {
            rest: config.addresses.rest,
            metrics: counted,
            ..LeaseOptions::default()
        },
    )?;
    let peers = vl3.clone();
    let addresses = Addresses::new(
        leases.clone(),
        prefixes.clone(),
        AddressOptions {
            is_peer: Arc::new(move |connection| serving::is_peer(&peers, connection)),
            networks: config.addresses.networks.clone(),
            routes: config.addresses.routes.clone(),
            ..AddressOptions::default()
        },
    );
    let (handle, dials) = (Handle::default(), Dials::default());
    let ask = Ask {
        handle: handle.clone(),
        dials: dials.clone(),
    };
    let plane = agent(config, metrics)?.map(|agent| Plane::new(agent, config));
    let parts = Parts {
        config: Arc::clone(config),
        plane,
        vl3,
        prefixes,
        leases,
        addresses,
        records: Records::default(),
        mtu: MtuElement::new(Mtu::JUMBO, Arc::new(ask)),
        handle,
        tokens,
        identity,
        channels,
        dials,
        rules: Rules::load(&config.policies, metrics)?,
    };
    Ok((parts, prefix_client))
}

/// Go servers end connections that ask for a sign of life too often.
fn dial_options(config: &Config) -> DialOptions {
    let usual = DialOptions {
        connect_timeout: config.times.dial,
        ..DialOptions::default()
    };
    match config.setting {
        Setting::Mesh(_) => DialOptions {
            http2_keep_alive: None,
            ..usual
        },
        Setting::StandAlone { .. } => usual,
    }
}

fn lease_prefixes(
    config: &Config,
    store: &Store,
    channels: &Channels,
    metrics: &EndpointMetrics,
) -> Result<(Prefixes, Option<PrefixClient>), Error> {
    if !config.addresses.fixed.is_empty() {
        return Ok((
            Prefixes::fixed(config.addresses.fixed.iter().copied())?,
            None,
        ));
    }
    let urls = &config.addresses.servers;
    let servers = urls.iter().enumerate().map(|(position, url)| {
        let (name, channel) = (url.to_string(), channels.channel(url)?);
        let family = wanted_family(urls, position);
        Ok(PrefixServer {
            name,
            channel,
            family,
        })
    });
    let servers = servers.collect::<Result<_, carrick_grpc::DialError>>()?;
    let options = PrefixOptions {
        excluded: config.addresses.excluded.clone(),
        metrics: metrics.clone(),
        ..PrefixOptions::new(config.name.as_str(), servers)
    };
    let (prefixes, client) = Prefixes::lease(options, store)?;
    Ok((prefixes, Some(client)))
}

/// A server that is named twice is asked for both families, IPv4 first; of
/// one that is named once any prefix is welcome.
fn wanted_family(urls: &[Url], position: usize) -> Option<IpFamily> {
    let (before, url, behind) = (&urls[..position], &urls[position], &urls[position + 1..]);
    if before.contains(url) {
        Some(IpFamily::V6)
    } else {
        behind.contains(url).then_some(IpFamily::V4)
    }
}

fn agent(config: &Config, metrics: &Metrics) -> Result<Option<Arc<dyn Agent>>, Error> {
    let counted = AgentMetrics::default();
    metrics.section("agent", |section| counted.register(section));
    Ok(match &config.agent {
        AgentKind::None => None,
        AgentKind::Kernel => {
            let kernel = Kernel::new().map_err(|e| Error::Agent(e.into()))?;
            Some(Arc::new(Metered::new(kernel, counted)))
        }
        AgentKind::Remote(path) => {
            let remote = RemoteAgent::new(path).map_err(|e| Error::Agent(e.into()))?;
            Some(Arc::new(Metered::new(remote, counted)))
        }
    })
}
