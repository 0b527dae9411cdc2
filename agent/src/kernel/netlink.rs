//! One rtnetlink socket: questions, and many changes in one system call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

/// Changes sent in one system call: their errors, about 1 KiB of socket buffer
/// each, must fit the receive buffer.
const BATCH_MAX: usize = 64;

/// Room for one answer: the kernel fills at most 32 KiB per read of a dump.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// A socket of the namespace in which it was opened, wherever it is used.
pub(super) struct Socket {
    netlink: netlink_sys::Socket,
    sequence: u32,
    received: Vec<u8>,
}

/// A change that the kernel refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Which of the changes.
    pub(super) position: usize,
    pub(super) source: io::Error,
}

/// A change and the flags that say how it is meant.
pub(super) type Message = (RouteNetlinkMessage, u16);

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Without it the kernel ignores the filters of a dump and answers with
        // all; Linux 4.20 has it.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self {
            netlink: socket,
            sequence: 0,
            received: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// Sends all changes and says which of them the kernel refused; those behind
    /// a refused one are made nevertheless.
    pub(super) fn change(&mut self, changes: Vec<Message>) -> io::Result<Vec<Refusal>> {
        let mut refused = Vec::new();
        let mut done = 0;
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let batch: Vec<_> = changes.by_ref().take(BATCH_MAX).collect();
            let len = batch.len();
            self.change_batch(batch, done, &mut refused)?;
            done += len;
        }
        Ok(refused)
    }

    /// One system call. Only the last change asks to be acknowledged: refusals
    /// come unasked, and all have come once the acknowledgement is there.
    fn change_batch(
        &mut self,
        batch: Vec<Message>,
        done: usize,
        refused: &mut Vec<Refusal>,
    ) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        let last = batch.len() - 1;
        let mut bytes = Vec::with_capacity(256 * batch.len());
        for (position, (message, flags)) in batch.into_iter().enumerate() {
            let ack = if position == last { NLM_F_ACK } else { 0 };
            self.append(&mut bytes, message, NLM_F_REQUEST | flags | ack);
        }
        self.netlink.send(&bytes, 0)?;
        loop {
            for answer in self.receive()? {
                let NetlinkPayload::Error(error) = answer.payload else {
                    continue;
                };
                let position = answer.header.sequence_number.wrapping_sub(first) as usize;
                if position > last {
                    continue; // of a call that was given up
                }
                if error.code.is_some() {
                    refused.push(Refusal {
                        position: done + position,
                        source: refusal(&error, answer.header.flags),
                    });
                }
                if position == last {
                    return Ok(());
                }
            }
        }
    }

    /// Asks several questions in one system call; an answer is `None` where
    /// there is no such thing.
    pub(super) fn ask(
        &mut self,
        questions: Vec<RouteNetlinkMessage>,
    ) -> io::Result<Vec<Option<RouteNetlinkMessage>>> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let count = questions.len();
        let mut bytes = Vec::with_capacity(64 * count);
        for question in questions {
            self.append(&mut bytes, question, NLM_F_REQUEST);
        }
        self.netlink.send(&bytes, 0)?;
        let mut answers: Vec<_> = (0..count).map(|_| None).collect();
        let mut missing = count;
        while missing > 0 {
            for answer in self.receive()? {
                let position = answer.header.sequence_number.wrapping_sub(first) as usize;
                let Some(slot) = answers.get_mut(position) else {
                    continue;
                };
                missing = missing.saturating_sub(1);
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => *slot = Some(message),
                    NetlinkPayload::Error(error) if is_absence(&error.to_io()) => {}
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
        Ok(answers)
    }

    /// Asks for all things of a kind that pass the filter in `question`.
    pub(super) fn dump(
        &mut self,
        question: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, question, NLM_F_REQUEST | NLM_F_DUMP);
        let sequence = self.sequence;
        self.netlink.send(&bytes, 0)?;
        loop {
            for answer in self.receive()? {
                if answer.header.sequence_number != sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Done(done) if done.code == 0 => return Ok(()),
                    NetlinkPayload::Done(done) => {
                        return absent_is_empty(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Error(error) => return absent_is_empty(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = bytes.len();
        // Messages begin at multiples of four (NLMSG_ALIGNTO).
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.emit(&mut bytes[start..]);
    }

    /// The messages of one read.
    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        loop {
            self.received.clear();
            match self.netlink.recv(&mut self.received, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(_) => return messages(&self.received),
            }
        }
    }
}

impl AsFd for Socket {
    #[expect(unsafe_code, reason = "netlink-sys has no AsFd of its own")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self.netlink` lives, which
        // the returned borrow of `self` guarantees.
        unsafe { BorrowedFd::borrow_raw(self.netlink.as_raw_fd()) }
    }
}

fn messages(mut bytes: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut messages = Vec::new();
    while bytes.len() >= 16 {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let len = (message.header.length as usize).next_multiple_of(4).max(16);
        bytes = bytes.get(len..).unwrap_or_default();
        messages.push(message);
    }
    Ok(messages)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENODEV | libc::ENOENT | libc::ESRCH)
    )
}

/// A filter that names a device which is gone, or a family which this kernel
/// does not have, matches nothing.
fn absent_is_empty(error: io::Error) -> io::Result<()> {
    if is_absence(&error) || error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        Ok(())
    } else {
        Err(error)
    }
}

/// The error with the kernel's own words about it, where it has some
/// (`NLMSGERR_ATTR_MSG`).
fn refusal(error: &netlink_packet_core::ErrorMessage, flags: u16) -> io::Error {
    const NLM_F_ACK_TLVS: u16 = 0x200;
    const NLMSG_HEADER: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let plain = error.to_io();
    if flags & NLM_F_ACK_TLVS == 0 {
        return plain;
    }
    let attributes = error.header.get(NLMSG_HEADER..).unwrap_or_default();
    let words = netlink_packet_core::NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)
        .map(|nla| {
            String::from_utf8_lossy(nla.value())
                .trim_end_matches('\0')
                .to_owned()
        });
    match words {
        Some(words) => io::Error::new(plain.kind(), Refused { plain, words }),
        None => plain,
    }
}

/// An error number and what the kernel says about it.
#[derive(Debug, thiserror::Error)]
#[error("{plain}: {words}")]
struct Refused {
    plain: io::Error,
    words: String,
}

/// The error number, also where the kernel's words stand beside it.
pub(super) fn error_number(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<Refused>()?;
        inner.plain.raw_os_error()
    })
}
