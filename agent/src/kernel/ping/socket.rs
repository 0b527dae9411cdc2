//! One socket with many pings under way.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use carrick_types::IpFamily;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvfrom, sendmsg,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};

use super::echo::{self, Cookie};
use crate::kernel::netns::Identity;

/// Room for answers that come at once, in bytes: about 5,000 small ones.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Pings of one socket that may wait for their answers.
const WAITING_MAX: usize = 100_000;

/// A socket and the pings that wait for their answers on it.
#[derive(Debug)]
pub(super) struct PingSocket {
    socket: AsyncFd<Socket>,
    family: IpFamily,
    is_raw: bool,
    /// The namespace it is in.
    pub(super) identity: Identity,
    next: AtomicU64,
    waiting: Mutex<HashMap<Cookie, Waiting>>,
    closed: Notify,
}

#[derive(Debug)]
struct Waiting {
    target: IpAddr,
    answered: oneshot::Sender<Instant>,
}

/// Opens a socket in the calling thread's namespace: one of datagrams, which the
/// kernel hands only its own answers (`net.ipv4.ping_group_range`), else a raw one.
pub(in crate::kernel) fn open(family: IpFamily) -> io::Result<Socket> {
    let (domain, protocol) = match family {
        IpFamily::V4 => (Domain::IPV4, Protocol::ICMPV4),
        IpFamily::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let of = |kind: Type| Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol));
    let socket = of(Type::DGRAM).or_else(|e| match e.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => of(Type::RAW),
        _ => Err(e),
    })?;
    // The kernel halves what is too much; less only means that bursts are lost.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(socket)
}

impl PingSocket {
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    pub(super) fn new(socket: Socket, family: IpFamily, identity: Identity) -> io::Result<Self> {
        let is_raw = socket.r#type()? == Type::RAW;
        // SAFETY: a `Socket` owns its descriptor, always names the same one, and
        // closes it only when it is dropped, which is after its registration.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        Ok(Self {
            socket,
            family,
            is_raw,
            identity,
            next: AtomicU64::new(first_cookie()),
            waiting: Mutex::default(),
            closed: Notify::new(),
        })
    }

    /// Sends one echo request and waits for its answer.
    pub(super) async fn ping(
        &self,
        source: IpAddr,
        target: IpAddr,
        limit: Duration,
    ) -> io::Result<Option<Duration>> {
        let cookie = self.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        let _pending = self.expect(cookie, Waiting { target, answered })?;
        let sent = Instant::now();
        match self.send(source, target, cookie) {
            Err(e) if is_no_way(&e) => return Ok(None),
            result => result?,
        }
        // On most links the answer is there already.
        self.drain();
        let at = tokio::time::timeout(limit, answer).await;
        Ok(at
            .ok()
            .and_then(Result::ok)
            .map(|at| at.duration_since(sent)))
    }

    /// Waits for something to read and reads it; `false` if the socket is closed.
    pub(super) async fn readable(&self) -> bool {
        let ready = tokio::select! {
            () = self.closed.notified() => return false,
            ready = self.socket.readable() => ready,
        };
        let Ok(mut ready) = ready else {
            return false;
        };
        self.drain();
        ready.clear_ready();
        // What came between the two is not announced again.
        self.drain();
        true
    }

    /// Ends the reading; pings under way end as unanswered.
    pub(super) fn close(&self) {
        self.closed.notify_one();
    }

    /// Rises with each ping.
    pub(super) fn used(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    fn expect(&self, cookie: Cookie, waiting: Waiting) -> io::Result<Pending<'_>> {
        let mut all = self.waiting();
        if all.len() >= WAITING_MAX {
            let full = format!("{WAITING_MAX} pings wait for their answers already");
            return Err(io::Error::new(io::ErrorKind::WouldBlock, full));
        }
        all.insert(cookie, waiting);
        Ok(Pending {
            socket: self,
            cookie,
        })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Cookie, Waiting>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }

    fn send(&self, source: IpAddr, target: IpAddr, cookie: Cookie) -> io::Result<()> {
        let message = echo::request(self.family, identifier(), cookie);
        let data = [IoSlice::new(&message)];
        let fd = self.socket.get_ref().as_raw_fd();
        let flags = MsgFlags::empty();
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(source.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(std::net::SocketAddrV4::new(target, 0));
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &data, &control, flags, Some(&to))?;
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: source.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                let to = SockaddrIn6::from(std::net::SocketAddrV6::new(target, 0, 0, 0));
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &data, &control, flags, Some(&to))?;
            }
            _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
        Ok(())
    }

    /// Reads all that is there.
    fn drain(&self) {
        let mut packet = [0; 128];
        let fd = self.socket.get_ref().as_raw_fd();
        loop {
            let (len, from) = match recvfrom::<SockaddrStorage>(fd, &mut packet) {
                Ok(read) => read,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            let cookie = echo::answer(self.family, &packet[..len], self.is_raw);
            if let (Some(cookie), Some(from)) = (cookie, from.and_then(ip)) {
                self.answered(cookie, from);
            }
        }
    }

    fn answered(&self, cookie: Cookie, from: IpAddr) {
        let mut waiting = self.waiting();
        let is_it = waiting.get(&cookie).is_some_and(|ping| ping.target == from);
        if is_it && let Some(ping) = waiting.remove(&cookie) {
            let _ = ping.answered.send(Instant::now()); // it has just given up
        }
    }
}

/// A ping that waits; forgotten when it is dropped, also by a caller that goes away.
struct Pending<'a> {
    socket: &'a PingSocket,
    cookie: Cookie,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.socket.waiting().remove(&self.cookie);
    }
}

fn ip(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// No route, or a route that says no: an answer will not come.
fn is_no_way(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::ENETDOWN)
    )
}

/// Where cookies begin, so that answers to a former process are told apart.
fn first_cookie() -> Cookie {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| {
        since.as_secs() << 32 | u64::from(since.subsec_nanos())
    })
}

/// Identifier of echoes on raw sockets, where the kernel sets none.
fn identifier() -> u16 {
    (std::process::id() & 0xffff) as u16
}
