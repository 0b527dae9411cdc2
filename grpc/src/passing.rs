use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tracing::warn;

use crate::Descriptors;

/// Most descriptors of one read, and of one write (grpcfd `maxFDCount`). What
/// comes with more loses the rest, which is closed.
const AT_ONCE: usize = 64;

/// A unix stream with the file descriptors that travel beside its bytes.
///
/// As grpcfd does it: each descriptor goes with one byte of its own, before
/// the rest of what is written; each read has room for 64.
#[derive(Debug)]
pub(crate) struct PassingStream {
    stream: UnixStream,
    descriptors: Descriptors,
}

impl PassingStream {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            descriptors: Descriptors::new(),
        }
    }

    pub(crate) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    pub(crate) fn peer_cred(&self) -> io::Result<UCred> {
        self.stream.peer_cred()
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut bytes = [IoSliceMut::new(bytes)];
        let received = recvmsg(&self.stream, &mut bytes, &mut control, flags)?;
        let files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        self.descriptors.take(files.flatten().take(AT_ONCE));
        Ok(received.bytes)
    }

    /// Sends the first bytes with a descriptor each; how many were sent.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let most = bytes.len().min(AT_ONCE);
        let mut sent = 0;
        while sent < most
            && let Some(file) = self.descriptors.next()
        {
            match self.send_one(&bytes[sent..=sent], &file) {
                Ok(()) => sent += 1,
                Err(error) if is_about_descriptor(&error) => {
                    warn!(%error, "cannot send a file descriptor; the peer will miss it");
                }
                Err(_) if sent > 0 => break, // the next call meets it again
                Err(error) => return Err(error),
            }
            self.descriptors.sent();
        }
        Ok(sent)
    }

    fn send_one(&self, byte: &[u8], file: &OwnedFd) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.stream, &[IoSlice::new(byte)], &mut control, flags)?;
        Ok(())
    }

    /// How many bytes went with a descriptor; `None` if there is none to send.
    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<Option<usize>>> {
        while !bytes.is_empty() && self.descriptors.next().is_some() {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || self.send(bytes)) {
                Ok(0) => {}
                Ok(sent) => return Poll::Ready(Ok(Some(sent))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(None))
    }
}

/// The bytes can go without it: too many descriptors are on their way for this
/// user, as its peers do not read (`ETOOMANYREFS`), or it is none that may go.
fn is_about_descriptor(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let about = [Errno::BADF, Errno::INVAL, Errno::TOOMANYREFS];
    about
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Drop for PassingStream {
    fn drop(&mut self) {
        // Handles may live on; what is left must not.
        self.descriptors.end();
    }
}

impl AsyncRead for PassingStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let receive = || self.receive(buffer.initialize_unfilled());
            match self.stream.try_io(Interest::READABLE, receive) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for PassingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_send(cx, bytes))? {
            // The rest comes with the next call, behind what still has to go.
            Some(sent) => Poll::Ready(Ok(sent)),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        let first: &[u8] = first.map_or(&[], |slice| slice);
        match ready!(self.poll_send(cx, first))? {
            Some(sent) => Poll::Ready(Ok(sent)),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
