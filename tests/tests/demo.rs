//! `carrick demo`: what it shows, and that nothing of it is left, whatever its end.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use carrick_tests::{Lab, until_within};

/// Longest wait for a demo.
const PATIENCE: Duration = Duration::from_secs(90);
const PODS: [&str; 5] = ["ant", "bee", "cat", "dog", "eel"];
const NOBODY: u32 = 65_534;

/// A demo whose processes can be told from all others.
struct Demo {
    child: Child,
    marker: String,
}

impl Demo {
    /// A `PATH` that only the processes of one demo have: each of them gets it.
    fn marker() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        format!("/usr/sbin:/usr/bin:/sbin:/bin:/carrick-demo-{process}-{number}")
    }

    fn start(command: &mut Command) -> Self {
        let marker = Self::marker();
        let command = command.env_clear().env("PATH", &marker);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self {
            child: command.spawn().unwrap(),
            marker,
        }
    }

    /// Its processes that run now.
    fn processes(&self) -> Vec<PathBuf> {
        let is_one = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            let path = format!("PATH={}", self.marker);
            environment
                .split(|byte| *byte == 0)
                .any(|is| is == path.as_bytes())
        };
        processes().filter(is_one).collect()
    }

    /// The namespaces that its processes are in and this one is not.
    fn namespaces(&self) -> BTreeSet<String> {
        let ours = namespaces(Path::new("/proc/self"));
        let all = self.processes();
        let all: BTreeSet<_> = all.iter().flat_map(|process| namespaces(process)).collect();
        all.difference(&ours).cloned().collect()
    }

    /// Waits until all its programs and pods run; their namespaces.
    async fn is_up(&self) -> BTreeSet<String> {
        // Two registries, a prefix server, three endpoints; a client and an
        // application in each pod; the demo itself.
        let all = 2 + 1 + 3 + 2 * PODS.len() + 1;
        let up = || (self.processes().len() > all).then(|| self.namespaces());
        until_within(PATIENCE, up).await.expect("the demo is up")
    }

    /// Waits for its end.
    async fn ends(mut self) -> Output {
        let output = tokio::task::spawn_blocking(move || {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let out = self.child.stdout.as_mut().expect("it is piped");
            std::io::copy(out, &mut stdout).unwrap();
            let err = self.child.stderr.as_mut().expect("it is piped");
            std::io::copy(err, &mut stderr).unwrap();
            let status = self.child.wait().unwrap();
            Output {
                status,
                stdout,
                stderr,
            }
        });
        output.await.unwrap()
    }
}

/// A failed test leaves none behind.
impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries.filter(|path| {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    })
}

/// The namespaces of a process, each as `kind:[inode]`.
fn namespaces(process: &Path) -> BTreeSet<String> {
    let kinds = ["mnt", "net", "pid", "user"];
    let links = kinds.map(|kind| fs::read_link(process.join("ns").join(kind)));
    let names = links.into_iter().flatten();
    names.map(|name| name.display().to_string()).collect()
}

/// What this machine has by names: pinned namespaces, mounts, interfaces, files.
/// Those of tests that run meanwhile are left out.
fn named() -> BTreeSet<String> {
    let list = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let paths: Vec<_> = entries
            .map(|entry| entry.path().display().to_string())
            .collect();
        paths
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap();
    let devices = devices.lines().filter_map(|line| line.split_once(':'));
    let all = list("/run/netns")
        .into_iter()
        .chain(list("/run"))
        .chain(list("/run/carrick"));
    let all = all.chain(mounts.lines().map(str::to_owned));
    let all = all.chain(devices.map(|(name, _)| name.trim().to_owned()));
    all.filter(|name| !name.contains("carrick-test-")).collect()
}

/// Waits until no process is in any of these namespaces and nothing pins them.
async fn are_gone(namespaces_of_demo: &BTreeSet<String>) {
    assert!(namespaces_of_demo.len() > 10, "{namespaces_of_demo:?}");
    let gone = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let held: BTreeSet<_> = processes()
            .flat_map(|process| namespaces(&process))
            .collect();
        let left = |name: &&String| held.contains(*name) || mounts.contains(name.as_str());
        namespaces_of_demo.iter().find(left).is_none().then_some(())
    };
    let gone = until_within(Duration::from_secs(10), gone).await;
    gone.expect("no namespace of the demo is left");
}

