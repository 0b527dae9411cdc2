//! What the tests with network namespaces share.
//!
//! Read first: [`Namespace`], one that ends with its test, and [`Nodes`], two
//! nodes with an underlay between them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use carrick_agent::Netns;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Uid;

pub mod admin;
pub mod balancer;
pub mod ip;
mod lab;
pub mod mesh;
mod nodes;
pub mod traffic;

pub use lab::{Lab, Node, PATIENCE, until_within};
pub use nodes::Nodes;

const FOLDER: &str = "/run/netns";

/// A network namespace with a unique name below `/run/netns`, removed when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes an empty one, its loopback device down; `hint` is part of its name.
    ///
    /// # Panics
    ///
    /// The process is not root, or the kernel refuses.
    #[must_use]
    pub fn new(hint: &str) -> Self {
        let namespace = Self::reserve(hint);
        fs::create_dir_all(FOLDER).expect("/run/netns can be made");
        let path = namespace.path();
        File::create_new(&path).expect("the name is unique");
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)?;
                let none = None::<&str>;
                let source = Some("/proc/thread-self/ns/net");
                mount(source, &path, none, MsFlags::MS_BIND, none)
            });
            worker.join().expect("the thread does not panic")
        })
        .expect("a namespace can be made and pinned");
        namespace
    }

    /// A unique name for a namespace that the code under test makes; removed when
    /// this is dropped.
    ///
    /// # Panics
    ///
    /// The process is not root.
    #[must_use]
    pub fn reserve(hint: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        require_root();
        remove_leftovers();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("carrick-test-{}-{number}-{hint}", std::process::id());
        Self { name }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// As the namespace of somebody else.
    #[must_use]
    pub fn foreign(&self) -> Netns {
        Netns::Path(self.path())
    }

    /// As one that the agent makes.
    #[must_use]
    pub fn named(&self) -> Netns {
        Netns::Named(self.name.clone())
    }

    /// Runs `work` on a thread that is in this namespace.
    ///
    /// # Panics
    ///
    /// The namespace is not there (any more), or `work` panics.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within_path(&self.path(), work)
    }
}

/// Runs `work` on a thread that is in the network namespace at `path`.
///
/// # Panics
///
/// There is no namespace, or `work` panics.
pub fn within_path<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(path).expect("the namespace is there");
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("it is a network namespace");
            work()
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = remove(&self.path());
        // Of a test that ended halfway.
        let _ = fs::remove_dir_all(Path::new("/sys/fs/bpf").join(&self.name));
    }
}

/// Removes a namespace's name; what is open in it lives on.
///
/// # Errors
///
/// There is none of that name.
pub fn remove(path: &Path) -> io::Result<()> {
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    fs::remove_file(path)
}

/// Ends a test early, with a sentence that helps.
///
/// # Panics
///
/// The process is not root.
pub fn require_root() {
    assert!(
        Uid::effective().is_root(),
        "network namespaces need root: run the tests as root, or in a user namespace \
         of your own with `unshare --map-root-user --net --mount cargo test …`"
    );
}

/// Removes what test processes left that were killed.
fn remove_leftovers() {
    static REMOVED: Once = Once::new();
    REMOVED.call_once(|| {
        for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name
                .strip_prefix("carrick-test-")
                .and_then(|rest| rest.split('-').next());
            if let Some(process) = process
                && !Path::new("/proc").join(process).exists()
            {
                let _ = remove(&entry.path());
            }
        }
    });
}
