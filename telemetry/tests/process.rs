//! What a process writes about itself: telemetry installed for the whole of it.

use std::process::Command;

use carrick_telemetry::{Error, Format, Options, Telemetry};
use serde_json::Value;

/// Set in the child.
const CHILD: &str = "CARRICK_TELEMETRY_TEST";

/// Not a test of its own: what the child process does. Without the variable it
/// has nothing to do.
#[tokio::test]
async fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let options = Options {
        log_level: "LOUD".to_owned(),
        log_format: Format::Json,
        ..Options::default()
    };
    let _telemetry = Telemetry::install(&options).unwrap();
    let again = Telemetry::install(&options).unwrap_err();
    assert!(matches!(again, Error::Installed(_)), "{again:?}");
    let panicked = tokio::spawn(async { panic!("a bug with number {}", 7) }).await;
    assert!(panicked.unwrap_err().is_panic());
}

#[test]
fn a_panic_and_an_unknown_level_are_lines_of_the_log() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let [unknown, panic] = lines.as_slice() else {
        panic!("{text}")
    };
    assert_eq!(unknown["level"], "WARN");
    assert!(
        unknown["message"].as_str().unwrap().contains("LOUD"),
        "{unknown}"
    );
    assert_eq!(panic["level"], "ERROR");
    assert_eq!(panic["message"], "panic: a bug with number 7");
    assert!(
        panic["location"].as_str().unwrap().contains("process.rs:"),
        "{panic}"
    );
}
