//! `carrick lb` as users run it: the programs themselves, in namespaces. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use carrick_lb::dataplane::{Dataplane as _, Installed};
use carrick_lb::nft::Nft;
use carrick_tests::balancer::{Held, Server, Site, ask};
use carrick_tests::{Lab, Namespace, require_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const VIP: &str = "192.0.2.77";
const NOBODY: u32 = 65_534;
/// Longest wait for a program to do what it is about to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory, a site, and the programs that run in it.
struct World {
    dir: tempfile::TempDir,
    site: Site,
    programs: Vec<Child>,
}

impl World {
    fn new(servers: u8) -> Self {
        require_root();
        let dir = tempfile::tempdir().unwrap();
        // Also for a program that is nobody's.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), open).unwrap();
        Self {
            dir,
            site: Site::new(servers),
            programs: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The balancer's name: its own, as its pins are found by it.
    fn name(&self) -> String {
        let name = self.site.balancer.name();
        name[name.len().saturating_sub(32)..].to_owned()
    }

    /// The balancer's file, with a weight for each server.
    fn write(&self, dataplane: &str, mode: &str, weights: &[u16]) -> PathBuf {
        let servers = (1..).zip(weights).map(|(number, weight): (u8, _)| {
            format!("      - {{ id: s{number}, address: 10.1.{number}.2, weight: {weight} }}\n")
        });
        let servers: String = servers.collect();
        let name = self.name();
        let text = format!(
            "balancer: {{ name: {name}, dataplane: {dataplane}, hook: tc, interfaces: [client], address4: 203.0.113.1 }}\n\
             services:\n  - name: web\n    vips: [{VIP}]\n    mode: {mode}\n    servers:\n{servers}"
        );
        let path = self.path("lb.yaml");
        let next = self.path("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &path).unwrap();
        path
    }

    fn start(&mut self, namespace: usize, args: &[&str]) -> usize {
        let netns = match namespace {
            0 => &self.site.balancer,
            number => &self.site.servers[number - 1],
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = carrick(netns)
            .args(args)
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn();
        self.programs.push(child.unwrap());
        self.programs.len() - 1
    }

    fn start_balancer(&mut self) -> usize {
        let (file, admin) = (self.path("lb.yaml"), self.admin());
        let args = [
            "lb",
            "run",
            "--config",
            file.to_str().unwrap(),
            "--admin",
            &admin,
        ];
        let program = self.start(0, &args);
        self.until("the balancer is ready", |world| {
            world.status().is_some_and(|status| status["ready"] == true)
        });
        program
    }

    fn admin(&self) -> String {
        format!("unix://{}", self.path("admin").display())
    }

    fn status(&self) -> Option<Value> {
        let args = ["lb", "status", "--json", "--admin", &self.admin()];
        let output = carrick(&self.site.balancer).args(args).output().unwrap();
        let all: Value = serde_json::from_slice(&output.stdout).ok()?;
        all.get(self.admin()).cloned()
    }

    fn weights(&self) -> Vec<u64> {
        let status = self.status().unwrap_or_default();
        let servers = status["balancer"]["services"][0]["servers"]
            .as_array()
            .cloned();
        let servers = servers.unwrap_or_default();
        servers
            .iter()
            .filter_map(|server| server["weight"].as_u64())
            .collect()
    }

    fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is(self) {
            assert!(
                Instant::now() < end,
                "{what}: not within {PATIENCE:?}\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Whether the kernel holds anything of the balancer.
    fn is_left(&self) -> bool {
        let pins = Path::new("/sys/fs/bpf").join(format!("carrick-lb-{}", self.name()));
        let rules = self
            .site
            .balancer
            .within(|| Nft::open().and_then(|nft| nft.installed()));
        pins.exists() || rules.unwrap() != Installed::default()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn signal(&mut self, program: usize, signal: Signal) -> Option<i32> {
        let child = &mut self.programs[program];
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(id, signal).unwrap();
        child.wait().unwrap().code()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for program in &mut self.programs {
            // Asked, not killed, so that a server puts back what it changed.
            if let (Ok(None), Ok(id)) = (program.try_wait(), i32::try_from(program.id())) {
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
            let _ = program.wait();
        }
        let clean = carrick(&self.site.balancer)
            .args(["lb", "clean", "--name", &self.name()])
            .status();
        drop(clean);
    }
}

/// `carrick` in a namespace.
fn carrick(netns: &Namespace) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.path().display()));
    command.arg(Lab::binary()).stdin(Stdio::null());
    command
}

fn vip() -> SocketAddr {
    format!("{VIP}:5001").parse().unwrap()
}

fn loopback(netns: &Namespace) -> String {
    let output = Command::new("ip")
        .args(["-n", netns.name(), "address", "show", "lo"])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Servers that unwrap packets, and something that answers on each.
fn serve(world: &mut World, mode: &str) -> Vec<Server> {
    let count = world.site.servers.len();
    for number in 1..=count {
        let args = [
            "lb",
            "server",
            "--interface",
            "eth0",
            "--vip",
            VIP,
            "--mode",
            mode,
        ];
        world.start(number, &args);
    }
    world.until("servers hold the VIP", |world| {
        world
            .site
            .servers
            .iter()
            .all(|server| loopback(server).contains(VIP))
            && world.log().matches("serving").count() >= count
    });
    let servers = (1..).zip(&world.site.servers);
    let servers = servers.map(|(n, server)| Server::start(server, &format!("s{n}"), &[vip()]));
    servers.collect()
}

#[test]
fn connections_outlive_a_balancer_that_is_killed_and_started_again() {
    for mode in ["ipip", "gre", "gue"] {
        let mut world = World::new(2);
        world.write("ebpf", mode, &[1, 1]);
        let servers = serve(&mut world, mode);
        let balancer = world.start_balancer();
        let open = |world: &World| Held::open(&world.site.client, None, vip()).unwrap();
        let mut held: Vec<_> = (0..10).map(|_| open(&world)).collect();
        let first: Vec<_> = held.iter().map(|one| one.first.server.clone()).collect();
        assert_eq!(
            first.iter().filter(|name| *name == "s1").count(),
            5,
            "{mode}"
        );

        world.signal(balancer, Signal::SIGKILL);
        let still = |held: &mut [Held]| -> Vec<_> {
            held.iter_mut()
                .map(|one| one.again().unwrap().server)
                .collect()
        };
        assert_eq!(still(&mut held), first, "{mode}: nobody in control");
        // The file changes while nobody looks: s1 is drained.
        world.write("ebpf", mode, &[0, 1]);
        let balancer = world.start_balancer();
        assert_eq!(still(&mut held), first, "{mode}: somebody else in control");
        assert!((0..6).all(|_| open(&world).first.server == "s2"), "{mode}");

        assert_eq!(
            world.signal(balancer, Signal::SIGTERM),
            Some(0),
            "{}",
            world.log()
        );
        assert!(!world.is_left(), "{mode}");
        drop((held, servers));
    }
}

#[test]
fn a_changed_file_is_applied_and_a_broken_one_changes_nothing() {
    let mut world = World::new(2);
    let file = world.write("nftables", "{ name: nat }", &[1, 1]);
    let balancer = world.start_balancer();
    assert_eq!(world.weights(), [1, 1]);
    world.write("nftables", "{ name: nat }", &[3, 0]);
    world.until("the weights are applied", |world| world.weights() == [3, 0]);

    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("weight: 3", "weight: many")).unwrap();
    let told = r#"services.web.servers.s1.weight: \"many\" is not a number of 0 to 65535"#;
    world.until("the mistake is told", |world| world.log().contains(told));
    assert_eq!(world.weights(), [3, 0]);
    assert_eq!(world.signal(balancer, Signal::SIGTERM), Some(0));
    assert!(!world.is_left());
}

#[test]
fn clean_removes_what_a_killed_balancer_left() {
    for dataplane in ["ebpf", "nftables"] {
        let mut world = World::new(1);
        world.write(dataplane, "{ name: nat }", &[1]);
        let at = "10.1.1.2:5001".parse().unwrap();
        let server = Server::start(&world.site.servers[0], "s1", &[at]);
        let balancer = world.start_balancer();
        world.signal(balancer, Signal::SIGKILL);
        assert!(world.is_left(), "{dataplane}");
        let name = world.name();
        let cleaned = carrick(&world.site.balancer)
            .args(["lb", "clean", "--name", &name])
            .output();
        let Output { status, stderr, .. } = cleaned.unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        assert!(!world.is_left(), "{dataplane}");
        // The kernel detaches a program some moments after its pin is gone.
        world.until("nobody answers", |world| {
            ask(&world.site.client, vip()).is_err()
        });
        drop(server);
    }
}

#[test]
fn what_a_killed_server_left_goes_with_the_next() {
    let mut world = World::new(1);
    let before = loopback(&world.site.servers[0]);
    let start = |world: &mut World, vip: &str, lines: usize| {
        let program = world.start(1, &["lb", "server", "--interface", "eth0", "--vip", vip]);
        world.until("the server serves", |world| {
            world.log().matches("serving").count() == lines
        });
        program
    };
    let killed = start(&mut world, "192.0.2.77", 1);
    world.signal(killed, Signal::SIGKILL);
    assert!(loopback(&world.site.servers[0]).contains("192.0.2.77/32"));
    let next = start(&mut world, "192.0.2.78", 2);
    let held = loopback(&world.site.servers[0]);
    assert!(
        held.contains("192.0.2.78/32") && !held.contains("192.0.2.77/32"),
        "{held}"
    );
    assert_eq!(
        world.signal(next, Signal::SIGTERM),
        Some(0),
        "{}",
        world.log()
    );
    assert_eq!(loopback(&world.site.servers[0]), before);
}

#[test]
fn a_plain_user_gets_a_clear_word() {
    let world = World::new(1);
    let file = world.write("auto", "l2", &[1]);
    // Where nobody may run it, too; by another program, since a file that this
    // process still writes cannot be run.
    let binary = world.path("carrick");
    let copied = Command::new("cp").arg(Lab::binary()).arg(&binary).status();
    assert!(copied.unwrap().success());
    let run = |args: &[&str]| {
        let output = Command::new(&binary)
            .args(args)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let file = file.to_str().unwrap();
    for args in [
        &["lb", "run", "--config", file][..],
        &["lb", "server", "--interface", "eth0", "--vip", VIP],
        &["lb", "clean"],
    ] {
        let told = run(args);
        assert!(
            told.contains("CAP_NET_ADMIN") && told.lines().count() == 1,
            "{told}"
        );
    }
    let told = run(&["lb", "status", "--admin", "unix:///nowhere"]);
    assert!(told.contains("nothing listens on /nowhere"), "{told}");
}
