//! What a store holds, for people and tools: of a prefix server, of an
//! endpoint, or of both.

use std::io;
use std::path::{Path, PathBuf};

use carrick_store::Store;
use carrick_types::Prefix;
use serde::{Deserialize, Serialize};

use crate::leases::{HISTORY, LEASES, SEPARATOR};
use crate::prefixes::PREFIXES;
use crate::server::{GRANTS, GrantRecord};
use crate::{Former, Lease, StoredPrefix};

/// All that a store says about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Prefixes that a server has granted.
    pub grants: Vec<GrantEntry>,
    /// Prefixes that an endpoint was granted.
    pub prefixes: Vec<PrefixEntry>,
    /// Addresses that an endpoint has leased.
    pub leases: Vec<LeaseEntry>,
    /// What former clients of an endpoint had.
    pub history: Vec<FormerEntry>,
}

/// A prefix that a server has granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantEntry {
    /// The prefix.
    pub prefix: Prefix,
    /// Whose, since when, until when.
    #[serde(flatten)]
    pub record: GrantRecord,
}

/// A prefix that an endpoint was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixEntry {
    /// The scope of the endpoint, see [`crate::PrefixOptions::scope`].
    pub scope: String,
    /// Position of the server that granted it.
    pub server: String,
    /// The prefix.
    #[serde(flatten)]
    pub stored: StoredPrefix,
}

/// An address or extra prefix that is leased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEntry {
    /// The scope of the endpoint, see [`crate::LeaseOptions::scope`].
    pub scope: String,
    /// The address, or the extra prefix.
    pub prefix: Prefix,
    /// To whom.
    #[serde(flatten)]
    pub lease: Lease,
}

/// What a former client had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerEntry {
    /// The scope of the endpoint, see [`crate::LeaseOptions::scope`].
    pub scope: String,
    /// What and when.
    #[serde(flatten)]
    pub former: Former,
}

/// Why a store cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such file; none is made.
    #[error("there is no store at {0}")]
    Missing(PathBuf, #[source] io::Error),
    /// It cannot be opened or read. A store in use is shown by its owner.
    #[error("the store cannot be read")]
    Store(#[from] carrick_store::Error),
}

/// What the store file at `path` says; nothing in it is changed.
///
/// # Errors
///
/// See [`InspectError`]; a store that a running process has open is refused.
pub fn inspect(path: &Path) -> Result<Report, InspectError> {
    path.metadata()
        .map_err(|error| InspectError::Missing(path.to_owned(), error))?;
    Ok(report(&Store::open(path)?)?)
}

/// What an open store says.
///
/// # Errors
///
/// It cannot be read.
pub fn report(store: &Store) -> Result<Report, carrick_store::Error> {
    let mut report = Report::default();
    for (key, record) in store.table::<GrantRecord>(GRANTS).all()? {
        let prefix = key.parse().ok();
        report
            .grants
            .extend(prefix.map(|prefix| GrantEntry { prefix, record }));
    }
    for (key, prefixes) in store.table::<Vec<StoredPrefix>>(PREFIXES).all()? {
        let (scope, server) = split(&key);
        report
            .prefixes
            .extend(prefixes.into_iter().map(|stored| PrefixEntry {
                scope: scope.to_owned(),
                server: server.to_owned(),
                stored,
            }));
    }
    for (key, lease) in store.table::<Lease>(LEASES).all()? {
        let (scope, prefix) = split(&key);
        let scope = scope.to_owned();
        report
            .leases
            .extend(prefix.parse().ok().map(|prefix| LeaseEntry {
                scope,
                prefix,
                lease,
            }));
    }
    for (key, former) in store.table::<Former>(HISTORY).all()? {
        let scope = split(&key).0.to_owned();
        report.history.push(FormerEntry { scope, former });
    }
    report.grants.sort_by_key(|entry| entry.prefix);
    report
        .leases
        .sort_by(|a, b| (&a.scope, a.prefix).cmp(&(&b.scope, b.prefix)));
    Ok(report)
}

fn split(key: &str) -> (&str, &str) {
    key.split_once(SEPARATOR).unwrap_or(("", key))
}
