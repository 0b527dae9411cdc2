//! What is logged, in which form, and how the level changes.

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_telemetry::{Format, Level, LevelSwitch, Options, Telemetry};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::dispatcher::with_default;
use tracing::{Dispatch, debug, error, info, info_span, trace, warn};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// What was written since the last call.
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().expect("no test panics while writing"));
        String::from_utf8(bytes).expect("logs are text")
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("no test panics while writing")
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logs(level: &str, format: Format, terminal: bool) -> (Dispatch, Telemetry, Lines) {
    let lines = Lines::default();
    let writer = lines.clone();
    let options = Options {
        log_level: level.to_owned(),
        log_format: format,
        ..Options::default()
    };
    let (dispatch, telemetry) = Telemetry::build(&options, move || writer.clone(), terminal)
        .expect("there is no collector");
    (dispatch, telemetry, lines)
}

fn one_of_each() {
    error!("e");
    warn!("w");
    info!("i");
    debug!("d");
    trace!("t");
}

#[test]
fn the_level_is_the_configured_one() {
    let levels = [
        ("ERROR", 1),
        ("WARN", 2),
        ("INFO", 3),
        ("DEBUG", 4),
        ("trace", 5),
        ("", 3),
        ("LOUD", 3),
    ];
    for (level, count) in levels {
        let (dispatch, _telemetry, lines) = logs(level, Format::Text, false);
        with_default(&dispatch, one_of_each);
        assert_eq!(lines.take().lines().count(), count, "at level {level:?}");
    }
}

#[test]
fn libraries_do_not_drown_our_lines() {
    let (dispatch, _telemetry, lines) = logs("TRACE", Format::Text, false);
    with_default(&dispatch, || {
        debug!(target: "h2::codec", "a frame");
        trace!(target: "hyper::proto", "a head");
        info!(target: "tower::buffer", "heard");
    });
    let lines = lines.take();
    assert!(
        lines.lines().count() == 1 && lines.contains("heard"),
        "{lines}"
    );

    let (dispatch, _telemetry, lines) = logs("ERROR", Format::Text, false);
    with_default(
        &dispatch,
        || warn!(target: "h2::codec", "not worse than ours"),
    );
    assert_eq!(lines.take(), "");
}

#[test]
fn without_a_terminal_a_line_is_one_json_object() {
    let (dispatch, _telemetry, lines) = logs("INFO", Format::Auto, false);
    with_default(&dispatch, || {
        let _span = info_span!("request", connection.id = "nsc-1").entered();
        info!(peer.addr = "10.0.0.1", "two\nlines");
    });
    let line: Value = serde_json::from_str(&lines.take()).unwrap();
    assert_eq!(line["message"], "two\nlines");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["peer.addr"], "10.0.0.1");
    assert_eq!(line["span"]["connection.id"], "nsc-1");
}

#[test]
fn a_terminal_gets_coloured_text_unless_json_was_chosen() {
    let (dispatch, _telemetry, lines) = logs("INFO", Format::Auto, true);
    with_default(&dispatch, || info!("hello"));
    let text = lines.take();
    assert!(
        text.contains("hello") && text.contains("\u{1b}["),
        "{text:?}"
    );

    let (dispatch, _telemetry, lines) = logs("INFO", Format::Json, true);
    with_default(&dispatch, || info!("hello"));
    assert!(lines.take().starts_with('{'));

    let (dispatch, _telemetry, lines) = logs("INFO", Format::Text, false);
    with_default(&dispatch, || info!("hello"));
    assert!(!lines.take().contains('\u{1b}'));
}

#[test]
fn the_level_goes_up_and_back() {
    let (dispatch, telemetry, lines) = logs("WARN", Format::Text, false);
    let level = telemetry.level();
    with_default(&dispatch, || {
        one_of_each();
        assert_eq!(lines.take().lines().count(), 2);
        level.trace();
        lines.take();
        one_of_each();
        assert_eq!(lines.take().lines().count(), 5);
        level.restore();
        lines.take();
        one_of_each();
        assert_eq!(lines.take().lines().count(), 2);
    });
}

fn signal_self(signal: &str) {
    let command = format!("kill -{signal} {}", std::process::id());
    let sent = Command::new("sh").args(["-c", &command]).status();
    assert!(sent.expect("there is a shell").success());
}

async fn until(level: &LevelSwitch, wanted: Level) {
    let reached = async {
        while level.level() != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached)
        .await
        .expect("the signal is heard");
}

#[tokio::test]
async fn sigusr1_logs_everything_and_sigusr2_ends_that() {
    let (_dispatch, telemetry, _lines) = logs("INFO", Format::Text, false);
    let (level, stop) = (telemetry.level(), CancellationToken::new());
    let follow = tokio::spawn(level.clone().follow_signals(stop.clone()));
    // The handlers are there once the task has run for the first time.
    tokio::task::yield_now().await;
    signal_self("USR1");
    until(&level, Level::Trace).await;
    signal_self("USR2");
    until(&level, Level::Info).await;
    stop.cancel();
    follow.await.unwrap().unwrap();
}
