//! Real signals to a real process, and what it exits with.

use std::future::pending;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use carrick_lifecycle::{Lifecycle, UnixSignals};

/// Set in the child: `quick` or `slow` to stop.
const KIND: &str = "CARRICK_LIFECYCLE_TEST";

/// Not a test of its own: what the child process does. Without the variable it
/// has nothing to do.
#[tokio::test]
async fn child() {
    let Ok(kind) = std::env::var(KIND) else {
        return;
    };
    let signals = UnixSignals::new().unwrap();
    let mut lifecycle = Lifecycle::new(Duration::from_secs(600));
    let subsystem = lifecycle.subsystem("server", Duration::from_secs(600));
    subsystem.at_shutdown("close", async move {
        println!("\nstopping");
        if kind == "slow" {
            pending::<()>().await;
        }
        Ok::<_, std::io::Error>(())
    });
    println!("\nready");
    let outcome = lifecycle.run(signals).await;
    std::process::exit(outcome.exit_code().into());
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(kind: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a test has a file"))
            .args(["--exact", "child", "--nocapture"])
            .env(KIND, kind)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test can start itself");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    fn wait_for(&mut self, line: &str) {
        let found = self.lines.by_ref().map_while(Result::ok).any(|l| l == line);
        assert!(found, "the child ended without saying {line}");
    }

    fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &command]).status();
        assert!(sent.expect("there is a shell").success());
    }

    fn exit(mut self) -> ExitStatus {
        self.child.wait().expect("it is our child")
    }
}

#[test]
fn a_terminated_process_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start("quick");
        process.wait_for("ready");
        process.signal(signal);
        assert_eq!(process.exit().code(), Some(0), "after SIG{signal}");
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (second, code) in [("INT", 130), ("TERM", 143)] {
        let mut process = Process::start("slow");
        process.wait_for("ready");
        process.signal("TERM");
        process.wait_for("stopping");
        process.signal(second);
        assert_eq!(process.exit().code(), Some(code), "after SIG{second}");
    }
}
