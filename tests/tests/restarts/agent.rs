//! The privileged half in its own process: late, killed, and killed with its endpoint.

use carrick_tests::traffic::{Echo, Flow, echoes};
use carrick_tests::{Lab, PATIENCE};

fn start_agent(lab: &mut Lab) {
    let listen = [(
        "NSM_LISTEN_ON",
        format!("unix://{}", lab.path("agent.sock")),
    )];
    let netns = lab.node("one").namespace.path();
    lab.start("agent", &netns, &["agent"], &listen);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_come_late_and_be_killed_at_any_time() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    let agent = format!("unix://{}", lab.path("agent.sock"));
    lab.start_nse("nse", "one", "one", "one", &[("CARRICK_AGENT", agent)]);
    lab.start_nsc("ant", "one", "nse", &[]).await;
    lab.wait("the endpoint says that there is no agent", async || {
        lab.log("nse").contains("agent").then_some(())
    })
    .await;
    assert!(!lab.is_ready("nse").await);
    start_agent(&mut lab);
    lab.ready("nse").await;
    lab.start_nsc("bee", "one", "nse", &[]).await;
    let (ant, bee) = (lab.address("ant").await, lab.address("bee").await);
    let _echo = Echo::start(lab.pod("bee").await, b"bee");
    assert!(echoes(lab.pod("ant").await, bee, PATIENCE));
    let flow = Flow::start(lab.pod("ant").await, bee);

    lab.down("agent");
    lab.start_nsc("cat", "one", "nse", &[]).await;
    lab.wait("the new client is told why it waits", async || {
        let status = lab.status("nsc-cat").await?;
        let error = status["connections"][0]["last_error"].to_string();
        error.contains("the agent").then_some(())
    })
    .await;
    lab.up("agent");
    lab.address("cat").await;

    for round in [&["agent", "nse"], &["nse", "agent"]] {
        for program in round {
            lab.down(program);
        }
        for program in round {
            lab.up(program);
        }
        lab.ready("nse").await;
        lab.start_nsc("dog", "one", "nse", &[]).await;
        lab.address("dog").await;
        assert!(lab.stop("nsc-dog").await.success());
    }
    assert_eq!(
        (lab.address("ant").await, lab.address("bee").await),
        (ant, bee)
    );
    let loss = flow.stop();
    println!("agent killed 3 times, endpoint twice: {loss:?}");
    assert_eq!(loss.lost, 0, "{loss:?}");
}
