//! What a node can balance is told mode by mode, with the reason where it cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use carrick_tests::balancer::Plane;
use carrick_tests::{Lab, Namespace};
use serde_json::Value;

/// What `carrick preflight` says in a namespace, as root or as somebody.
fn told(binary: &Path, namespace: &Namespace, user: u32) -> Vec<Value> {
    let output = namespace.within(|| {
        let mut command = Command::new(binary);
        command.args(["preflight", "--json"]).current_dir("/");
        command.uid(user).gid(user);
        command.output().unwrap()
    });
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The binary, where anybody may run it.
fn for_anybody(dir: &tempfile::TempDir) -> PathBuf {
    let binary = dir.path().join("carrick");
    fs::copy(Lab::binary(), &binary).unwrap();
    for path in [dir.path(), &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    binary
}

/// What it says of a mode and data plane: `null` or what is in the way.
fn of<'a>(rows: &'a [Value], mode: &str, plane: &str) -> &'a Value {
    let name = format!("balancing, mode {mode}");
    let row = rows.iter().find(|row| row["name"] == name.as_str());
    let ways = row.unwrap()["ways"].as_array().unwrap();
    let way = ways.iter().find(|way| way["plane"] == plane);
    &way.unwrap()["missing"]
}

#[test]
fn preflight_says_mode_by_mode_what_can_be_balanced_and_why_not() {
    let namespace = Namespace::new("preflight");
    let dir = tempfile::tempdir().unwrap();
    let binary = for_anybody(&dir);
    let forward = |value| {
        namespace.within(|| fs::write("/proc/sys/net/ipv4/ip_forward", value).unwrap());
    };
    forward("1");
    let rows = told(&binary, &namespace, 0);
    for mode in ["gre", "gue", "ipip", "l2", "l3dsr", "nat", "vxlan"] {
        assert!(of(&rows, mode, "ebpf").is_null(), "{mode}: {rows:?}");
    }
    for mode in ["l2", "l3dsr", "nat"] {
        assert!(of(&rows, mode, "nftables").is_null(), "{mode}: {rows:?}");
    }
    let why = of(&rows, "gre", "nftables").as_str().unwrap();
    assert!(why.contains("no expression of nftables"), "{why}");

    forward("0");
    let rows = told(&binary, &namespace, 0);
    let why = of(&rows, "nat", "nftables").as_str().unwrap();
    assert!(why.contains("net.ipv4.ip_forward=1"), "{why}");
    assert!(of(&rows, "l2", "nftables").is_null(), "{rows:?}");

    let rows = told(&binary, &namespace, 65_534);
    let why = of(&rows, "nat", "ebpf").as_str().unwrap();
    assert!(why.contains("CAP_BPF and CAP_NET_ADMIN"), "{why}");
    let why = of(&rows, "l2", "nftables").as_str().unwrap();
    assert!(why.ends_with("needs CAP_NET_ADMIN"), "{why}");

    let left = Plane::Nftables.left_in(&namespace);
    assert!(left.is_empty(), "left over: {left:?}");
}
