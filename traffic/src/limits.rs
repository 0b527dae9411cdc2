//! Limits of this process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Error;

/// Files that a program has open besides its sockets.
const OTHERS: u64 = 64;

/// Raises the limit of open files so that `sockets` fit, as far as the hard limit, or beyond it if the process may.
///
/// # Errors
///
/// [`Error::Files`] if so many are not allowed.
pub fn allow_open_files(sockets: u64) -> Result<(), Error> {
    let needed = sockets + OTHERS;
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| Error::Limit(error.into()))?;
    if soft >= needed {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed));
    raised.map_err(|_| Error::Files {
        needed,
        allowed: hard,
    })
}
