use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The file that says where names are asked for.
///
/// It is written in place: in a pod it is a mount, which cannot be replaced, and
/// the other containers have the same.
#[derive(Clone, Debug)]
pub(super) struct ResolvConf(PathBuf);

impl ResolvConf {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn read(&self) -> io::Result<String> {
        fs::read_to_string(&self.0)
    }

    /// Writes `text`, if the file holds what was `expected` there.
    pub(super) fn replace(&self, expected: &str, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.0)?;
        let mut found = String::new();
        file.read_to_string(&mut found)?;
        if found != expected {
            return Err(io::Error::other("somebody else has changed it meanwhile"));
        }
        file.rewind()?;
        // Over what is there, never truncated first: what points to us contains
        // the former file, and is longer, so a crash loses none of it.
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        file.sync_all()
    }

    /// Whether the file is this container's, so that nobody but its processes
    /// reads it: it is mounted by itself, as container runtimes do it, and the
    /// process is in the network namespace that the container began with.
    pub(super) fn is_own(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_link("/proc/self/ns/net");
        let first = fs::read_link("/proc/1/ns/net");
        // Who may not look at the first process is in a container of several users.
        let is_first = first.is_err() || own.ok() == first.ok();
        is_first && is_mounted(&self.0, &mounts)
    }
}

/// Whether `path` is a mount of its own (proc(5), mountinfo: the fifth field).
fn is_mounted(path: &Path, mounts: &str) -> bool {
    let mut points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| point.replace("\\040", " "));
    points.any(|point| Path::new(&point) == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_mounted_is_told_from_one_that_is_not() {
        let mounts = "22 1 0:20 / / rw - overlay overlay rw\n30 22 8:1 /pods/7/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/sda rw\n";
        assert!(is_mounted(Path::new("/etc/resolv.conf"), mounts));
        assert!(!is_mounted(Path::new("/etc/hosts"), mounts));
        assert!(!is_mounted(Path::new("/etc/resolv.conf"), &mounts[..40]));
    }

    #[test]
    fn what_somebody_else_wrote_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let file = ResolvConf::new(path);
        file.replace("nameserver 192.0.2.2\n", "x").unwrap_err();
        let text = file.read().unwrap();
        file.replace(&text, "a\n").unwrap();
        assert_eq!(file.read().unwrap(), "a\n");
    }
}
