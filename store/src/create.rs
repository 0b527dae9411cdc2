use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind::{AlreadyExists, NotFound};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// Sees to it that there is a store at `path`.
///
/// A new one is made whole beside `path` and then linked to it: a process killed
/// in the middle would otherwise leave a file which is neither empty nor a store,
/// and which no later start could open.
pub(crate) fn ensure(path: &Path) -> Result<(), Error> {
    match path.metadata() {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == NotFound => {}
        Err(source) => return Err(failed(path, source)),
    }
    let directory = directory_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| failed(directory, e))?;

    let draft = draft_of(path);
    let made = write_empty(&draft).and_then(|()| link(&draft, path));
    // Nothing depends on the draft; one that stays is overwritten next time.
    let _ = std::fs::remove_file(&draft);
    made?;
    // The name must survive a power cut as well as the contents.
    File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(|e| failed(directory, e))
}

fn write_empty(draft: &Path) -> Result<(), Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft)
        .map_err(|e| failed(draft, e))?;
    // `mode` says nothing about a draft that was there already.
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(|e| failed(draft, e))?;
    crate::builder()
        .create_file(file)
        .map_err(|e| Error::opening(draft, e))?;
    Ok(())
}

/// Unlike a rename, a link never replaces what another process put there first.
fn link(draft: &Path, path: &Path) -> Result<(), Error> {
    match std::fs::hard_link(draft, path) {
        Err(e) if e.kind() != AlreadyExists => Err(failed(path, e)),
        _ => Ok(()),
    }
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    name.into()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Create {
        path: path.to_owned(),
        source,
    }
}
