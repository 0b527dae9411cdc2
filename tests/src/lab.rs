use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use carrick_agent::{Agent, Change, End, Kernel, Link, LinkKind, LinkRoute, Router, Side};
use carrick_types::{ConnectionId, IfName, IpNet, Mtu};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{Namespace, admin};

/// Longest wait for anything that a test waits for, unless it says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Time for an orderly end of a program.
const GRACE: Duration = Duration::from_secs(30);

/// Nodes, pods and programs of one test, all of it real: namespaces, a fabric
/// that routes between the nodes, and the `carrick` binary. Dropped, it kills
/// the programs and removes the namespaces.
pub struct Lab {
    // Programs first: nothing they hold is removed under them.
    programs: BTreeMap<String, Program>,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<String, Namespace>,
    routers: Vec<Namespace>,
    fabric: Namespace,
    agent: Kernel,
    dir: TempDir,
}

/// A machine.
#[derive(Debug)]
pub struct Node {
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its address in the underlay, 192.0.2.n.
    pub address: Ipv4Addr,
}

struct Program {
    netns: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    child: Child,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab")
            .field("programs", &self.programs.keys())
            .finish_non_exhaustive()
    }
}

impl Lab {
    /// The fabric's address.
    const FABRIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

    /// Makes nodes that reach each other.
    ///
    /// # Panics
    ///
    /// The process is not root, or the kernel refuses.
    pub async fn new(nodes: &[&str]) -> Self {
        let fabric = Namespace::reserve("fabric");
        let agent = Kernel::new().expect("the kernel backend starts");
        let dir = tempfile::Builder::new().prefix("carrick-test-").tempdir();
        let mut lab = Self {
            programs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            routers: Vec::new(),
            fabric,
            agent,
            dir: dir.expect("a directory for the test"),
        };
        let router = Router {
            netns: lab.fabric.named(),
            addresses: vec![Self::FABRIC.into()],
            unreachable: Vec::new(),
        };
        lab.apply(vec![Change::PutRouter(router)]).await;
        for (name, number) in nodes.iter().zip(1..) {
            lab.add_node(name, Ipv4Addr::new(192, 0, 2, number)).await;
        }
        lab
    }

    async fn add_node(&mut self, name: &str, address: Ipv4Addr) {
        let namespace = Namespace::reserve(name);
        let router = Router {
            netns: namespace.named(),
            addresses: Vec::new(),
            unreachable: Vec::new(),
        };
        let cable = self.cable(name, &namespace, address.into());
        self.apply(vec![
            Change::PutRouter(router),
            Change::PutLink(Box::new(cable)),
        ])
        .await;
        self.nodes
            .insert(name.to_owned(), Node { namespace, address });
    }

    fn cable(&self, name: &str, node: &Namespace, address: IpAddr) -> Link {
        let route = |prefix, next_hop, source| LinkRoute {
            prefix,
            next_hop,
            source,
        };
        let fabric = IpAddr::from(Self::FABRIC);
        let number = self.nodes.len();
        Link {
            id: ConnectionId::new(format!("cable-{name}")).expect("a node has a name"),
            side: Side::Endpoint,
            owner: "lab".into(),
            mtu: Mtu::ETHERNET,
            near: End {
                netns: self.fabric.named(),
                name: IfName::new(format!("node{number}")).expect("the name is short"),
                addresses: Vec::new(),
                routes: vec![route(address.into(), None, Some(fabric))],
            },
            neighbors: vec![address],
            kind: LinkKind::Veth {
                far: End {
                    netns: node.named(),
                    name: IfName::new("eth0").expect("the name is short"),
                    addresses: vec![IpNet::from(address)],
                    routes: vec![
                        route(fabric.into(), None, Some(address)),
                        route(
                            "192.0.2.0/24".parse().expect("it is a prefix"),
                            Some(fabric),
                            Some(address),
                        ),
                    ],
                },
            },
        }
    }

