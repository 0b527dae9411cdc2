//! Namespaces that others hold the agent by a descriptor.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carrick_types::Invalid;
use nix::sys::stat::fstat;

use super::netns::{Identity, check_type, open_path};

/// The namespaces that can be opened by their inode whether or not a process
/// that is seen here is in them.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldNamespaces(Arc<Mutex<HashMap<Identity, Entry>>>);

#[derive(Debug)]
struct Entry {
    file: Arc<OwnedFd>,
    holders: usize,
}

/// Keeps one of them until it is dropped.
#[derive(Debug)]
pub(super) struct Holder {
    namespaces: HeldNamespaces,
    identity: Identity,
}

impl HeldNamespaces {
    /// Refuses what is no namespace, without having opened it.
    pub(super) fn hold(&self, file: OwnedFd) -> Result<Holder, Invalid> {
        let found = fstat(&file).map_err(io::Error::from);
        let identity = found.and_then(|found| {
            check_type(&file)?;
            Ok((found.st_dev, found.st_ino))
        });
        let identity = identity.map_err(|error| {
            let expected = "the descriptor of a network namespace";
            Invalid::new("mechanism.parameters.inodeURL", error, expected)
        })?;
        let file = Arc::new(file);
        let mut entries = self.lock();
        let entry = entries.entry(identity);
        entry.or_insert(Entry { file, holders: 0 }).holders += 1;
        Ok(Holder {
            namespaces: self.clone(),
            identity,
        })
    }

    /// Opens one anew, as what is held may have come without the right to use it.
    pub(super) fn open(&self, identity: Identity) -> Option<io::Result<File>> {
        let file = Arc::clone(&self.lock().get(&identity)?.file);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Some(open_path(&PathBuf::from(path)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut entries = self.namespaces.lock();
        if let Some(entry) = entries.get_mut(&self.identity) {
            entry.holders -= 1;
            if entry.holders == 0 {
                entries.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> File {
        let own = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_PATH)
            .open("/proc/self/ns/net");
        own.unwrap()
    }

    fn identity(file: &File) -> Identity {
        let found = file.metadata().unwrap();
        (found.dev(), found.ino())
    }

    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

    #[test]
    fn a_namespace_is_found_by_its_inode_as_long_as_somebody_holds_it() {
        let (held, identity) = (HeldNamespaces::default(), identity(&own()));
        assert!(held.open(identity).is_none());
        let holders = [(); 2].map(|()| held.hold(own().into()).unwrap());
        for holder in holders {
            let opened = held.open(identity).unwrap().unwrap();
            assert_eq!(super::tests::identity(&opened), identity);
            drop(holder);
        }
        assert!(held.open(identity).is_none());
    }

    /// Guards `check_type`: a client must not have the agent open its files.
    #[test]
    fn what_is_no_namespace_is_not_held() {
        let held = HeldNamespaces::default();
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        let error = held.hold(pipe).unwrap_err();
        assert!(error.to_string().contains("network namespace"), "{error}");
        assert!(held.lock().is_empty());
    }
}
