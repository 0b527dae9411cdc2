//! The text of `/metrics`, read back into OTLP. Pure.
//!
//! The text is what every crate's metrics agree on, collectors that compute
//! their values when asked among them; so both ways out say the same.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
    metric, number_data_point,
};

/// A line of a family.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// Metrics of one name.
#[derive(Debug, Default, PartialEq)]
struct Family {
    name: String,
    help: String,
    kind: String,
    unit: String,
    samples: Vec<Sample>,
}

/// When the counters began, and now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Period {
    pub(crate) since: SystemTime,
    pub(crate) now: SystemTime,
}

/// The metrics of `text` as OTLP. A line that does not read is left out.
pub(crate) fn to_otlp(text: &str, period: Period) -> Vec<Metric> {
    families(text)
        .into_iter()
        .filter_map(|family| metric(family, period))
        .collect()
}

fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let (sample, family) = (sample(line), families.last_mut());
            if let (Some(sample), Some(family)) = (sample, family) {
                family.samples.push(sample);
            }
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(what), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let rest = words.next().unwrap_or_default();
        if families.last().is_none_or(|family| family.name != name) {
            families.push(Family {
                name: name.to_owned(),
                ..Family::default()
            });
        }
        if let Some(family) = families.last_mut() {
            match what {
                "HELP" => family.help = unescape(rest),
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" => rest.clone_into(&mut family.unit),
                _ => {}
            }
        }
    }
    families
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (key, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
            let close = closing_quote(quoted)?;
            labels.push((key.to_owned(), unescape(&quoted[..close])));
            rest = &quoted[close + 1..];
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Where the quote is that is not escaped.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let is_close = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_close
    })
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        plain.push(match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    plain
}

fn metric(family: Family, period: Period) -> Option<Metric> {
    let points = || {
        let points = family.samples.iter();
        points.map(|sample| number(sample, period)).collect()
    };
    let data = match family.kind.as_str() {
        "counter" => metric::Data::Sum(Sum {
            data_points: points(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        "histogram" => metric::Data::Histogram(Histogram {
            data_points: histograms(&family, period),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
        "gauge" | "info" | "unknown" => metric::Data::Gauge(Gauge {
            data_points: points(),
        }),
        _ => return None,
    };
    let suffix = if family.kind == "info" { "_info" } else { "" };
    Some(Metric {
        name: family.name + suffix,
        description: family.help,
        unit: ucum(&family.unit).to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

/// The unit as OTLP writes it.
fn ucum(unit: &str) -> &str {
    match unit {
        "bytes" => "By",
        "ratios" => "1",
        "seconds" => "s",
        other => other,
    }
}

fn number(sample: &Sample, period: Period) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: nanoseconds(period.since),
        time_unix_nano: nanoseconds(period.now),
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    }
}

/// A histogram for each set of labels: its buckets, which the text has added
/// up, on their own again.
fn histograms(family: &Family, period: Period) -> Vec<HistogramDataPoint> {
    let mut points: Vec<(Vec<(String, String)>, HistogramDataPoint)> = Vec::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.iter().position(|(key, _)| key == "le");
        let bound = bound.map(|at| labels.remove(at).1);
        let at = points.iter().position(|(known, _)| *known == labels);
        let at = at.unwrap_or_else(|| {
            let point = HistogramDataPoint {
                attributes: attributes(&labels),
                start_time_unix_nano: nanoseconds(period.since),
                time_unix_nano: nanoseconds(period.now),
                ..HistogramDataPoint::default()
            };
            points.push((labels, point));
            points.len() - 1
        });
        let point = &mut points[at].1;
        match (sample.name.rsplit('_').next(), bound) {
            (Some("bucket"), Some(bound)) => {
                let before: u64 = point.bucket_counts.iter().sum();
                let count = whole(sample.value).saturating_sub(before);
                point.bucket_counts.push(count);
                if let Some(bound) = bound.parse().ok().filter(|bound: &f64| bound.is_finite()) {
                    point.explicit_bounds.push(bound);
                }
            }
            (Some("count"), None) => point.count = whole(sample.value),
            (Some("sum"), None) => point.sum = Some(sample.value),
            _ => {}
        }
    }
    points.into_iter().map(|(_, point)| point).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was an unsigned whole number before it was text"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

pub(crate) fn attributes(labels: &[(String, String)]) -> Vec<KeyValue> {
    let attribute = |(key, value): &(String, String)| KeyValue {
        key: key.clone(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.clone())),
        }),
        ..KeyValue::default()
    };
    labels.iter().map(attribute).collect()
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family as Labelled;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Unit;

    use super::*;
    use crate::Metrics;

    fn otlp(metrics: &Metrics) -> Vec<Metric> {
        let period = Period {
            since: UNIX_EPOCH,
            now: SystemTime::now(),
        };
        to_otlp(&metrics.encode().unwrap(), period)
    }

    #[test]
    fn a_counter_keeps_its_labels_whatever_stands_in_them() {
        let metrics = Metrics::new();
        let refused = Labelled::<Vec<(String, String)>, Counter>::default();
        metrics.section("nse", |s| s.register("refused", "Who", refused.clone()));
        let odd = "a \"b\\\", c=\"{}\n";
        refused
            .get_or_create(&vec![("why".into(), odd.into()), ("x".into(), "1".into())])
            .inc_by(3);
        let all = otlp(&metrics);
        let counter = all
            .iter()
            .find(|m| m.name == "carrick_nse_refused")
            .unwrap();
        let Some(metric::Data::Sum(sum)) = &counter.data else {
            panic!("{counter:?}");
        };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(number_data_point::Value::AsDouble(3.0)));
        let labels = [("why".into(), odd.into()), ("x".into(), "1".into())];
        assert_eq!(point.attributes, attributes(&labels));
    }

    #[test]
    fn a_histogram_has_its_buckets_one_by_one() {
        let metrics = Metrics::new();
        let took = Histogram::new([0.1, 1.0]);
        metrics.section("nse", |s| {
            s.register_with_unit("took", "How long", Unit::Seconds, took.clone());
        });
        for time in [0.05, 0.06, 0.5, 7.0] {
            took.observe(time);
        }
        let all = otlp(&metrics);
        let metric = all.iter().find(|m| m.name == "carrick_nse_took_seconds");
        let metric = metric.unwrap();
        assert_eq!(
            (metric.unit.as_str(), &*metric.description),
            ("s", "How long.")
        );
        let Some(metric::Data::Histogram(histogram)) = &metric.data else {
            panic!("{metric:?}");
        };
        let point = &histogram.data_points[0];
        assert_eq!(point.bucket_counts, [2, 1, 1]);
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!((point.count, point.sum), (4, Some(7.61)));
    }

    #[test]
    fn gauges_and_what_the_process_was_built_from_are_gauges() {
        let metrics = Metrics::new();
        let up = Gauge::<i64>::default();
        metrics.section("nsc", |s| s.register("up", "Connections", up.clone()));
        up.set(-2);
        let all = otlp(&metrics);
        for name in ["carrick_build_info", "carrick_nsc_up"] {
            let metric = all.iter().find(|metric| metric.name == name);
            let data = metric.and_then(|metric| metric.data.as_ref());
            assert!(matches!(data, Some(metric::Data::Gauge(_))), "{name}");
        }
    }
}