    async fn apply(&self, changes: Vec<Change>) {
        self.agent
            .apply(changes)
            .await
            .expect("the lab can be made");
    }

    /// A node by its name.
    ///
    /// # Panics
    ///
    /// There is none.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// The namespace of a pod; made at the first call.
    pub async fn pod(&mut self, name: &str) -> &Namespace {
        if !self.pods.contains_key(name) {
            let namespace = Namespace::reserve(name);
            let netns = namespace.named();
            let router = Router {
                netns,
                addresses: Vec::new(),
                unreachable: Vec::new(),
            };
            self.apply(vec![Change::PutRouter(router)]).await;
            self.pods.insert(name.to_owned(), namespace);
        }
        &self.pods[name]
    }

    /// The namespace of a pod that was made.
    ///
    /// # Panics
    ///
    /// There is none.
    #[must_use]
    pub fn pod_there(&self, name: &str) -> &Namespace {
        &self.pods[name]
    }

    /// Sends one ICMP echo from a pod; the round trip time, if an answer came
    /// within 3 s.
    ///
    /// # Panics
    ///
    /// There is no such pod, or no way to the target.
    pub async fn ping(&self, pod: &str, source: IpAddr, target: IpAddr) -> Option<Duration> {
        let patience = Duration::from_secs(3);
        let netns = self.pod_there(pod).named();
        let answer = self.agent.ping(&netns, source, target, patience).await;
        answer.expect("an echo can be sent")
    }

    /// The namespace of a pod that was made before.
    ///
    /// # Panics
    ///
    /// There is none.
    #[must_use]
    pub fn netns(&self, pod: &str) -> &Namespace {
        &self.pods[pod]
    }

    /// The directory of sockets, state and logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The `carrick` binary: `CARRICK_BIN`, or the one beside this test.
    ///
    /// # Panics
    ///
    /// It was not built: `cargo build -p carrick`.
    #[must_use]
    pub fn binary() -> PathBuf {
        let beside = || {
            let test = std::env::current_exe().ok()?;
            Some(test.parent()?.parent()?.join("carrick"))
        };
        let binary = std::env::var_os("CARRICK_BIN")
            .map(PathBuf::from)
            .or_else(beside);
        let binary = binary.expect("the test knows where it is");
        assert!(
            binary.exists(),
            "{} is missing: cargo build -p carrick",
            binary.display()
        );
        binary
    }
}

// === impl Lab: programs ===

