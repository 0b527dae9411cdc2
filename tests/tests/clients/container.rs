use std::process::{Child, Command, Stdio};

use carrick_tests::{Lab, within_path};

/// A program in a PID namespace of its own and without any capability, as in a
/// container.
struct Contained(Child);

impl Contained {
    async fn nsc(lab: &mut Lab, pod: &str, nse: &str) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["setpriv", "--bounding-set=-all", "--inh-caps=-all"])
            .arg(Lab::binary())
            .arg("nsc")
            .stdin(Stdio::null())
            .env("NSM_NAME", pod)
            .env("NSM_CONNECT_TO", format!("unix://{}", lab.socket(nse)))
            .env("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1")
            .env(
                "CARRICK_ADMIN",
                format!("unix://{}", lab.admin(&format!("nsc-{pod}")).display()),
            )
            .env("NSM_LOG_LEVEL", "WARN");
        let netns = lab.pod(pod).await.path();
        let child = within_path(&netns, || command.spawn());
        Self(child.expect("unshare is there"))
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_a_container_needs_no_capability_and_no_process_number_of_the_node() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &[]);
    lab.ready("nse").await;
    let _nsc = Contained::nsc(&mut lab, "ant", "nse").await;
    assert_eq!(lab.address("ant").await.to_string(), "172.16.0.1");
}
