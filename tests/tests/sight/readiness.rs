use carrick_grpc::{Security, Url, dial};
use carrick_tests::{Lab, PATIENCE, admin, until_within};
use nix::sys::signal::Signal;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The lines that `/readyz` answers with while something is missing.
async fn missing(lab: &Lab, program: &str) -> Option<Vec<String>> {
    let (code, body) = admin::get(&lab.admin(program), "/readyz").await.ok()?;
    let lines = body.lines().map(str::to_owned).collect();
    (code == 503).then_some(lines)
}

/// Waits until exactly these conditions are missing, by their names.
async fn misses(lab: &Lab, program: &str, conditions: &[&str]) -> Vec<String> {
    let what = format!("{program} misses {conditions:?}");
    lab.wait(&what, async || {
        let lines = missing(lab, program).await?;
        let names = lines.iter().filter_map(|line| line.split(':').next());
        names.eq(conditions.iter().copied()).then_some(lines)
    })
    .await
}

/// What gRPC's health says of the endpoint as a whole.
async fn health(lab: &Lab, nse: &str) -> Option<ServingStatus> {
    health_at(&Url::unix(lab.socket(nse))).await
}

async fn health_at(url: &Url) -> Option<ServingStatus> {
    let channel = dial(url, &Security::insecure(), PATIENCE).await.ok()?;
    let request = HealthCheckRequest::default();
    let answer = HealthClient::new(channel).check(request).await.ok()?;
    Some(answer.into_inner().status())
}

async fn serves(lab: &Lab, nse: &str, status: ServingStatus) {
    let what = format!("{nse} is {status:?}");
    lab.wait(&what, async || {
        (health(lab, nse).await? == status).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_ready_only_while_it_can_serve() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_nse("nse", "one", "one", "one", &[]);
    // Neither prefix server nor registry.
    let all = ["listening", "prefix", "registered", "router"];
    misses(&lab, "nse", &all).await;

    lab.start_ipam("one", "172.16.0.0/16");
    misses(&lab, "nse", &["registered"]).await;
    serves(&lab, "nse", ServingStatus::NotServing).await;

    let expire = [
        ("NSM_LISTEN_ON", "tcp://192.0.2.1:5002".to_owned()),
        ("NSM_EXPIRE_PERIOD", "2s".to_owned()),
    ];
    let netns = lab.node("one").namespace.path();
    lab.start("registry", &netns, &["registry"], &expire);
    lab.ready("nse").await;
    serves(&lab, "nse", ServingStatus::Serving).await;

    // Its entry lapses there, so nobody finds it any more.
    lab.kill("registry");
    let why = misses(&lab, "nse", &["registered"]).await;
    assert!(why[0].len() > "registered: ".len(), "{why:?}");
    serves(&lab, "nse", ServingStatus::NotServing).await;

    lab.start("registry", &netns, &["registry"], &expire);
    lab.ready("nse").await;
    serves(&lab, "nse", ServingStatus::Serving).await;

    // Held up while it leaves, since the registry does not answer.
    lab.signal("registry", Signal::SIGSTOP);
    lab.signal("nse", Signal::SIGTERM);
    let why = misses(&lab, "nse", &["registered"]).await;
    assert_eq!(why, ["registered: the endpoint is leaving"]);
    assert_eq!(health(&lab, "nse").await, Some(ServingStatus::NotServing));
    lab.signal("registry", Signal::SIGCONT);
    let ended = until_within(PATIENCE, || lab.ended("nse")).await;
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_ready_only_while_its_connections_are_up() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_nsc("ant", "one", "nse", &[]).await;
    let missing = misses(&lab, "nsc-ant", &["nsc-ant-0"]).await;
    assert_eq!(missing.len(), 1);
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &[]);
    lab.ready("nsc-ant").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_and_an_agent_say_that_they_serve() {
    let mut lab = Lab::new(&["one"]).await;
    let netns = lab.node("one").namespace.path();
    let (registry, agent) = (lab.path("registry.sock"), lab.path("agent.sock"));
    let listen = |path: &str| [("NSM_LISTEN_ON", format!("unix://{path}"))];
    lab.start("registry", &netns, &["registry"], &listen(&registry));
    lab.start("agent", &netns, &["agent"], &listen(&agent));
    lab.ready("registry").await;
    lab.ready("agent").await;
    let serves = lab.wait("the registry serves", async || {
        health_at(&Url::unix(registry.clone()))
            .await
            .filter(|status| *status == ServingStatus::Serving)
    });
    serves.await;
    let (code, metrics) = admin::get(&lab.admin("agent"), "/metrics").await.unwrap();
    assert_eq!(code, 200);
    assert!(
        metrics.contains(r#"carrick_agent_applies_total{outcome="ok"} 0"#),
        "{metrics}"
    );
}
