use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::within;
use super::world::{CLIENT, SERVER};
use crate::endpoint::figures::{float, percentile};

/// Sent at a time, in bytes.
const CHUNK: usize = 128 << 10;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes per second of one TCP stream from the client to `to`, as its receiver sees it.
pub(super) fn tcp(to: Ipv4Addr, time: Duration) -> Result<f64> {
    let listener = within(SERVER, || {
        Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?)
    })?;
    let port = listener.local_addr()?.port();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(&listener));
        within(CLIENT, || send(TcpStream::connect((to, port))?, time))?;
        receiver
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn send(mut stream: TcpStream, time: Duration) -> Result<()> {
    let (chunk, begin) = (vec![0; CHUNK], Instant::now());
    while begin.elapsed() < time {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn receive(listener: &TcpListener) -> Result<f64> {
    let (mut stream, _) = listener.accept()?;
    let (mut chunk, mut bytes, begin) = (vec![0; CHUNK], 0, Instant::now());
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(float(bytes) / begin.elapsed().as_secs_f64()),
            read => bytes += read,
        }
    }
}

/// The median time of pings from the client to `to`, one after the other, in microseconds.
pub(super) fn ping(to: Ipv4Addr, count: u16) -> Result<f64> {
    within(CLIENT, || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
        let socket = socket.context("cannot ping")?;
        socket.connect(&std::net::SocketAddr::from((to, 0)).into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut times = Vec::new();
        for number in 0..count {
            let begin = Instant::now();
            socket.send(&echo(8, number))?;
            hear(&socket, number)?;
            times.push(begin.elapsed());
        }
        Ok(percentile(&mut times, 50) * 1000.0)
    })
}

/// Waits for the answer with this number.
fn hear(mut socket: &Socket, number: u16) -> Result<()> {
    let (mut packet, begin) = ([0; 128], Instant::now());
    while begin.elapsed() < PATIENCE {
        let length = socket.read(&mut packet)?;
        // Behind the IP header, which has no options here.
        if packet[..length].get(20..) == Some(&echo(0, number)) {
            return Ok(());
        }
    }
    bail!("no answer within {PATIENCE:?}")
}

/// An ICMP echo of this type (RFC 792): 8 asks, 0 answers.
fn echo(kind: u8, number: u16) -> [u8; 8] {
    const IDENTIFIER: u16 = 0xbe7c;
    let sum = u32::from(kind) * 256 + u32::from(IDENTIFIER) + u32::from(number);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX);
    let mut packet = [kind, 0, 0, 0, 0, 0, 0, 0];
    packet[2..4].copy_from_slice(&(!folded).to_be_bytes());
    packet[4..6].copy_from_slice(&IDENTIFIER.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_echo_sum_up_to_all_ones() {
        for (kind, number) in [(8, 0), (0, 1), (8, u16::MAX)] {
            let packet = echo(kind, number);
            let words = packet
                .chunks(2)
                .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
            let sum: u32 = words.sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{packet:?}");
        }
    }
}
