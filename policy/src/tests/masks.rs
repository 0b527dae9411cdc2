use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::world::{hops, input, now, tokens};
use crate::{LoadError, Native, Policies};

const YES: &str = "package nsm\nvalid = true\n";
const NO: &str = "package nsm\nvalid = false\n";

fn put(folder: &Path, path: &str, text: &str) {
    let file = folder.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn names(masks: &str, folder: &Path) -> Vec<String> {
    let policies = Policies::load(masks.split(','), folder).unwrap();
    policies.names().map(str::to_owned).collect()
}

#[test]
fn nsms_masks_mean_nsms_policies() {
    let folder = tempfile::tempdir().unwrap();
    let common = [
        "common/tokens_chained",
        "common/tokens_expired",
        "common/tokens_valid",
    ];
    let with = |others: &[&'static str]| [&common[..], others].concat();
    let names = |masks| names(masks, folder.path());
    assert_eq!(names(Policies::SERVER), with(&["server/prev_token_signed"]));
    assert_eq!(names(Policies::CLIENT), with(&["client/next_token_signed"]));
    let registry = ["registry/client_allowed", "server/prev_token_signed"];
    assert_eq!(names(Policies::REGISTRY_SERVER), with(&registry));
    let registry = ["registry/client_allowed", "client/next_token_signed"];
    assert_eq!(names(Policies::REGISTRY_CLIENT), with(&registry));
    assert_eq!(names("etc/nsm/opa/.*"), Native::ALL.map(Native::name));
}

#[test]
fn no_masks_are_no_policies() {
    let hops = hops(1);
    let policies = Policies::load([""; 0], Path::new("/")).unwrap();
    assert!(policies.is_empty());
    policies.check(&input(&[], &hops[0]), now()).unwrap();
}

#[test]
fn a_file_wins_over_the_native_policy_of_its_path_and_others_come_besides() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "etc/nsm/opa/common/tokens_valid.rego", NO);
    put(folder.path(), "etc/nsm/opa/common/deep/extra.rego", YES);
    put(folder.path(), "etc/nsm/opa/common/notes.txt", "no policy");
    let common = "etc/nsm/opa/common/.*.rego";
    let expected = [
        "common/deep/extra",
        "common/tokens_chained",
        "common/tokens_expired",
        "common/tokens_valid",
    ];
    assert_eq!(names(common, folder.path()), expected);
    let hops = hops(2);
    let tokens = tokens(&hops);
    let policies = Policies::load([common], folder.path()).unwrap();
    let refused = policies
        .check(&input(&tokens, &hops[0]), now())
        .unwrap_err();
    assert_eq!(refused.policy(), "common/tokens_valid");
}

#[test]
fn a_mask_may_be_the_path_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a+b.rego", YES);
    assert_eq!(names("a+b.rego", folder.path()), ["a+b.rego"]);
    let absolute = folder.path().join("a+b.rego").display().to_string();
    assert_eq!(names(&absolute, Path::new("/")), [absolute.as_str()]);
}

#[test]
fn the_files_of_a_mounted_config_map_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "policies/..2030/one.rego", YES);
    symlink("..2030", folder.path().join("policies/..data")).unwrap();
    symlink("..data/one.rego", folder.path().join("policies/one.rego")).unwrap();
    assert_eq!(
        names("policies/.*.rego", folder.path()),
        ["policies/one.rego"]
    );
}

#[test]
fn a_mistake_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "bad.rego", "package nsm\nvalid {");
    put(folder.path(), "large.rego", &" ".repeat((1 << 20) + 1));
    let load = |mask: &str| Policies::load([mask], folder.path()).unwrap_err();
    let nothing = load("etc/nsm/opa/comon/.*.rego");
    assert!(matches!(nothing, LoadError::Nothing(_)), "{nothing}");
    assert!(
        nothing.to_string().contains("etc/nsm/opa/comon/.*.rego"),
        "{nothing}"
    );
    assert!(matches!(load("etc/(.*"), LoadError::Mask(..)));
    assert!(matches!(load("bad.rego"), LoadError::Rego(..)));
    assert!(matches!(load("large.rego"), LoadError::Large(_)));
}