impl Lab {
    /// Starts a program in a namespace: `carrick <args>` with these settings, an
    /// admin socket, a state directory, and its log in the lab's directory.
    ///
    /// # Panics
    ///
    /// It cannot be started, or one of this name runs.
    pub fn start(&mut self, name: &str, netns: &Path, args: &[&str], env: &[(&str, String)]) {
        assert!(!self.programs.contains_key(name), "{name} runs already");
        let mut settings = BTreeMap::from([
            ("NSM_NAME".to_owned(), name.to_owned()),
            ("NSM_INSECURE".to_owned(), "true".to_owned()),
            ("NSM_LOG_LEVEL".to_owned(), "DEBUG".to_owned()),
            ("CARRICK_STATE_DIR".to_owned(), self.path("state")),
            (
                "CARRICK_ADMIN".to_owned(),
                format!("unix://{}", self.admin(name).display()),
            ),
        ]);
        settings.extend(
            env.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone())),
        );
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let child = self.spawn(name, netns, &args, &settings);
        let program = Program {
            netns: netns.to_owned(),
            args,
            env: settings,
            child,
        };
        self.programs.insert(name.to_owned(), program);
    }

    fn spawn(
        &self,
        name: &str,
        netns: &Path,
        args: &[String],
        env: &BTreeMap<String, String>,
    ) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file(name));
        let log = log.expect("a log can be written");
        let mut command = Command::new(Self::binary());
        command
            .args(args)
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be duplicated"))
            .stderr(log);
        crate::within_path(netns, || command.spawn()).expect("the program can be started")
    }

    /// Ends a program as an orderly shutdown does; its exit status.
    ///
    /// # Panics
    ///
    /// It does not run, or does not end.
    pub async fn stop(&mut self, name: &str) -> ExitStatus {
        let mut program = self.take(name);
        signal(&program.child, Signal::SIGTERM);
        let child = &mut program.child;
        let ended = until_within(GRACE, || child.try_wait().expect("it is our child")).await;
        ended.unwrap_or_else(|| panic!("{name} did not end; its log:\n{}", self.log(name)))
    }

    /// Ends a program as an orderly shutdown does and starts it again as it
    /// was; the exit status it ended with.
    ///
    /// # Panics
    ///
    /// It does not run, or does not end.
    pub async fn restart(&mut self, name: &str) -> ExitStatus {
        let program = self.programs.get_mut(name).expect("it was started");
        let child = &mut program.child;
        signal(child, Signal::SIGTERM);
        let ended = until_within(GRACE, || child.try_wait().expect("it is our child")).await;
        let ended = ended.unwrap_or_else(|| panic!("{name} did not end"));
        self.up(name);
        ended
    }

    /// Kills a program with SIGKILL.
    ///
    /// # Panics
    ///
    /// It does not run.
    pub fn kill(&mut self, name: &str) {
        let mut program = self.take(name);
        program.child.kill().expect("it is our child");
        program.child.wait().expect("it is our child");
    }

    /// Kills a program with SIGKILL and starts it again as it was.
    ///
    /// # Panics
    ///
    /// It does not run.
    pub fn kill_and_restart(&mut self, name: &str) {
        let mut program = self.take(name);
        program.child.kill().expect("it is our child");
        program.child.wait().expect("it is our child");
        program.child = self.spawn(name, &program.netns, &program.args, &program.env);
        self.programs.insert(name.to_owned(), program);
    }

    /// Kills a program with SIGKILL; [`Lab::up`] starts it again as it was.
    ///
    /// # Panics
    ///
    /// It was never started.
    pub fn down(&mut self, name: &str) {
        let program = self.programs.get_mut(name).expect("it was started");
        program.child.kill().expect("it is our child");
        program.child.wait().expect("it is our child");
    }

    /// Starts a program again that is [`Lab::down`].
    pub fn up(&mut self, name: &str) {
        let mut program = self.take(name);
        program.child = self.spawn(name, &program.netns, &program.args, &program.env);
        self.programs.insert(name.to_owned(), program);
    }

    /// The process id of a program.
    ///
    /// # Panics
    ///
    /// It was never started.
    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        self.programs[name].child.id()
    }

    /// Sends a signal, such as SIGSTOP, to a program.
    pub fn signal(&self, name: &str, number: Signal) {
        signal(&self.programs[name].child, number);
    }

    /// The exit status of a program that ended by itself.
    ///
    /// # Panics
    ///
    /// It was not started.
    pub fn ended(&mut self, name: &str) -> Option<ExitStatus> {
        let program = self.programs.get_mut(name).expect("it was started");
        program.child.try_wait().expect("it is our child")
    }

    fn take(&mut self, name: &str) -> Program {
        self.programs
            .remove(name)
            .unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// A path in the lab's directory.
    #[must_use]
    pub fn path(&self, file: &str) -> String {
        self.dir().join(file).display().to_string()
    }

    /// A program's admin socket.
    #[must_use]
    pub fn admin(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{name}.admin"))
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{name}.log"))
    }

    /// What a program has logged so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }
}

// === impl Lab: the programs of a mesh ===

impl Lab {
    /// Starts the registry of a domain on a node, at port 5002.
    pub fn start_registry(&mut self, domain: &str, node: &str) {
        let (netns, address) = self.place(node);
        let listen = format!("tcp://{address}:5002");
        self.start(
            &format!("registry-{domain}"),
            &netns,
            &["registry"],
            &[("NSM_LISTEN_ON", listen)],
        );
    }

