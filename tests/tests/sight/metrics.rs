use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use carrick_tests::Lab;

use crate::openmetrics::Scrape;

/// Two linked endpoints, a client of one of them.
async fn mesh() -> Lab {
    let mut lab = Lab::new(&["one", "two"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse-a", "one", "one", "one", &[]);
    lab.ready("nse-a").await;
    lab.start_nse("nse-b", "two", "one", "one", &[]);
    lab.linked("nse-a", 1).await;
    lab.linked("nse-b", 1).await;
    lab.start_nsc("ant", "one", "nse-a", &[]).await;
    lab.address("ant").await;
    lab
}

/// What a program counts, as a collector would read it.
async fn scrape(lab: &Lab, program: &str) -> Scrape {
    let text = lab.metrics(program).await.expect("it answers");
    Scrape::parse(&text).unwrap_or_else(|wrong| panic!("{program}: {wrong}\n{text}"))
}

/// Waits until a sample of a program is `value`.
async fn counted(lab: &Lab, program: &str, name: &str, labels: &[(&str, &str)], value: f64) {
    let what = format!("{program} has {name}{labels:?} {value}");
    lab.wait(&what, async || {
        let found = scrape(lab, program).await.value(name, labels)?;
        ((found - value).abs() < f64::EPSILON).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_that_dashboards_know_count_what_they_say() {
    let mut lab = mesh().await;
    // The newer one dials.
    for (nse, dials, calls, clients) in [("nse-a", 0.0, 1.0, 1.0), ("nse-b", 1.0, 0.0, 0.0)] {
        counted(
            &lab,
            nse,
            "nse_vl3_performed_conn_requests_total",
            &[],
            dials,
        )
        .await;
        counted(
            &lab,
            nse,
            "nse_vl3_received_conn_requests_total",
            &[],
            calls,
        )
        .await;
        counted(&lab, nse, "nse_vl3_active_workload", &[], clients).await;
    }
    let scraped = scrape(&lab, "nse-a").await;
    let failed = "nse_vl3_failed_network_service_find_total";
    assert_eq!(scraped.value(failed, &[]), Some(0.0));

    // A client that gives itself out for a peer is no dial, nor workload.
    let label = "vl3Nse/nseSource/endpointName:nse-b".to_owned();
    lab.start_nsc("eve", "one", "nse-a", &[("NSM_LABELS", label)])
        .await;
    lab.wait("the forgery is counted", async || {
        let scraped = scrape(&lab, "nse-a").await;
        let cause = [("cause", "mismatch")];
        let forged = scraped.value("nse_vl3_forged_peers_total", &cause)?;
        (forged >= 1.0).then_some(())
    })
    .await;
    counted(
        &lab,
        "nse-a",
        "nse_vl3_received_conn_requests_total",
        &[],
        1.0,
    )
    .await;
    counted(&lab, "nse-a", "nse_vl3_active_workload", &[], 1.0).await;
    lab.wait("the refusal is an outcome", async || {
        let scraped = scrape(&lab, "nse-a").await;
        let refused = [("outcome", "permission_denied")];
        let refused = scraped.value("carrick_nse_requests_total", &refused)?;
        (refused >= 1.0).then_some(())
    })
    .await;

    lab.kill("registry-east");
    lab.wait("failed look-ups are counted", async || {
        let scraped = scrape(&lab, "nse-a").await;
        scraped.value(failed, &[]).filter(|failed| *failed >= 1.0)
    })
    .await;

    assert!(lab.stop("nsc-ant").await.success());
    counted(&lab, "nse-a", "nse_vl3_active_workload", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_leases_peers_routes_and_work_are_counted() {
    let lab = mesh().await;
    let a = "nse-a";
    for (with, count) in [("client", 1.0), ("inbound", 1.0), ("outgoing", 0.0)] {
        counted(&lab, a, "carrick_nse_connections", &[("with", with)], count).await;
    }
    counted(&lab, a, "carrick_nse_peers", &[("state", "linked")], 1.0).await;
    counted(&lab, a, "carrick_nse_peers", &[("state", "dead")], 0.0).await;
    counted(&lab, a, "carrick_ipam_leases", &[], 1.0).await;
    let scraped = scrape(&lab, a).await;
    let at_least_one = |name: &str, labels: &[(&str, &str)]| {
        let value = scraped.value(name, labels);
        assert!(value >= Some(1.0), "{name}: {value:?}");
    };
    let ok = [("outcome", "ok")];
    at_least_one("carrick_nse_requests_total", &ok);
    at_least_one("carrick_nse_routes", &[]);
    at_least_one("carrick_agent_applies_total", &ok);
    at_least_one("carrick_agent_apply_duration_seconds_count", &[]);
    at_least_one("carrick_store_commits_total", &[]);
    at_least_one("carrick_store_records_total", &[]);
    assert_eq!(
        scraped.value("carrick_nse_request_duration_seconds_count", &ok),
        scraped.value("carrick_nse_requests_total", &ok)
    );
    let age = scraped.value("carrick_nse_oldest_lease_age_seconds", &[]);
    assert!(age > Some(0.0) && age < Some(60.0), "{age:?}");

    counted(&lab, "ipam", "carrick_ipam_leases", &[], 2.0).await;
    counted(&lab, "ipam", "carrick_ipam_streams", &[], 2.0).await;
    counted(&lab, "nsc-ant", "carrick_nsc_up", &[], 1.0).await;
    let registry = "registry-east";
    counted(&lab, registry, "carrick_registry_endpoints", &[], 2.0).await;
    counted(&lab, registry, "carrick_registry_services", &[], 1.0).await;
    let watchers = scrape(&lab, registry).await;
    let watchers = watchers.value("carrick_registry_watchers", &[]);
    assert!(watchers >= Some(2.0), "{watchers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_label_holds_a_connection_or_an_address() {
    let lab = mesh().await;
    let mut secrets = BTreeSet::new();
    for program in ["nse-a", "nse-b", "nsc-ant"] {
        let status = lab.status(program).await.expect("it answers");
        for connection in status["connections"].as_array().expect("a list") {
            secrets.insert(connection["id"].as_str().expect("an id").to_owned());
        }
    }
    assert!(secrets.len() >= 3, "{secrets:?}");
    secrets.insert("172.16.".to_owned());
    for program in ["nse-a", "nse-b", "nsc-ant", "ipam", "registry-east"] {
        let text = lab.metrics(program).await.expect("it answers");
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} in {program}: {text}");
        }
    }
}

/// The page is made of what the programs say: if this fails, write it anew with
/// `CARRICK_WRITE_DOCS=1 cargo test -p carrick-tests --test sight documented`.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_nothing_else() {
    let lab = mesh().await;
    let programs = [
        ("nse", "nse-a"),
        ("nsc", "nsc-ant"),
        ("ipam", "ipam"),
        ("registry", "registry-east"),
    ];
    let mut page = String::from(INTRODUCTION);
    for (program, name) in programs {
        let scrape = scrape(&lab, name).await;
        write!(page, "\n## carrick {program}\n\n{}", table(&scrape)).expect("a String takes it");
    }
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));
    if std::env::var_os("CARRICK_WRITE_DOCS").is_some() {
        std::fs::write(file, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(file).expect("the page is there");
    assert_eq!(written, page, "docs/metrics.md is not up to date");
}

fn table(scrape: &Scrape) -> String {
    let mut text = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for (name, family) in &scrape.0 {
        let (kind, help) = (&family.kind, family.help.trim_end_matches('.'));
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels = family
            .samples
            .iter()
            .flat_map(|sample| sample.labels.keys());
        let mut labels: Vec<_> = labels.filter(|label| *label != "le").collect();
        labels.sort();
        labels.dedup();
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        writeln!(text, "| `{name}{suffix}` | {kind} | {labels} | {help} |")
            .expect("a String takes it");
    }
    text
}

const INTRODUCTION: &str = "# Metrics

What the programs answer to `GET /metrics` at their admin listener, in the text format of OpenMetrics. Names that begin with
`nse_vl3_` are those of the Cisco vL3 endpoint and their like; all others begin with `carrick_`. No label holds a connection's
id or an address, so the number of series does not grow with the clients.

Times are in seconds. Of a histogram `_bucket`, `_sum` and `_count` are to be read.
";
