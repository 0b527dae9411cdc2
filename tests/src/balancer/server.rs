use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Namespace;

/// How often threads look whether they shall end.
const LOOK: Duration = Duration::from_millis(20);

/// A server that says who it is, whom it sees and as whom it was asked: to each
/// TCP connection at once and again for every line, to each UDP packet in answer.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves at these places of `namespace`.
    ///
    /// # Panics
    ///
    /// A place is taken or none of the namespace.
    #[must_use]
    pub fn start(namespace: &Namespace, name: &str, at: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for place in at {
            let (tcp, udp) = namespace.within(|| {
                let tcp = TcpListener::bind(place).expect("the place is free");
                let udp = UdpSocket::bind(place).expect("the place is free");
                (tcp, udp)
            });
            tcp.set_nonblocking(true).expect("it can be nonblocking");
            udp.set_read_timeout(Some(LOOK)).expect("it can time out");
            let (name_tcp, stop_tcp, count) = (name.to_owned(), stop.clone(), accepted.clone());
            threads.push(std::thread::spawn(move || {
                accept(&tcp, &name_tcp, &stop_tcp, &count);
            }));
            let (name, stop) = (name.to_owned(), stop.clone());
            threads.push(std::thread::spawn(move || answer(&udp, &name, &stop)));
        }
        Self {
            stop,
            accepted,
            threads,
        }
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, name: &str, stop: &AtomicBool, count: &AtomicUsize) {
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    count.fetch_add(1, Ordering::Relaxed);
                    scope.spawn(move || talk(&stream, peer, name, stop));
                }
                Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
            }
        }
    });
}

fn talk(mut stream: &TcpStream, peer: SocketAddr, name: &str, stop: &AtomicBool) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(LOOK));
    let said = format!("{name} {peer} {local}\n");
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    loop {
        if stream.write_all(said.as_bytes()).is_err() {
            return;
        }
        line.clear();
        loop {
            match lines.read_line(&mut line) {
                Ok(0) => return,
                Ok(_) => break,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

fn answer(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let Ok(local) = socket.local_addr() else {
        return;
    };
    let mut packet = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut packet) {
            let said = format!("{name} {peer} {local} {length}\n");
            let _ = socket.send_to(said.as_bytes(), peer);
        }
    }
}
