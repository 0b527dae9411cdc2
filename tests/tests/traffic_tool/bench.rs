//! `carrick bench lb`: its figures, its end, its refusals.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use carrick_tests::{Lab, until_within};

use serde_json::Value;
use tokio::sync::Mutex;

use crate::site::json;

const NOBODY: u32 = 65_534;

/// Who looks at the namespaces of all processes wants nobody to make some.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The network namespaces of all processes, and the pinned ones that are not of tests.
fn namespaces() -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of = |entry: std::fs::DirEntry| std::fs::read_link(entry.path().join("ns/net")).ok();
    let held = processes
        .filter_map(of)
        .map(|link| link.display().to_string());
    let pinned = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten();
    let pinned = pinned.map(|entry| entry.file_name().to_string_lossy().into_owned());
    held.chain(pinned.filter(|name| !name.starts_with("carrick-test-")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_benchmark_of_the_endpoint_measures_every_part() {
    let _alone = ALONE.lock().await;
    carrick_tests::require_root();
    let program = Lab::binary().with_file_name("carrick-bench");
    assert!(program.exists(), "cargo build -p carrick-bench");
    let output = Command::new(program)
        .args(["endpoint", "--quick", "--no-go", "--carrick"])
        .arg(Lab::binary())
        .output()
        .unwrap();
    let (told, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{told}{said}");
    let rows = |name: &str| told.lines().filter(|line| line.starts_with(name)).count();
    // Over one HTTP/2 connection, and over one for each call.
    for row in ["new connection, CPU", "refresh, CPU", "close, CPU"] {
        assert_eq!(rows(row), 2, "{row}: {told}");
    }
    // Memory at two sizes and with a connection for each; a storm of refreshes.
    assert_eq!(rows("Carrick"), 4, "{told}");
    assert_eq!(rows("TCP, Gbit/s"), 1, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_benchmark_measures_every_part() {
    let _alone = ALONE.lock().await;
    carrick_tests::require_root();
    let output = Command::new(Lab::binary())
        .args(["bench", "lb", "--quick", "--json"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result = json(&output);
    evenness(&result);
    for row in rows(&result, "live") {
        assert_eq!(
            (&row["flows"], &row["broken"]),
            (&500.into(), &0.into()),
            "{row}"
        );
    }
    let packets = rows(&result, "packets");
    let of = |program: &str, packet: &str| {
        let mut rows = packets.iter();
        let row = rows.find(|row| row["program"] == program && row["packet"] == packet);
        row.unwrap_or_else(|| panic!("no {packet} of {program} in {result}"))
    };
    let floor = of("rig + empty program", "any")["min"].as_u64().unwrap();
    for program in ["carrick, IPIP", "carrick, NAT"] {
        let known = of(program, "known flow");
        // XDP_TX or XDP_REDIRECT: it did not pass by.
        assert!(known["verdict"] == 3 || known["verdict"] == 4, "{known}");
        assert!(known["min"].as_u64().unwrap() > floor, "{known}");
    }
    let paths = rows(&result, "path");
    for path in [
        "forwarding, no balancer",
        "nftables DNAT, random",
        "carrick, XDP, nat",
        "carrick, TC, nat",
    ] {
        let row = paths.iter().find(|row| row["path"] == path);
        let row = row.unwrap_or_else(|| panic!("no {path} in {result}"));
        assert!(
            row["best"].as_f64().unwrap() > 0.0 && row["lost"].as_u64() < row["sent"].as_u64(),
            "{row}"
        );
    }
}

fn rows<'a>(result: &'a Value, part: &str) -> &'a Vec<Value> {
    let rows = result[part].as_array().filter(|rows| !rows.is_empty());
    rows.unwrap_or_else(|| panic!("no {part} in {result}"))
}

/// Chance, for what chooses by chance or by hash; even, for what takes turns.
fn evenness(result: &Value) {
    let of = |policy: &str, balancer: &str| {
        let mut rows = rows(result, "distribution").iter();
        let row = rows.find(|row| row["policy"] == policy && row["balancer"] == balancer);
        row.unwrap_or_else(|| panic!("no {policy} of {balancer} in {result}"))
    };
    let ours = ["carrick, XDP", "carrick, TC", "carrick, nftables"];
    for balancer in ours {
        let row = of("weighted round robin", balancer);
        assert_eq!(
            (&row["verdict"], &row["failed"]),
            (&"even".into(), &0.into()),
            "{row}"
        );
    }
    assert_eq!(of("in turn", "nftables")["verdict"], "even");
    let hashes = ours.map(|balancer| of("Maglev", balancer)).into_iter();
    for row in hashes.chain([of("random", "nftables"), of("hash (jhash)", "nftables")]) {
        assert_eq!(
            (&row["failed"], &row["spread"]["missing"]),
            (&0.into(), &0.into()),
            "{row}"
        );
        // Exceeded once in 100,000 runs.
        assert!(
            row["spread"]["chi_square"].as_f64().unwrap() < 170.0,
            "{row}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_benchmark_that_is_interrupted_leaves_nothing() {
    let _alone = ALONE.lock().await;
    carrick_tests::require_root();
    // Who is started in the background by a shell ignores interrupts, and so do
    // those it starts.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(Lab::binary());
    command.args(["bench", "lb", "--connections", "1000000"]);
    let mut bench = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let marker = format!("/proc/{}/task/{}/children", bench.id(), bench.id());
    let inside = || {
        let children = std::fs::read_to_string(&marker).unwrap_or_default();
        let child = children.split_whitespace().next()?.to_owned();
        let namespace = std::fs::read_link(format!("/proc/{child}/ns/net")).ok()?;
        // Its own one, not yet that of its parent.
        let parent = std::fs::read_link("/proc/self/ns/net").ok()?;
        (namespace != parent).then(|| namespace.display().to_string())
    };
    let inside = until_within(Duration::from_secs(10), inside).await;
    let inside = inside.expect("the benchmark has a namespace of its own");
    assert!(namespaces().contains(&inside));
    let pid = nix::unistd::Pid::from_raw(bench.id().try_into().unwrap());
    // Again if it came while the program was only just starting.
    let ended = || {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        bench.try_wait().unwrap()
    };
    let ended = until_within(Duration::from_secs(20), ended).await;
    assert!(!ended.expect("an interrupt ends it").success());
    let gone = || (!namespaces().contains(&inside)).then_some(());
    let gone = until_within(Duration::from_secs(10), gone).await;
    gone.expect("nothing of the benchmark is left");
}

#[test]
fn a_user_without_privileges_is_told_what_a_benchmark_needs() {
    carrick_tests::require_root();
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("carrick");
    std::fs::copy(Lab::binary(), &binary).unwrap();
    for path in [dir.path(), &binary] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&binary);
    command
        .args(["bench", "lb"])
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("needs root"), "{errors}");
}
