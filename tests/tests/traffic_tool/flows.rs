//! Flows that are watched while something happens to them.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use carrick_tests::Lab;

use crate::site::{Running, Site, ip};

/// A watch and what it says while it runs.
struct Watching {
    child: Running,
    said: std::sync::mpsc::Receiver<String>,
}

impl Watching {
    fn start(site: &Site, args: &[&str]) -> Self {
        let mut child = site.client.within(|| {
            let mut command = Command::new(Lab::binary());
            command
                .args(["traffic", "watch", "10.0.0.1:5001", "--json"])
                .args(args);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (say, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        Self {
            child: Running(child),
            said,
        }
    }

    /// Waits until it says something with all of these words.
    fn says(&self, words: &[&str]) {
        let mut all = Vec::new();
        loop {
            let line = self.said.recv_timeout(Duration::from_secs(20));
            let line = line.unwrap_or_else(|_| panic!("it never says {words:?}: {all:#?}"));
            if words.iter().all(|word| line.contains(word)) {
                return;
            }
            all.push(line);
        }
    }

    /// Asks it to end; its result and whether that was a success.
    fn end(mut self) -> (serde_json::Value, bool) {
        let pid = nix::unistd::Pid::from_raw(self.child.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let result = std::io::read_to_string(self.child.0.stdout.take().unwrap()).unwrap();
        let status = self.child.0.wait().unwrap();
        (serde_json::from_str(&result).unwrap(), status.success())
    }
}

const PACE: [&str; 6] = ["-n", "20", "--interval", "50ms", "--stall", "300ms"];

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_pause_are_told_as_stalled_and_resumed_with_their_times() {
    let site = Site::new();
    let _server = site.serve(&["--name", "fish"]).await;
    let watching = Watching::start(&site, &PACE);
    watching.says(&["20 of 20 flows open"]);
    ip(&site.servers, "link set s0 down\n");
    watching.says(&[": flow ", "stalled"]);
    ip(
        &site.servers,
        "link set s0 up\nroute replace 20.0.0.0/16 via 198.18.0.1\n",
    );
    watching.says(&["with fish resumed after "]);
    watching.says(&[" 0 stalled, 0 broken"]);
    let (result, success) = watching.end();
    assert!(success, "{result}");
    assert_eq!(
        (&result["lasting"], &result["reset"]),
        (&20.into(), &0.into())
    );
    assert!(result["resumed"].as_u64().unwrap() >= 1);
    assert!(result["longest_stall"].as_u64().unwrap() >= 300_000_000);
    let events = result["events"].as_array().unwrap();
    let resumed = events
        .iter()
        .find(|event| event["event"] == "resumed")
        .unwrap();
    assert!(resumed["at"].as_u64().unwrap() > resumed["after"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_whose_server_dies_are_told_as_lost_and_fail_the_watch() {
    let site = Site::new();
    let server = site.serve(&["--name", "fish"]).await;
    let watching = Watching::start(&site, &PACE);
    watching.says(&["20 of 20 flows open"]);
    drop(server);
    watching.says(&["20 broken"]);
    let (result, success) = watching.end();
    assert!(!success);
    let gone = result["reset"].as_u64().unwrap() + result["closed"].as_u64().unwrap();
    assert_eq!((gone, &result["hosts"]["fish"]["lost"]), (20, &20.into()));
}
