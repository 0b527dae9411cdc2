//! Network namespaces: made, pinned, entered, found and let go.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{fstat, stat};
use nix::sys::statfs::{FsType, fstatfs, statfs};

use super::held::HeldNamespaces;
use super::netlink::Socket;
use crate::{Error, Netns};

/// Where `ip netns` keeps namespaces by name.
const FOLDER: &str = "/run/netns";

/// `NSFS_MAGIC` of the kernel's `magic.h`.
const NSFS: FsType = FsType(0x6e73_6673);

/// Namespaces kept open between batches, two descriptors each.
const KEPT_MAX: usize = 128;

/// An open namespace and a socket in it.
pub(super) struct Handle {
    pub(super) file: File,
    pub(super) socket: Socket,
    identity: Identity,
    last_use: u64,
}

/// Device and inode: what tells namespaces apart.
pub(super) type Identity = (u64, u64);

/// The namespaces that are open.
///
/// The agent's own and those it has named stay open over batches, as many as
/// 128; those of others are closed after each, since an open descriptor would
/// keep a dead client's namespace, and its links, alive.
pub(super) struct Namespaces {
    open: HashMap<Netns, Handle>,
    held: HeldNamespaces,
    uses: u64,
}

impl Namespaces {
    /// Takes the calling thread's namespace as [`Netns::Own`], and finds others
    /// among those `held`.
    pub(super) fn new(held: HeldNamespaces) -> io::Result<Self> {
        Ok(Self {
            held,
            ..Self::of(open_path(Path::new("/proc/thread-self/ns/net"))?)?
        })
    }

    /// Takes `file` as [`Netns::Own`].
    pub(super) fn of(file: File) -> io::Result<Self> {
        let own = Handle::new(file)?;
        Ok(Self {
            open: HashMap::from([(Netns::Own, own)]),
            held: HeldNamespaces::default(),
            uses: 0,
        })
    }

    /// Opens a namespace, unless it is open; `None` if there is none.
    pub(super) fn find(&mut self, netns: &Netns) -> Result<Option<&mut Handle>, Error> {
        match self.handle(netns) {
            Ok(()) => Ok(self.open.get_mut(netns)),
            Err(e) if is_gone(&e) => Ok(None),
            Err(source) => Err(Error::NoNetns {
                netns: netns.clone(),
                source,
            }),
        }
    }

    /// Opens a namespace, which must be there, unless it is open.
    pub(super) fn enter(&mut self, netns: &Netns) -> Result<&mut Handle, Error> {
        self.find(netns)?.ok_or_else(|| Error::NoNetns {
            netns: netns.clone(),
            source: io::Error::from(io::ErrorKind::NotFound),
        })
    }

    /// Opens a named namespace and makes it if it is not there; tells whether
    /// it was made.
    pub(super) fn make(&mut self, name: &str) -> Result<bool, Error> {
        let netns = Netns::Named(name.to_owned());
        if self.find(&netns)?.is_some() {
            return Ok(false);
        }
        create(name).map_err(Error::kernel(format!("make {netns}")))?;
        self.enter(&netns)?;
        Ok(true)
    }

    /// Removes a named namespace; what holds it elsewhere keeps it alive
    /// without a name.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), Error> {
        let netns = Netns::Named(name.to_owned());
        self.open.remove(&netns);
        remove(name).map_err(Error::kernel(format!("remove {netns}")))
    }

    /// Closes what need not stay open.
    pub(super) fn tidy(&mut self) {
        self.open
            .retain(|netns, _| matches!(netns, Netns::Own | Netns::Named(_)));
        while self.open.len() > KEPT_MAX {
            let oldest = self
                .open
                .iter()
                .filter(|(netns, _)| **netns != Netns::Own)
                .min_by_key(|(_, handle)| handle.last_use)
                .map(|(netns, _)| netns.clone());
            match oldest {
                Some(netns) => self.open.remove(&netns),
                None => break,
            };
        }
    }

    fn handle(&mut self, netns: &Netns) -> io::Result<()> {
        self.uses += 1;
        if let Some(handle) = self.open.get_mut(netns) {
            let is_same = |now: Identity| now == handle.identity;
            if *netns == Netns::Own || identity_of(netns).is_ok_and(is_same) {
                handle.last_use = self.uses;
                return Ok(());
            }
            self.open.remove(netns);
        }
        let mut handle = Handle::new(open(netns, &self.held)?)?;
        handle.last_use = self.uses;
        self.open.insert(netns.clone(), handle);
        Ok(())
    }
}

