use std::sync::{Arc, Weak};

use carrick_lb::control::{Status, Worker};
use carrick_lb::journal::Tally;
use carrick_telemetry::Metrics;
use carrick_telemetry::prometheus_client::collector::Collector;
use carrick_telemetry::prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use carrick_telemetry::prometheus_client::metrics::counter::ConstCounter;
use carrick_telemetry::prometheus_client::metrics::gauge::ConstGauge;

use super::plane::Plane;

/// Registers what the data plane counts; it is read at each scrape.
pub(super) fn register(metrics: &Metrics, worker: &Arc<Worker<Plane>>) {
    let collector = FromStatus(Arc::downgrade(worker));
    metrics.section("lb", |section| {
        section.register_collector(Box::new(collector));
    });
}

#[derive(Debug)]
struct FromStatus(Weak<Worker<Plane>>);

impl Collector for FromStatus {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(worker) = self.0.upgrade() else {
            return Ok(());
        };
        let asked = tokio::task::block_in_place(|| {
            worker.call(|driven| {
                let tally = driven.link.as_ref().map(carrick_lb::journal::Link::tally);
                (driven.control.status().ok(), tally)
            })
        });
        // A data plane that cannot be read has no counts, which is not zero.
        let Ok((status, tally)) = asked else {
            return Ok(());
        };
        if let Some(status) = status {
            vips(&mut encoder, &status)?;
            servers(&mut encoder, &status)?;
            reasons(&mut encoder, &status)?;
        }
        tally.map_or(Ok(()), |tally| journal(&mut encoder, tally))
    }
}

type Encoded = Result<(), std::fmt::Error>;

/// One family: its name, its help, and a value for each set of labels.
fn family<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = ([(&'static str, String); N], Value)>,
) -> Encoded {
    let mut values = values.peekable();
    let Some((_, first)) = values.peek() else {
        return Ok(());
    };
    let mut family = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, value) in values {
        let labels: Vec<_> = labels.into_iter().collect();
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Value {
    Counter(u64),
    Gauge(u64),
}

impl Value {
    fn metric_type(self) -> carrick_telemetry::prometheus_client::metrics::MetricType {
        match self {
            Self::Counter(count) => ConstCounter::new(count).metric_type(),
            Self::Gauge(_) => ConstGauge::new(0_i64).metric_type(),
        }
    }

    fn encode(
        self,
        encoder: carrick_telemetry::prometheus_client::encoding::MetricEncoder<'_>,
    ) -> Encoded {
        match self {
            Self::Counter(count) => ConstCounter::new(count).encode(encoder),
            Self::Gauge(value) => {
                ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
            }
        }
    }
}

fn vips(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Encoded {
    let each = |value: fn(&carrick_lb::control::VipStatus) -> u64| {
        let services = status.services.iter();
        services.flat_map(move |service| {
            service.vips.iter().map(move |vip| {
                let text = format!("{} {} {}", vip.prefix, vip.protocols, vip.ports);
                let labels = [("service", service.name.clone()), ("vip", text)];
                (labels, Value::Counter(value(vip)))
            })
        })
    };
    family(
        encoder,
        "vip_packets",
        "Packets that arrived for a VIP",
        each(|v| v.packets),
    )?;
    family(
        encoder,
        "vip_bytes",
        "Bytes that arrived for a VIP",
        each(|v| v.bytes),
    )?;
    family(
        encoder,
        "vip_flows",
        "Flows that began at a VIP",
        each(|v| v.new_flows),
    )
}

fn servers(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Encoded {
    let each = |value: fn(&carrick_lb::control::ServerStatus) -> Value| {
        let services = status.services.iter();
        services.flat_map(move |service| {
            service.servers.iter().map(move |server| {
                let labels = [
                    ("service", service.name.clone()),
                    ("server", server.id.clone()),
                ];
                (labels, value(server))
            })
        })
    };
    family(
        encoder,
        "server_packets",
        "Packets sent to a server",
        each(|s| Value::Counter(s.packets)),
    )?;
    family(
        encoder,
        "server_bytes",
        "Bytes sent to a server",
        each(|s| Value::Counter(s.bytes)),
    )?;
    family(
        encoder,
        "server_flows",
        "Flows that began at a server",
        each(|s| Value::Counter(s.new_flows)),
    )?;
    family(
        encoder,
        "server_live_flows",
        "Flows that are remembered",
        each(|s| Value::Gauge(s.flows)),
    )?;
    let weight = |s: &carrick_lb::control::ServerStatus| Value::Gauge(s.weight.into());
    family(
        encoder,
        "server_weight",
        "Weight of a server; 0 drains it",
        each(weight),
    )
}

fn reasons(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Encoded {
    let each = status
        .reasons
        .iter()
        .map(|(reason, count)| ([("reason", (*reason).to_owned())], Value::Counter(*count)));
    family(
        encoder,
        "reasons",
        "Packets by what the data plane says of them",
        each,
    )
}

fn journal(encoder: &mut DescriptorEncoder<'_>, tally: Tally) -> Encoded {
    let counts = [
        ("sent", tally.sent),
        ("received", tally.received),
        ("refused", tally.refused),
        ("missed", tally.missed),
        ("overflowed", tally.overflowed),
        ("overwritten", tally.overwritten),
        ("inserted", tally.inserted),
        ("unknown_server", tally.unknown_server),
    ];
    let each = counts.map(|(what, count)| ([("what", what.to_owned())], Value::Counter(count)));
    let help = "Flow records (refused, missed: datagrams) exchanged with other balancers";
    family(encoder, "journal", help, each.into_iter())
}
