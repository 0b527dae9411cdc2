//! A client and servers behind nftables, which balances as it is told.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use carrick_tests::{Lab, Namespace, until_within};

/// A client's namespace and that of the servers, which has ten addresses, 10.1.0.1 to 10.1.0.10, and the VIPs 10.0.0.1
/// and `fd00:10::1`.
pub(crate) struct Site {
    pub(crate) client: Namespace,
    pub(crate) servers: Namespace,
}

impl Site {
    pub(crate) fn new() -> Self {
        // Neighbours are known: discovery on a link that has just come up may fail.
        let (client, servers) = (Namespace::new("client"), Namespace::new("servers"));
        let addresses = (1..=10).map(|n| format!("address add 10.1.0.{n}/32 dev lo\n"));
        let addresses: String = addresses.collect();
        let far = client.name().to_owned();
        ip(
            &servers,
            &format!(
                "link set lo up\n\
                 link add s0 address 02:00:00:00:00:01 type veth peer name c0 address 02:00:00:00:00:02 netns {far}\n\
                 address add 198.18.0.254/24 dev s0\n\
                 address add fd00:18::254/64 dev s0 nodad\n\
                 link set s0 up\n\
                 neighbor add fd00:18::1 dev s0 lladdr 02:00:00:00:00:02\n\
                 address add 10.0.0.1/32 dev lo\n\
                 address add fd00:10::1/128 dev lo nodad\n\
                 {addresses}\
                 route add 20.0.0.0/16 via 198.18.0.1\n\
                 route add fd00:20::/64 via fd00:18::1\n"
            ),
        );
        ip(
            &client,
            "link set lo up\n\
             address add 198.18.0.1/24 dev c0\n\
             address add fd00:18::1/64 dev c0 nodad\n\
             link set c0 up\n\
             neighbor add fd00:18::254 dev c0 lladdr 02:00:00:00:00:01\n\
             route add default via 198.18.0.254\n\
             route add default via fd00:18::254\n\
             route add local 20.0.0.0/16 dev lo\n\
             route add local fd00:20::/64 dev lo\n",
        );
        Self { client, servers }
    }

    /// Connections to 10.0.0.1:5001 go to `count` of the servers in turn.
    pub(crate) fn balance_in_turn(&self, count: usize) {
        let map: Vec<_> = (0..count)
            .map(|n| format!("{n} : 10.1.0.{}", n + 1))
            .collect();
        let rules = format!(
            "table ip balance {{\n\
             chain prerouting {{\n\
             type nat hook prerouting priority -100;\n\
             ip daddr 10.0.0.1 tcp dport 5001 dnat to numgen inc mod {count} map {{ {} }}\n}}\n}}\n",
            map.join(", ")
        );
        feed(&self.servers, "nft", &["-f", "-"], &rules);
    }

    /// Starts a server that listens when this returns.
    pub(crate) async fn serve(&self, args: &[&str]) -> Running {
        let child = self.servers.within(|| {
            let mut command = Command::new(Lab::binary());
            command.args(["traffic", "server"]).args(args);
            command.stderr(Stdio::null()).spawn().unwrap()
        });
        let listening = || {
            let sockets = self
                .servers
                .within(|| std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
            // Port 5001, state listen.
            sockets
                .lines()
                .any(|line| line.contains(":1389 00000000:0000 0A"))
                .then_some(())
        };
        let up = until_within(Duration::from_secs(20), listening).await;
        up.expect("the server listens");
        Running(child)
    }

    /// Runs `carrick traffic` where the client is.
    pub(crate) fn traffic(&self, args: &[&str]) -> Output {
        let mut command = Command::new(Lab::binary());
        command.arg("traffic").args(args);
        self.client.within(|| command.output().unwrap())
    }
}

/// A program that is killed at the end.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn ip(namespace: &Namespace, batch: &str) {
    feed(namespace, "ip", &["-batch", "-"], batch);
}

fn feed(namespace: &Namespace, program: &str, args: &[&str], input: &str) {
    let status = namespace.within(|| {
        let mut command = Command::new(program);
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .spawn()
            .expect("the program is installed");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait().unwrap()
    });
    assert!(status.success(), "{program}: {input}");
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}