impl Handle {
    fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let socket = within(file.as_fd(), Socket::open)??;
        Ok(Self {
            identity: (metadata.dev(), metadata.ino()),
            file,
            socket,
            last_use: 0,
        })
    }

    /// Runs `work` on a thread that is in this namespace.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        within(self.file.as_fd(), work)
    }

    /// What tells it from other namespaces.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }
}

/// Which namespace a name stands for at the moment.
pub(super) fn identity_of(netns: &Netns) -> io::Result<Identity> {
    let of = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    match netns {
        Netns::Inode(device, inode) => Ok((*device, *inode)),
        Netns::Named(name) => of(&path_of(name)),
        Netns::Own => of(Path::new("/proc/thread-self/ns/net")),
        Netns::Path(path) => of(path),
    }
}

/// Runs `work` on a thread of its own that has entered a namespace, so that no
/// other work can find itself in the wrong one.
pub(super) fn within<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, move || {
                enter(netns)?;
                Ok(work())
            })?;
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where the thread is already it needs no privilege to be.
fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    let (there, here) = (fstat(netns)?, stat("/proc/thread-self/ns/net")?);
    if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
    }
    Ok(())
}

fn path_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn open(netns: &Netns, held: &HeldNamespaces) -> io::Result<File> {
    match netns {
        Netns::Inode(device, inode) => {
            let identity = (*device, *inode);
            let held = held.open(identity);
            held.unwrap_or_else(|| open_inode(identity))
        }
        // A file without a namespace is what a crash leaves; `create` repairs it.
        Netns::Named(name) => open_path(&path_of(name)).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput => io::Error::from(io::ErrorKind::NotFound),
            _ => e,
        }),
        Netns::Own => open_path(Path::new("/proc/thread-self/ns/net")),
        Netns::Path(path) => open_path(path),
    }
}

/// Opens a namespace file. That it is one of type net is checked by the kernel
/// when it is entered.
pub(super) fn open_path(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        // The path is a client's: it may be a pipe that nobody writes to.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    check_type(&file).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    Ok(file)
}

/// Whether a file is a namespace, which also can be told of one that was not
/// opened for anything.
pub(super) fn check_type(file: &impl AsFd) -> io::Result<()> {
    if fstatfs(file)?.filesystem_type() == NSFS {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "not a namespace",
    ))
}

/// Looks through the named namespaces and those of all processes: some
/// microseconds for each.
fn open_inode(identity: Identity) -> io::Result<File> {
    let named = entries(Path::new(FOLDER));
    let processes = entries(Path::new("/proc"))
        .filter(|path| path.file_name().is_some_and(is_number))
        .map(|path| path.join("ns/net"));
    for path in named.chain(processes) {
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        if (found.dev(), found.ino()) != identity {
            continue;
        }
        // Another namespace may have come by in between.
        if let Ok(file) = open_path(&path)
            && file
                .metadata()
                .is_ok_and(|now| (now.dev(), now.ino()) == identity)
        {
            return Ok(file);
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
}

fn is_number(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// Makes a namespace and pins it under a name, as `ip netns add` does.
pub(super) fn create(name: &str) -> io::Result<()> {
    share_folder()?;
    let path = path_of(name);
    // A file that is there without being a namespace is what a crash between
    // the two steps leaves.
    OpenOptions::new()
        .read(true)
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o444)
        .open(&path)?;
    let pinned = std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || -> io::Result<()> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                bind_mount(Path::new("/proc/thread-self/ns/net"), &path)
            })?;
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if pinned.is_err() {
        let _ = fs::remove_file(&path); // what has failed is the mount
    }
    pinned
}

fn bind_mount(source: &Path, target: &Path) -> io::Result<()> {
    let none = None::<&str>;
    Ok(mount(Some(source), target, none, MsFlags::MS_BIND, none)?)
}

/// Makes the folder a shared mount, so that names put there are seen by, and can
/// be removed from, other mount namespaces.
fn share_folder() -> io::Result<()> {
    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder)?;
    let share = || {
        let none = None::<&str>;
        mount(
            none,
            folder,
            none,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            none,
        )
    };
    match share() {
        // Not a mount of its own yet.
        Err(Errno::EINVAL) => {
            bind_mount(folder, folder)?;
            Ok(share()?)
        }
        result => Ok(result?),
    }
}

/// Takes a name away, and the namespace with it if nothing else holds it.
pub(super) fn remove(name: &str) -> io::Result<()> {
    let path = path_of(name);
    // More than one mount is what two makers at the same time leave.
    while statfs(&path).is_ok_and(|found| found.filesystem_type() == NSFS) {
        umount2(&path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether a namespace is not there, as opposed to not being usable. A process
/// that has ended but was not waited for has a file that cannot be opened.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