/// Checks all that a demo says when it succeeds.
fn is_whole(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{text}\n{errors}",
        output.status
    );
    assert!(errors.is_empty(), "{errors}");
    let said = [
        "node east-1",
        "node east-2",
        "node west-1",
        "domain east",
        "domain west",
        "killing nse-east-1 with SIGKILL",
        "longest interruption of each pair",
        "every address is unchanged",
        "removing everything",
        "nothing is left",
    ];
    for sentence in said {
        assert!(text.contains(sentence), "no {sentence:?} in {text}");
    }
    // Two tables of fetches, by address and by name, and one of interruptions.
    for pod in PODS {
        let rows: Vec<_> = text
            .lines()
            .filter(|line| line.trim_start().starts_with(pod))
            .collect();
        let [first, interruptions, second] = rows[..] else {
            panic!("{pod} has other rows than three: {rows:?}");
        };
        for row in [first, second] {
            assert_eq!(row.matches(" ms / ").count(), PODS.len() - 1, "{row}");
        }
        let cells: Vec<_> = interruptions
            .split_whitespace()
            .filter(|is| is.trim_end_matches(',') == "ms")
            .collect();
        assert_eq!(cells.len(), PODS.len() - 1, "{interruptions}");
    }
}

/// The binary where any user may run it.
fn for_anybody(dir: &tempfile::TempDir) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let readable = fs::Permissions::from_mode(0o755);
    let binary = dir.path().join("carrick");
    fs::copy(Lab::binary(), &binary).unwrap();
    for path in [dir.path(), &binary] {
        fs::set_permissions(path, readable.clone()).unwrap();
    }
    binary
}

/// Whether an ordinary user may make user namespaces here.
fn user_namespaces_are_allowed() -> bool {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--net", "true"])
        .uid(NOBODY)
        .gid(NOBODY);
    command
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_succeeds_and_leaves_nothing() {
    carrick_tests::require_root();
    let before = named();
    let demo = Demo::start(Command::new(Lab::binary()).arg("demo"));
    let namespaces = demo.is_up().await;
    let output = demo.ends().await;
    is_whole(&output);
    are_gone(&namespaces).await;
    let left: Vec<_> = named().difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_killed_leaves_nothing() {
    carrick_tests::require_root();
    let before = named();
    let mut demo = Demo::start(Command::new(Lab::binary()).arg("demo"));
    let namespaces = demo.is_up().await;
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    let gone = || demo.processes().is_empty().then_some(());
    let gone = until_within(Duration::from_secs(10), gone).await;
    gone.expect("no process of the demo is left");
    are_gone(&namespaces).await;
    let left: Vec<_> = named().difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_sees_the_demo_or_what_is_missing() {
    carrick_tests::require_root();
    let dir = tempfile::tempdir().unwrap();
    let binary = for_anybody(&dir);
    let before = named();
    let mut command = Command::new(&binary);
    command.arg("demo").current_dir("/").uid(NOBODY).gid(NOBODY);
    let demo = Demo::start(&mut command);
    if user_namespaces_are_allowed() {
        let namespaces = demo.is_up().await;
        let output = demo.ends().await;
        is_whole(&output);
        are_gone(&namespaces).await;
    } else {
        let output = demo.ends().await;
        says_what_is_missing(&output);
    }
    let left: Vec<_> = named().difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn says_what_is_missing(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for word in ["run as root", "user.max_user_namespaces"] {
        assert!(errors.contains(word), "no {word} in {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_namespaces_is_told_what_is_missing() {
    carrick_tests::require_root();
    let dir = tempfile::tempdir().unwrap();
    let binary = for_anybody(&dir);
    // A place in which, as on some systems, no user may make namespaces.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && cd / && \
                  exec setpriv --ambient-caps=-all --inh-caps=-all -- \"$0\" demo";
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-user=1000",
            "--keep-caps",
            "sh",
            "-c",
            forbid,
        ])
        .arg(&binary);
    says_what_is_missing(&Demo::start(&mut command).ends().await);
}
