use std::collections::BTreeSet;

use carrick_tests::Lab;

use crate::collector::{Collector, Span, Spans};

/// The endpoint's elements that every Request of a client passes.
const ELEMENTS: [&str; 7] = ["peer", "mechanism", "ipam", "dns", "mtu", "link", "routes"];

/// The first Request of `client` that `nse` served, as root and server span.
fn request<'a>(spans: &'a Spans, client: &'a str, nse: &'a str) -> Option<(&'a Span, &'a Span)> {
    spans.named(client, "Request").find_map(|root| {
        let mut served = spans.named(nse, "request");
        let served = served.find(|served| spans.is_within(served, root))?;
        Some((root, served))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_clients_request_to_the_agents_work() {
    let mut lab = Lab::new(&["one"]).await;
    let collector = Collector::default();
    let traced = collector.listen(&lab.node("one").namespace, "192.0.2.1:4317");
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &traced);
    let traced = collector.listen(lab.pod("ant").await, "127.0.0.1:4317");
    lab.start_nsc("ant", "one", "nse", &traced).await;
    lab.address("ant").await;
    let spans = lab
        .wait("the trace of a Request", async || {
            let spans = collector.spans();
            let (root, _) = request(&spans, "nsc-ant", "nse")?;
            root.parent.is_empty().then_some(())?;
            Some(spans)
        })
        .await;
    let (root, served) = request(&spans, "nsc-ant", "nse").unwrap();
    assert!(root.attributes.contains(&"connection.id".to_owned()));
    assert!(root.attributes.contains(&"network_service".to_owned()));
    for element in ELEMENTS {
        let mut found = spans.named("nse", element);
        assert!(
            found.any(|span| spans.is_within(span, served)),
            "no {element} within the endpoint's request: {spans:#?}"
        );
    }
    let mut links = spans.named("nse", "link");
    let link = links.find(|span| spans.is_within(span, root)).unwrap();
    let mut applied = spans.named("nse", "agent.apply");
    assert!(
        applied.any(|span| spans.is_within(span, link)),
        "the agent's work is not within the link: {spans:#?}"
    );
    // In the order of action, each element is within the one before it.
    let mut inner = spans.named("nse", "routes");
    let inner = inner.find(|span| spans.is_within(span, root)).unwrap();
    let around = spans.around(inner).map(|span| span.name.as_str());
    let order: Vec<&str> = around.filter(|name| ELEMENTS.contains(name)).collect();
    assert_eq!(order, ["link", "mtu", "dns", "ipam", "mechanism", "peer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_has_a_trace_of_its_own_and_a_close_too() {
    let mut lab = Lab::new(&["one"]).await;
    let collector = Collector::default();
    let mut traced = collector.listen(&lab.node("one").namespace, "192.0.2.1:4317");
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &traced);
    traced = collector.listen(lab.pod("ant").await, "127.0.0.1:4317");
    // Refreshed within a second.
    traced.push(("NSM_MAX_TOKEN_LIFETIME", "2s".to_owned()));
    lab.start_nsc("ant", "one", "nse", &traced).await;
    lab.wait("two Requests are traced to the endpoint", async || {
        let spans = collector.spans();
        let served = spans.named("nse", "request").filter(|served| {
            let mut roots = spans.named("nsc-ant", "Request");
            roots.any(|root| spans.is_within(served, root))
        });
        let apart: BTreeSet<_> = served.map(|served| served.trace.clone()).collect();
        (apart.len() >= 2).then_some(())
    })
    .await;
    assert!(lab.stop("nsc-ant").await.success());
    lab.wait("the Close is traced at both ends", async || {
        let spans = collector.spans();
        // A first Request that failed was closed, too.
        let mut roots = spans.named("nsc-ant", "Close");
        let closed = roots.any(|root| {
            let mut links = spans.named("nse", "link");
            links.any(|link| spans.is_within(link, root))
        });
        closed.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_a_further_prefix_is_linked_with_the_prefix_stream() {
    let mut lab = Lab::new(&["one"]).await;
    let collector = Collector::default();
    let traced = collector.listen(&lab.node("one").namespace, "192.0.2.1:4317");
    lab.start_registry("east", "one");
    let mut ipam = traced.clone();
    // Room for three clients in each prefix.
    ipam.push(("NSM_CLIENT_PREFIX_LEN", "30".to_owned()));
    ipam.push(("NSM_PREFIX", "172.16.0.0/24".to_owned()));
    ipam.push(("NSM_LISTEN_ON", "tcp://192.0.2.1:5006".to_owned()));
    let netns = lab.node("one").namespace.path();
    lab.start("ipam", &netns, &["ipam"], &ipam);
    lab.start_nse("nse", "one", "one", "one", &traced);
    let mut four = collector.listen(lab.pod("ant").await, "127.0.0.1:4317");
    let services = (1..=4).map(|number| format!("kernel://vl3/nsm-{number}"));
    let services = services.collect::<Vec<_>>().join(",");
    four.push(("NSM_NETWORK_SERVICES", services));
    lab.start_nsc("ant", "one", "nse", &four).await;
    lab.ready("nsc-ant").await;
    lab.wait("the wait is in the Request's trace", async || {
        let spans = collector.spans();
        let wait = spans.named("nse", "further prefix").find(|wait| {
            let mut roots = spans.named("nsc-ant", "Request");
            roots.any(|root| spans.is_within(wait, root))
        })?;
        let mut asked = spans.named("nse", "ask for a prefix");
        let asked = asked.find(|asked| asked.links.contains(&wait.id))?;
        assert_ne!(asked.trace, wait.trace, "a stream is nobody's Request");
        let mut answers = spans.named("ipam", "prefix request");
        answers
            .any(|answer| answer.trace == asked.trace)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_and_its_answer_by_the_peer_are_one_trace() {
    let mut lab = Lab::new(&["one", "two"]).await;
    let collector = Collector::default();
    let traced = collector.listen(&lab.node("one").namespace, "192.0.2.1:4317");
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse-a", "one", "one", "one", &traced);
    lab.ready("nse-a").await;
    lab.start_nse("nse-b", "two", "one", "one", &traced);
    lab.linked("nse-b", 1).await;
    lab.wait("the dial is traced at both ends", async || {
        let spans = collector.spans();
        // The newer one dials.
        let (root, served) = request(&spans, "nse-b", "nse-a")?;
        let within = |instance: &str, name, outer| {
            let mut spans_of = spans.named(instance, name);
            spans_of.any(|span| spans.is_within(span, outer))
        };
        let ends = within("nse-b", "own-end", root) && within("nse-a", "link", served);
        ends.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_goes_on_in_an_agent_of_its_own_process() {
    let mut lab = Lab::new(&["one"]).await;
    let collector = Collector::default();
    let traced = collector.listen(&lab.node("one").namespace, "192.0.2.1:4317");
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    let socket = format!("unix://{}", lab.path("agent.sock"));
    let mut agent = traced.clone();
    agent.push(("NSM_LISTEN_ON", socket.clone()));
    let netns = lab.node("one").namespace.path();
    lab.start("agent", &netns, &["agent"], &agent);
    let mut nse = traced.clone();
    nse.push(("CARRICK_AGENT", socket));
    lab.start_nse("nse", "one", "one", "one", &nse);
    let traced = collector.listen(lab.pod("ant").await, "127.0.0.1:4317");
    lab.start_nsc("ant", "one", "nse", &traced).await;
    lab.address("ant").await;
    lab.wait("the agent's work is in the Request's trace", async || {
        let spans = collector.spans();
        let (_, served) = request(&spans, "nsc-ant", "nse")?;
        let mut asked = spans.named("nse", "agent.apply");
        let asked = asked.find(|asked| spans.is_within(asked, served))?;
        let mut applied = spans.named("agent", "apply");
        applied
            .any(|applied| spans.is_within(applied, asked))
            .then_some(())
    })
    .await;
}
