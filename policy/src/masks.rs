use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::native::{EXTENSION, FOLDER};
use crate::{Native, RegoError};

/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Most files and folders that are looked at for one mask.
const ENTRIES_MAX: usize = 10_000;

/// Why there are no policies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file or folder cannot be read.
    #[error("cannot read {0}")]
    File(PathBuf, #[source] io::Error),
    /// A file is too large.
    #[error("{0} has more than {FILE_MAX} bytes, which is too large for a policy")]
    Large(PathBuf),
    /// The mask is neither a path nor a regular expression.
    #[error("policy mask `{0}` is no regular expression")]
    Mask(String, #[source] regex::Error),
    /// The mask means no file and none of NSM's own policies.
    #[error(
        "policy mask `{0}` means nothing: give the path of a file, a regular expression for whole \
         paths such as `etc/nsm/opa/common/.*.rego`, or nothing at all for no policies"
    )]
    Nothing(String),
    /// A file is no policy.
    #[error("{0} is no policy")]
    Rego(String, #[source] RegoError),
    /// There is more below the mask's folder than can be looked through.
    #[error(
        "policy mask `{0}` has more than {ENTRIES_MAX} files in its folder: name a smaller one"
    )]
    TooMany(String),
}

/// What stands behind a path.
#[derive(Debug)]
pub(crate) enum Found {
    File(String),
    Native(Native),
}

/// What a mask means, by path. A file wins over the native policy of its path.
pub(crate) fn find(mask: &str, folder: &Path) -> Result<BTreeMap<String, Found>, LoadError> {
    let file = folder.join(mask);
    if file.is_file() {
        return Ok(BTreeMap::from([(
            mask.to_owned(),
            Found::File(read(&file)?),
        )]));
    }
    let regex = Regex::new(&format!("^(?:{mask})$"))
        .map_err(|error| LoadError::Mask(mask.to_owned(), error))?;
    let native = Native::ALL
        .into_iter()
        .map(|native| (native.path(), native));
    let mut found: BTreeMap<String, Found> = native
        .filter(|(path, _)| regex.is_match(path))
        .map(|(path, native)| (path, Found::Native(native)))
        .collect();
    let parent = mask.rsplit_once('/').map_or("", |(parent, _)| parent);
    for (path, file) in files(mask, parent, folder)? {
        if regex.is_match(&path) {
            found.insert(path, Found::File(read(&file)?));
        }
    }
    if found.is_empty() {
        return Err(LoadError::Nothing(mask.to_owned()));
    }
    Ok(found)
}

/// Files below a folder, also those that are links, by the path that masks
/// mean. Folders of which the name begins with two dots are not entered: in
/// them a mounted `ConfigMap` has its files once more.
fn files(mask: &str, parent: &str, folder: &Path) -> Result<Vec<(String, PathBuf)>, LoadError> {
    let (mut files, mut seen) = (Vec::new(), 0);
    let mut folders = vec![(parent.to_owned(), folder.join(parent))];
    while let Some((path, at)) = folders.pop() {
        let failed = |error| LoadError::File(at.clone(), error);
        let entries = match fs::read_dir(&at) {
            Err(error) if is_nothing(&error) => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            seen += 1;
            if seen > ENTRIES_MAX {
                return Err(LoadError::TooMany(mask.to_owned()));
            }
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let separator = if path.is_empty() || path.ends_with('/') {
                ""
            } else {
                "/"
            };
            let path = format!("{path}{separator}{name}");
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !name.starts_with("..") {
                folders.push((path, entry.path()));
            } else if entry.path().is_file() {
                files.push((path, entry.path()));
            }
        }
    }
    Ok(files)
}

/// There is no such folder, which is no mistake: the policies are native.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read(path: &Path) -> Result<String, LoadError> {
    let failed = |error| LoadError::File(path.to_owned(), error);
    if fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        return Err(LoadError::Large(path.to_owned()));
    }
    fs::read_to_string(path).map_err(failed)
}

/// A path without what NSM's own have in common.
pub(crate) fn name(path: &str) -> String {
    let name = path
        .strip_prefix(FOLDER)
        .and_then(|name| name.strip_suffix(EXTENSION));
    name.unwrap_or(path).to_owned()
}
