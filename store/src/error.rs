use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{DatabaseError, StorageError};

/// What stands in errors in place of the path of a store in memory.
pub(crate) const IN_MEMORY: &str = "(in memory)";

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the file open.
    #[error(
        "the store {} is in use by another process; stop that one, or give this one a file of its own",
        path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },

    /// The file or a directory above it could not be created.
    #[error("cannot create the store {}; its directory must exist or be creatable, and be writable", path.display())]
    Create {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// The file is not a store, or is damaged beyond repair.
    #[error(
        "the store {} is damaged or not a store; put back a copy, or move it away to start with an empty one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<redb::Error>,
    },

    /// A record is there, but does not read as the type of its table: it was
    /// written by another version, or by hand.
    #[error("record {key:?} of table {table} in the store {} does not read as {expected}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// The record.
        key: String,
        /// The Rust type the table holds.
        expected: &'static str,
        /// Where in the JSON, and what was expected there.
        #[source]
        source: serde_json::Error,
    },

    /// A value has no JSON form, such as a map with keys that are not text.
    #[error("record {key:?} for table {table} has no JSON form")]
    Encode {
        /// The table.
        table: &'static str,
        /// The record.
        key: String,
        /// What JSON cannot say.
        #[source]
        source: serde_json::Error,
    },

    /// The file exists but cannot be opened.
    #[error("cannot open the store {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: Box<redb::Error>,
    },

    /// The file could not be read.
    #[error("cannot read the store {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: Box<redb::Error>,
    },

    /// The writer thread is gone, as it panicked or the store is being dropped.
    #[error("the writer of the store {} has stopped; the process must be started again", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },

    /// The writer thread could not be started.
    #[error("cannot start the writer thread of the store {}", path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// A key or a value is longer than a record may be.
    #[error("record {key:?} for table {table} has a {what} of {length} bytes, more than {limit}")]
    TooLong {
        /// The table.
        table: &'static str,
        /// The record; the beginning of its key, if that is what is too long.
        key: String,
        /// `"key"` or `"value"`.
        what: &'static str,
        /// How long it is, in bytes.
        length: usize,
        /// How long it may be, in bytes.
        limit: usize,
    },

    /// A transaction failed; nothing of it is in the file.
    #[error(
        "cannot write to the store {}; it takes no further writes until the process is started again",
        path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said; shared by all whose records were in
        /// the transaction.
        #[source]
        source: Arc<redb::Error>,
    },
}

impl Error {
    pub(crate) fn opening(path: &Path, error: DatabaseError) -> Self {
        let path = path.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::Busy { path },
            DatabaseError::Storage(StorageError::Io(e)) if !names_damage(&e) => Self::Open {
                path,
                source: Box::new(e.into()),
            },
            damage => Self::Damaged {
                path,
                source: Box::new(damage.into()),
            },
        }
    }

    pub(crate) fn reading(path: Option<&Path>, error: redb::Error) -> Self {
        let path = shown(path);
        let source = Box::new(error);
        match *source {
            redb::Error::Corrupted(_) => Self::Damaged { path, source },
            _ => Self::Read { path, source },
        }
    }
}

/// redb says with these two that the bytes are wrong, and not the disk.
fn names_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof)
}

pub(crate) fn shown(path: Option<&Path>) -> PathBuf {
    path.unwrap_or(Path::new(IN_MEMORY)).to_owned()
}
