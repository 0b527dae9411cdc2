//! `carrick lb run` as a process.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use carrick_tests::balancer::{Family, Plane, Site, ask};
use carrick_tests::{Lab, admin};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{SOON, StopAtEnd, ask_on, asker, broken, hold, place, start, wait_for};

/// A running balancer, killed when it is dropped.
struct Program(Child);

impl Program {
    fn start(plane: Plane, site: &Site, dir: &Path) -> Self {
        let child = site.balancer.within(|| {
            let mut command = Command::new(Lab::binary());
            command.args(["lb", "run", "--dataplane", plane.name()]);
            command.args(["--hook", plane.hook(), "--config"]);
            command.arg(dir.join("lb.yaml")).current_dir(dir);
            let log = std::fs::File::options();
            let log = log.clone().create(true).append(true).open(dir.join("log"));
            command.stdout(Stdio::null()).stderr(log.unwrap());
            command.spawn().unwrap()
        });
        let program = Self(child);
        let socket = dir.join("admin");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let end = Instant::now() + SOON;
        while !runtime
            .block_on(admin::get(&socket, "/readyz"))
            .is_ok_and(|(code, _)| code == 200)
        {
            let log = || std::fs::read_to_string(dir.join("log")).unwrap();
            assert!(Instant::now() < end, "it is not ready: {}", log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        program
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Ends it; whether it ended well.
    fn end(mut self, signal: Signal) -> bool {
        self.signal(signal);
        self.0.wait().unwrap().success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes the file of a service with these weights.
fn write(dir: &Path, mode: &str, weights: &[u16]) {
    let vip = Family::V4.vip();
    let admin = dir.join("admin");
    let name = dir.file_name().unwrap().to_str().unwrap();
    let mut file = format!(
        "balancer:\n  name: {name}\n  interfaces: [client, s1, s2, s3]\n  admin: unix://{}\n\
         services:\n  - name: web\n    vips: [{vip}]\n    mode: {mode}\n    servers:\n",
        admin.display()
    );
    for (number, weight) in (1..).zip(weights) {
        let address = Family::V4.server(number);
        let _ = writeln!(
            file,
            "      - {{ id: s{number}, address: {address}, weight: {weight} }}"
        );
    }
    // In one step, so that no half of it is ever read.
    let new = dir.join("new.yaml");
    std::fs::write(&new, file).unwrap();
    std::fs::rename(new, dir.join("lb.yaml")).unwrap();
}

on! { Nftables:
    fn a_balancer_that_is_killed_loses_no_packet_and_goes_on_where_it_was(plane) {
        for mode in ["nat", "l2"] {
            let site = Site::new(3);
            let _servers = start(&site, Family::V4);
            let dir = tempfile::Builder::new().prefix("carrick-test-").tempdir().unwrap();
            write(dir.path(), mode, &[1, 1, 1]);
            let program = Program::start(plane, &site, dir.path());
            let mut held = hold(&site, 9);
            let socket = asker(&site);
            let (asked, stop) = (AtomicU32::new(0), AtomicBool::new(false));
            let go_on = || {
                let so_far = asked.load(Ordering::Relaxed);
                wait_for("packets go on", || asked.load(Ordering::Relaxed) > so_far + 10);
            };
            std::thread::scope(|scope| {
                let at_end = StopAtEnd(&stop);
                let asking = scope.spawn(|| ask_on(&socket, &asked, &stop));
                go_on();
                program.end(Signal::SIGKILL);
                go_on();
                assert_eq!(broken(&mut held), 0);
                held.extend(hold(&site, 3));
                let program = Program::start(plane, &site, dir.path());
                go_on();
                assert_eq!(broken(&mut held), 0);

                // A file that changes is read again, under traffic.
                write(dir.path(), mode, &[1, 1, 0]);
                program.signal(Signal::SIGHUP);
                wait_for("the third server takes no new flows", || {
                    let ask = || ask(&site.client, place(Family::V4)).unwrap().server;
                    (0..6).all(|_| ask() != "s3")
                });
                assert_eq!(broken(&mut held), 0);
                go_on();
                drop(at_end);
                assert_eq!(asking.join().unwrap(), 0, "packets lost");
                let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
                assert!(program.end(Signal::SIGTERM), "{log}");
            });
            let left = plane.left_in(&site.balancer);
            assert!(left.is_empty(), "left over: {left:?}");
        }
    }
}
