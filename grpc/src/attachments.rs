use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::descriptors::{Identity, identity_of, open_path};
use crate::{Descriptors, ReceiveError, Url};

/// The file descriptors that calls over one channel take along. Cheap to clone.
///
/// A channel connects when it has to, so nobody knows beforehand which
/// connection will carry a call. What is attached when a call begins goes over
/// the connection there is, and over each that is made until the
/// [`Attachment`] is dropped: one of them is the call's, and its descriptors
/// are ahead of it.
#[derive(Clone, Default)]
pub struct Attachments(Arc<Mutex<Attached>>);

#[derive(Default)]
struct Attached {
    files: HashMap<Identity, File>,
    connection: Option<Descriptors>,
}

struct File {
    file: Arc<OwnedFd>,
    calls: usize,
}

/// A file that goes along with the calls begun while this is held.
#[must_use = "dropped, the file is no longer attached"]
pub struct Attachment {
    attachments: Attachments,
    identity: Identity,
}

impl Attachments {
    /// Attaches a file to the calls that begin from now on.
    ///
    /// # Errors
    ///
    /// The file cannot be examined, or more than [`Descriptors::WAITING_MAX`]
    /// are attached or wait to be sent.
    pub fn attach(&self, file: impl Into<OwnedFd>) -> io::Result<Attachment> {
        let file = file.into();
        let identity = identity_of(&file)?;
        let mut attached = self.lock();
        if attached.files.len() >= Descriptors::WAITING_MAX
            && !attached.files.contains_key(&identity)
        {
            let full = "too many file descriptors are attached to calls";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, full));
        }
        let file = Arc::new(file);
        // Also if another call attached it: that one may be over before this
        // one begins, with the peer no longer holding what it brought.
        if let Some(connection) = &attached.connection {
            connection.queue(identity, &file)?;
        }
        let known = attached.files.entry(identity);
        known.or_insert(File { file, calls: 0 }).calls += 1;
        Ok(Attachment {
            attachments: self.clone(),
            identity,
        })
    }

    /// Attaches the file at `path` without opening it for anything, so that it
    /// may be a socket or a namespace; see [`Attachments::attach`].
    ///
    /// # Errors
    ///
    /// There is no such file, and what [`Attachments::attach`] may bring.
    pub fn attach_path(&self, path: &Path) -> io::Result<Attachment> {
        self.attach(open_path(path)?)
    }

    /// The file that an `inode://` URL of an answer names, see
    /// [`Descriptors::receive`].
    ///
    /// # Errors
    ///
    /// See [`ReceiveError`].
    pub async fn receive(&self, url: &Url) -> Result<OwnedFd, ReceiveError> {
        let connection = self.lock().connection.clone();
        match connection {
            Some(connection) => connection.receive(url).await,
            None => Err(ReceiveError::Ended(url.clone())),
        }
    }

    /// From now on calls go over this connection.
    pub(crate) fn connected(&self, connection: &Descriptors) -> io::Result<()> {
        let mut attached = self.lock();
        for (identity, File { file, .. }) in &attached.files {
            connection.queue(*identity, file)?;
        }
        attached.connection = Some(connection.clone());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Attached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attachment {
    /// The URL by which the call names it.
    #[must_use]
    pub fn url(&self) -> Url {
        Url::Inode(self.identity.0, self.identity.1)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut attached = self.attachments.lock();
        if let Some(file) = attached.files.get_mut(&self.identity) {
            file.calls -= 1;
            if file.calls == 0 {
                attached.files.remove(&self.identity);
            }
        }
    }
}

impl fmt::Debug for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachments")
            .field("files", &self.lock().files.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attachment").field(&self.url()).finish()
    }
}
