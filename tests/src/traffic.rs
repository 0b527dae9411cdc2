//! Packets between namespaces, sent with plain sockets.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Namespace;

/// The port at which pods answer.
pub const PORT: u16 = 5000;

/// A pod's server: returns UDP packets and says over TCP what it is told to,
/// as often as asked. Ends when it is dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Serves in `namespace`, IPv4 and IPv6; `text` is what TCP clients get.
    ///
    /// # Panics
    ///
    /// The port is taken.
    #[must_use]
    pub fn start(namespace: &Namespace, text: &[u8]) -> Self {
        let (udp, tcp) = namespace.within(|| {
            let udp = UdpSocket::bind(("::", PORT)).expect("the port is free");
            let tcp = TcpListener::bind(("::", PORT)).expect("the port is free");
            (udp, tcp)
        });
        let stop = Arc::new(AtomicBool::new(false));
        udp.set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a timeout can be set");
        tcp.set_nonblocking(true)
            .expect("a listener can be nonblocking");
        let (stop_udp, stop_tcp, text) = (stop.clone(), stop.clone(), text.to_vec());
        let returned = std::thread::spawn(move || return_packets(&udp, &stop_udp));
        let said = std::thread::spawn(move || say(&tcp, &text, &stop_tcp));
        Self {
            stop,
            threads: vec![returned, said],
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn return_packets(socket: &UdpSocket, stop: &AtomicBool) {
    let mut packet = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut packet) {
            let _ = socket.send_to(&packet[..length], from);
        }
    }
}

fn say(listener: &TcpListener, text: &[u8], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let _ = stream.set_nonblocking(false);
                let _ = stream.write_all(text);
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(2)),
        }
    }
}

/// What a pod's server says over TCP, asked from `namespace`.
///
/// # Errors
///
/// There is no way, or nobody answers within 3 s.
pub fn fetch(namespace: &Namespace, address: IpAddr) -> io::Result<Vec<u8>> {
    namespace.within(|| {
        let place = SocketAddr::new(address, PORT);
        let mut stream = TcpStream::connect_timeout(&place, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        Ok(text)
    })
}

/// Whether a UDP packet comes back from a pod within `patience`.
#[must_use]
pub fn echoes(namespace: &Namespace, address: IpAddr, patience: Duration) -> bool {
    namespace.within(|| {
        let Ok(socket) = connected(address) else {
            return false;
        };
        let end = Instant::now() + patience;
        let _ = socket.set_read_timeout(Some(Duration::from_millis(100)));
        let mut packet = [0; 16];
        while Instant::now() < end {
            if socket.send(b"echo").is_ok() && socket.recv(&mut packet).is_ok() {
                return true;
            }
        }
        false
    })
}

fn connected(address: IpAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, PORT))?;
    Ok(socket)
}

/// A stream of packets between two pods, one every 5 ms, that counts what does
/// not come back.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: JoinHandle<Loss>,
}

/// What a flow lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Packets sent.
    pub sent: u32,
    /// Packets that did not come back.
    pub lost: u32,
    /// Longest time between two that came back.
    pub gap: Duration,
}

impl Flow {
    /// Begins to send from `namespace` to the pod at `address`.
    ///
    /// # Panics
    ///
    /// There is no route to it.
    #[must_use]
    pub fn start(namespace: &Namespace, address: IpAddr) -> Self {
        let socket = namespace.within(|| connected(address).expect("there is a route"));
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .expect("a timeout can be set");
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU32::new(0));
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || send(&socket, &stopped, &count));
        Self { stop, sent, thread }
    }

    /// Packets sent so far.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it: what was lost.
    ///
    /// # Panics
    ///
    /// Never: the thread does not panic.
    #[must_use]
    pub fn stop(self) -> Loss {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender does not panic")
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool, sent: &AtomicU32) -> Loss {
    let mut loss = Loss {
        sent: 0,
        lost: 0,
        gap: Duration::ZERO,
    };
    let (mut back, mut last) = (0, Instant::now());
    let mut take = |patience: Duration| {
        let end = Instant::now() + patience;
        let mut packet = [0; 16];
        while Instant::now() < end {
            if socket.recv(&mut packet).is_ok() {
                back += 1;
                loss.gap = loss.gap.max(last.elapsed());
                last = Instant::now();
            }
        }
    };
    while !stop.load(Ordering::Relaxed) {
        // What the kernel does not take is lost, too.
        let _ = socket.send(&loss.sent.to_be_bytes());
        loss.sent += 1;
        sent.store(loss.sent, Ordering::Relaxed);
        take(Duration::from_millis(5));
    }
    // The last ones have their time to come back.
    take(Duration::from_millis(100));
    loss.gap = loss
        .gap
        .max(last.elapsed().saturating_sub(Duration::from_millis(100)));
    loss.lost = loss.sent.saturating_sub(back);
    loss
}