    /// Starts the prefix server on a node, at port 5006; it divides `networks` into /24s (/112s).
    pub fn start_ipam(&mut self, node: &str, networks: &str) {
        let (netns, address) = self.place(node);
        let lengths = networks
            .split(',')
            .map(|net| if net.contains(':') { "112" } else { "24" });
        let env = [
            ("NSM_LISTEN_ON", format!("tcp://{address}:5006")),
            ("NSM_PREFIX", networks.to_owned()),
            (
                "NSM_CLIENT_PREFIX_LEN",
                lengths.collect::<Vec<_>>().join(","),
            ),
        ];
        self.start("ipam", &netns, &["ipam"], &env);
    }

    /// Settings of an endpoint of service `vl3` on `node`, whose registry is on
    /// `registry` and whose prefix server on `ipam` (both names of nodes).
    #[must_use]
    pub fn nse_settings(
        &mut self,
        name: &str,
        node: &str,
        registry: &str,
        ipam: &str,
    ) -> Vec<(&'static str, String)> {
        let at = |node: &str, port: u16| format!("tcp://{}:{port}", self.node(node).address);
        let (registry, ipam) = (at(registry, 5002), at(ipam, 5006));
        let (listen, tunnel) = (at(node, 0), self.node(node).address.to_string());
        let router = Namespace::reserve(name);
        let settings = vec![
            ("NSM_SERVICE_NAMES", "vl3".to_owned()),
            (
                "NSM_LISTEN_ON",
                format!("{listen},unix://{}", self.socket(name)),
            ),
            ("NSM_PREFIX_SERVER_URL", ipam),
            ("CARRICK_REGISTRY_URL", registry),
            ("CARRICK_TUNNEL_IP", tunnel),
            ("CARRICK_ROUTER", router.name().to_owned()),
            ("NODE_NAME", node.to_owned()),
        ];
        self.routers.push(router);
        settings
    }

    /// Starts an endpoint with [`Lab::nse_settings`] and `more` on top of them.
    pub fn start_nse(
        &mut self,
        name: &str,
        node: &str,
        registry: &str,
        ipam: &str,
        more: &[(&str, String)],
    ) {
        let (netns, _) = self.place(node);
        let mut settings: Vec<(&str, String)> = self.nse_settings(name, node, registry, ipam);
        settings.extend_from_slice(more);
        self.start(name, &netns, &["nse"], &settings);
    }

    /// The router namespace of an endpoint that was started here.
    ///
    /// # Panics
    ///
    /// There is none.
    #[must_use]
    pub fn router(&self, nse: &str) -> &Namespace {
        let suffix = format!("-{nse}");
        let router = self
            .routers
            .iter()
            .rev()
            .find(|router| router.name().ends_with(&suffix));
        router.unwrap_or_else(|| panic!("{nse} has no router"))
    }

    /// The unix socket of an endpoint.
    #[must_use]
    pub fn socket(&self, nse: &str) -> String {
        self.path(&format!("{nse}.sock"))
    }

    /// Starts the client `nsc-<pod>` in a pod of `node`, with an endpoint of that node.
    pub async fn start_nsc(&mut self, pod: &str, node: &str, nse: &str, more: &[(&str, String)]) {
        let netns = self.pod(pod).await.path();
        let mut settings = vec![
            ("NSM_CONNECT_TO", format!("unix://{}", self.socket(nse))),
            ("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1".to_owned()),
            ("NODE_NAME", node.to_owned()),
            ("POD_NAME", pod.to_owned()),
        ];
        settings.extend_from_slice(more);
        self.start(&format!("nsc-{pod}"), &netns, &["nsc"], &settings);
    }

    fn place(&self, node: &str) -> (PathBuf, Ipv4Addr) {
        let node = self.node(node);
        (node.namespace.path(), node.address)
    }

