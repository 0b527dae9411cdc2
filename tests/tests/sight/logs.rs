use std::fmt;

use carrick_tests::Lab;
use nix::sys::signal::Signal;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

/// An object in which no key stands twice.
#[derive(Debug)]
struct Line(Map<String, Value>);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Map<String, Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if fields.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{key} stands twice")));
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(Self)
    }
}

/// The lines of a program's log, each of which must be an object.
fn lines(lab: &Lab, program: &str, from: usize) -> Vec<Value> {
    let log = lab.log(program);
    // The last line may be half written.
    let end = log.rfind('\n').map_or(from, |end| end + 1);
    let lines = log[from..end].lines();
    let read = |line: &str| {
        let read: Result<Line, _> = serde_json::from_str(line);
        let line = read.unwrap_or_else(|e| panic!("{program}: {e} in {line}"));
        Value::Object(line.0)
    };
    lines.map(read).collect()
}

fn count(lines: &[Value], level: &str) -> usize {
    lines.iter().filter(|line| line["level"] == level).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_an_object_and_none_holds_a_token() {
    let mut lab = Lab::new(&["one", "two"]).await;
    let all = [("NSM_LOG_LEVEL", "TRACE".to_owned())];
    let netns = lab.node("one").namespace.path();
    let at = |port: u16| ("NSM_LISTEN_ON", format!("tcp://192.0.2.1:{port}"));
    let registry = [at(5002), all[0].clone()];
    lab.start("registry", &netns, &["registry"], &registry);
    let prefix = ("NSM_PREFIX", "172.16.0.0/16".to_owned());
    lab.start(
        "ipam",
        &netns,
        &["ipam"],
        &[at(5006), prefix, all[0].clone()],
    );
    lab.start_nse("nse-a", "one", "one", "one", &all);
    lab.start_nse("nse-b", "two", "one", "one", &all);
    lab.linked("nse-a", 1).await;
    // Refreshed every second: more Requests, each with its token.
    let short = ("NSM_MAX_TOKEN_LIFETIME", "2s".to_owned());
    lab.start_nsc("ant", "one", "nse-a", &[all[0].clone(), short])
        .await;
    lab.wait("a refresh", async || {
        let status = lab.status("nsc-ant").await?;
        let attempts = status["connections"][0]["attempts"].as_u64()?;
        (attempts >= 2).then_some(())
    })
    .await;
    assert!(lab.stop("nsc-ant").await.success());
    for program in ["registry", "ipam", "nse-a", "nse-b", "nsc-ant"] {
        let lines = lines(&lab, program, 0);
        assert!(
            count(&lines, "TRACE") + count(&lines, "DEBUG") > 0,
            "{program}"
        );
        for line in &lines {
            for key in ["timestamp", "level", "target"] {
                assert!(line[key].is_string(), "{program}: no {key} in {line}");
            }
        }
        // What every JWT begins with.
        let log = lab.log(program);
        let token = log.lines().find(|line| line.contains("eyJ"));
        assert_eq!(token, None, "{program} logs a token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_turn_the_log_up_and_back() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    let info = [("NSM_LOG_LEVEL", "INFO".to_owned())];
    lab.start_nse("nse", "one", "one", "one", &info);
    // Refreshed within a second, which is a `DEBUG` line of the endpoint.
    let short = [("NSM_MAX_TOKEN_LIFETIME", "2s".to_owned())];
    lab.start_nsc("ant", "one", "nse", &short).await;
    lab.address("ant").await;
    refreshed(&lab).await;
    let before = lines(&lab, "nse", 0);
    assert!(count(&before, "INFO") > 0);
    assert_eq!(count(&before, "DEBUG") + count(&before, "TRACE"), 0);

    lab.signal("nse", Signal::SIGUSR1);
    changed(&lab, "TRACE").await;
    lab.wait("everything is logged", async || {
        (count(&lines(&lab, "nse", 0), "DEBUG") > 0).then_some(())
    })
    .await;

    lab.signal("nse", Signal::SIGUSR2);
    changed(&lab, "INFO").await;
    let from = lab.log("nse").len();
    refreshed(&lab).await;
    let back = lines(&lab, "nse", from);
    assert_eq!(count(&back, "DEBUG") + count(&back, "TRACE"), 0, "{back:?}");
}

/// Waits until the client was answered once more.
async fn refreshed(lab: &Lab) {
    let attempts = async || {
        let status = lab.status("nsc-ant").await?;
        status["connections"][0]["attempts"].as_u64()
    };
    let before = attempts().await.expect("it answers");
    // The one after the next has begun, so the next was answered.
    lab.wait("a refresh", async || {
        (attempts().await? >= before + 2).then_some(())
    })
    .await;
}

/// Waits until the endpoint says that its log level is another one.
async fn changed(lab: &Lab, level: &str) {
    lab.wait(&format!("the log level is {level}"), async || {
        let lines = lines(lab, "nse", 0);
        lines
            .iter()
            .any(|line| line["log.level"] == level)
            .then_some(())
    })
    .await;
}
