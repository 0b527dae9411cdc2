use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::dns::Answer;
use crate::filter::PrefixRefusal;
use crate::peers::Reason;
use crate::recognise::Forgery;

/// What happens in the network, counted. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Requests of clients that are being served.
    pub active_workload: Gauge,
    /// Name lookups, by what came of them.
    pub dns_queries: Family<Cause, Counter>,
    /// Dials that failed, by reason.
    pub failed_dials: Family<Cause, Counter>,
    /// Registry look-ups that failed.
    pub failed_finds: Counter,
    /// Requests refused because their claim to be a peer is false, by reason.
    pub forged_peers: Family<Cause, Counter>,
    /// Links made, in either direction.
    pub links: Counter,
    /// Peers whose link works.
    pub linked_peers: Gauge,
    /// Dials started.
    pub performed_dials: Counter,
    /// Known peers.
    pub peers: Gauge,
    /// Requests of peers that came in, refreshes not counted.
    pub received_dials: Counter,
    /// Prefixes of peers that were not taken, by reason.
    pub refused_prefixes: Family<Cause, Counter>,
    /// Requests of peers that were not admitted, since another link counts.
    pub yielded_dials: Counter,
}

/// Why or how, in one word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Cause {
    /// The word.
    pub cause: &'static str,
}

impl Metrics {
    /// Registers all. `registry` must be one without prefix: the four first
    /// names are those of the Cisco vL3 endpoint, which dashboards know.
    pub fn register(&self, registry: &mut Registry) {
        self.begin();
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "nse_vl3_received_conn_requests",
            "Requests of peers",
            &self.received_dials,
        );
        counter(
            "nse_vl3_performed_conn_requests",
            "Dials of peers",
            &self.performed_dials,
        );
        counter(
            "nse_vl3_failed_network_service_find",
            "Registry look-ups that failed",
            &self.failed_finds,
        );
        counter("nse_vl3_links", "Links made with peers", &self.links);
        counter(
            "nse_vl3_yielded_conn_requests",
            "Requests of peers that yield to another link",
            &self.yielded_dials,
        );
        let mut gauge =
            |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge(
            "nse_vl3_active_workload",
            "Connections of clients",
            &self.active_workload,
        );
        gauge("nse_vl3_peers", "Known peers", &self.peers);
        gauge(
            "nse_vl3_linked_peers",
            "Peers whose link works",
            &self.linked_peers,
        );
        let mut family = |name: &str, help: &str, family: &Family<Cause, Counter>| {
            registry.register(name, help, family.clone());
        };
        family(
            "nse_vl3_failed_conn_requests",
            "Dials of peers that failed",
            &self.failed_dials,
        );
        family(
            "nse_vl3_forged_peers",
            "Requests with a false claim to be a peer",
            &self.forged_peers,
        );
        family(
            "nse_vl3_refused_prefixes",
            "Prefixes of peers that were not taken",
            &self.refused_prefixes,
        );
        family("nse_vl3_dns_queries", "Name lookups", &self.dns_queries);
    }

    /// What never happened is there with 0, so that the first time is a change.
    fn begin(&self) {
        let begin = |family: &Family<Cause, Counter>, causes: &[&'static str]| {
            for &cause in causes {
                drop(family.get_or_create(&Cause { cause }));
            }
        };
        begin(&self.dns_queries, &Answer::WORDS);
        begin(&self.failed_dials, &Reason::ALL.map(Reason::as_str));
        begin(&self.forged_peers, &Forgery::ALL.map(Forgery::as_str));
        let refused = PrefixRefusal::ALL.map(PrefixRefusal::as_str);
        begin(&self.refused_prefixes, &refused);
    }

    pub(crate) fn count(family: &Family<Cause, Counter>, cause: &'static str) {
        family.get_or_create(&Cause { cause }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_dashboards_know_are_there() {
        let mut registry = Registry::default();
        Metrics::default().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "nse_vl3_received_conn_requests_total",
            "nse_vl3_performed_conn_requests_total",
            "nse_vl3_failed_network_service_find_total",
            "nse_vl3_active_workload",
        ] {
            assert!(text.contains(&format!("\n{name} 0")), "{name} in {text}");
        }
    }
}
