use std::path::Path;
use std::process::Output;

use carrick_tests::{Lab, PATIENCE};
use serde_json::Value;

/// Runs `carrick status` as somebody on the node would.
async fn status(lab: &Lab, args: &[&str]) -> Output {
    let run = tokio::process::Command::new(Lab::binary())
        .arg("status")
        .args(args)
        .env_clear()
        .env("CARRICK_STATE_DIR", lab.path("state"))
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await;
    output
        .expect("it ends")
        .expect("the program can be started")
}

async fn text(lab: &Lab, args: &[&str]) -> String {
    let output = status(lab, args).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it is text")
}

/// Programs with no admin address of their own choosing.
async fn mesh() -> Lab {
    let mut lab = Lab::new(&["one", "two"]).await;
    let unset = [("CARRICK_ADMIN", String::new())];
    let netns = lab.node("one").namespace.path();
    let at = |port: u16| ("NSM_LISTEN_ON", format!("tcp://192.0.2.1:{port}"));
    let registry = [at(5002), unset[0].clone()];
    lab.start("registry", &netns, &["registry"], &registry);
    let prefix = ("NSM_PREFIX", "172.16.0.0/16".to_owned());
    let ipam = [at(5006), prefix, unset[0].clone()];
    lab.start("prefixes", &netns, &["ipam"], &ipam);
    lab.start_nse("nse-a", "one", "one", "one", &unset);
    lab.start_nse("nse-b", "two", "one", "one", &unset);
    lab.start_nsc("ant", "one", "nse-a", &unset).await;
    lab
}

/// What is found without saying where; waits until all of it is up.
async fn all(lab: &Lab) -> Value {
    lab.wait("everything is found and up", async || {
        let output = status(lab, &["--json"]).await;
        let all: Value = serde_json::from_slice(&output.stdout).ok()?;
        let of = |name: &str| &all[socket(lab, name)];
        let linked = ["nse-a", "nse-b"]
            .iter()
            .all(|nse| of(nse)["peers"][0]["state"] == "linked");
        let found =
            of("ipam")["prefixes"].is_array() && of("registry")["network_services"].is_array();
        let up = of("nsc-ant")["connections"][0]["state"] == "Up";
        (linked && found && up).then_some(all)
    })
    .await
}

/// The admin address of a program whose settings name none.
fn socket(lab: &Lab, program: &str) -> String {
    format!("unix://{}/{program}.admin", lab.path("state"))
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_found_by_their_state_and_tell_all_of_it() {
    let lab = mesh().await;
    let all = all(&lab).await;
    let nse = &all[socket(&lab, "nse-a")];
    assert_eq!(nse["name"], "nse-a");
    assert_eq!(nse["ready"], true);
    let client = nse["connections"].as_array().unwrap().iter();
    let client = client.filter(|connection| connection["peer"].is_null());
    let client: Vec<_> = client.collect();
    assert_eq!(client.len(), 1, "{nse:#}");
    assert_eq!(client[0]["client"], "nsc-ant");
    let address = &client[0]["src_addrs"][0];
    assert_eq!(&nse["leases"][0]["prefix"], address);
    let other = &all[socket(&lab, "nse-b")]["prefixes"][0];
    let routes = nse["routes"].as_array().unwrap();
    let route = routes.iter().find(|route| &route["prefix"] == other);
    assert_eq!(route.unwrap()["peer"], "nse-b");
    let granted = all[socket(&lab, "ipam")]["prefixes"].as_array().unwrap();
    assert_eq!(granted.len(), 2);

    // Times are text that people and tools read.
    let text = all.to_string();
    assert!(!text.contains("since_epoch"), "{all:#}");
    for time in [
        &nse["leases"][0]["since"],
        &granted[0]["since"],
        &granted[0]["expires"],
    ] {
        let time = time.as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_shows_connections_leases_peers_and_routes() {
    let lab = mesh().await;
    all(&lab).await;
    let shown = text(&lab, &[]).await;
    for part in [
        "  name: nse-a\n",
        "  connections (",
        "  leases (1)\n",
        "  peers (1)\n",
        "  routes (",
        "  prefixes (2)\n",
        "  network_service_endpoints (2)\n",
        "nsc-ant",
        "linked",
        ".1/32",
        " ago\n",
    ] {
        assert!(shown.contains(part), "no {part:?} in\n{shown}");
    }
    let widest = shown.lines().map(str::len).max().unwrap();
    assert!(widest < 200, "{widest} columns:\n{shown}");

    let one = text(&lab, &["--admin", &socket(&lab, "nse-b")]).await;
    assert!(one.contains("  name: nse-b\n") && !one.contains("  name: nse-a\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_show_is_an_error_that_says_where_was_looked() {
    let lab = Lab::new(&["one"]).await;
    let nobody = lab.path("nobody.admin");
    let output = status(&lab, &["--admin", &format!("unix://{nobody}")]).await;
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&nobody), "{error}");
    assert!(!Path::new(&nobody).exists());
}