    /// What a program says of itself under `/status`; `None` if it does not answer.
    pub async fn status(&self, name: &str) -> Option<Value> {
        let (_, body) = admin::get(&self.admin(name), "/status").await.ok()?;
        serde_json::from_str(&body).ok()
    }

    /// What a program says under `/metrics`.
    pub async fn metrics(&self, name: &str) -> Option<String> {
        Some(admin::get(&self.admin(name), "/metrics").await.ok()?.1)
    }

    /// Whether a program is ready.
    pub async fn is_ready(&self, name: &str) -> bool {
        admin::get(&self.admin(name), "/readyz")
            .await
            .is_ok_and(|(code, _)| code == 200)
    }

    /// Waits until a program is ready.
    ///
    /// # Panics
    ///
    /// It is not, within [`PATIENCE`].
    pub async fn ready(&self, name: &str) {
        self.wait(&format!("{name} is ready"), async || {
            self.is_ready(name).await.then_some(())
        })
        .await;
    }

    /// Waits until an endpoint has `count` links that work.
    pub async fn linked(&self, nse: &str, count: usize) {
        self.wait(&format!("{nse} has {count} links"), async || {
            let status = self.status(nse).await?;
            let peers = status["peers"].as_array()?;
            let linked = peers
                .iter()
                .filter(|peer| peer["state"] == "linked")
                .count();
            (linked == count).then_some(())
        })
        .await;
    }

    /// Waits until a pod's client is up; its first address.
    pub async fn address(&self, pod: &str) -> IpAddr {
        self.addresses(pod).await[0]
    }

    /// Waits until a pod's client is up; its addresses.
    pub async fn addresses(&self, pod: &str) -> Vec<IpAddr> {
        self.wait(&format!("{pod} has an address"), async || {
            let status = self.status(&format!("nsc-{pod}")).await?;
            let connection = &status["connections"][0];
            let up = connection["state"] == "Up";
            let addresses = connection["src_addrs"].as_array().filter(|_| up)?;
            let addresses: Option<Vec<IpAddr>> = addresses
                .iter()
                .map(|net| net.as_str()?.split('/').next()?.parse().ok())
                .collect();
            addresses.filter(|addresses| !addresses.is_empty())
        })
        .await
    }

    /// Waits until `look` finds something.
    ///
    /// # Panics
    ///
    /// It does not, within [`PATIENCE`]; the logs of all programs are told.
    pub async fn wait<T>(&self, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
        self.wait_within(PATIENCE, what, look).await
    }

    /// The same with another patience.
    ///
    /// # Panics
    ///
    /// It does not, within `patience`; the logs of all programs are told.
    pub async fn wait_within<T>(
        &self,
        patience: Duration,
        what: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let mut tick = ticks();
        let end = Instant::now() + patience;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(
                Instant::now() < end,
                "not within {patience:?}: {what}\n{}",
                self.logs()
            );
            tick.tick().await;
        }
    }

    fn logs(&self) -> String {
        let logs = self.programs.keys().map(|name| {
            let log = self.log(name);
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n");
            format!("--- {name}\n{tail}\n")
        });
        logs.collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for program in self.programs.values_mut() {
            // It may have ended already; what counts is that it is gone.
            let _ = program.child.kill();
            let _ = program.child.wait();
        }
    }
}

fn signal(child: &Child, number: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id is positive");
    kill(Pid::from_raw(pid), number).expect("it is our child");
}

/// How often a condition of another process is looked at.
fn ticks() -> tokio::time::Interval {
    let mut tick = interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Looks until there is something, for at most `patience`.
pub async fn until_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut tick = ticks();
    let end = Instant::now() + patience;
    loop {
        match look() {
            Some(found) => return Some(found),
            None if Instant::now() >= end => return None,
            None => tick.tick().await,
        };
    }
}
