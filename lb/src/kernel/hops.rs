use std::net::{IpAddr, SocketAddr, UdpSocket};

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use super::Program;
use crate::dataplane::Error;

static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/probe.o");

/// Where packets to an address leave, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hop {
    pub(super) ifindex: u32,
    pub(super) source: [u8; 6],
    pub(super) destination: [u8; 6],
    pub(super) mtu: u16,
}

/// Asks the kernel what only its programs may ask, in the network namespace
/// of the calling thread.
#[derive(Debug)]
pub(super) struct Probe(Ebpf);

impl Probe {
    pub(super) fn load() -> Result<Self, Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::access("load the probe program", error)
        };
        let mut ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(|error| failed(error.into()))?;
        for name in ["carrick_hop", "carrick_clock"] {
            let program = ebpf.program_mut(name).expect("the object holds it");
            <&mut Xdp>::try_from(program)
                .and_then(Xdp::load)
                .map_err(|error| failed(error.into()))?;
        }
        Ok(Self(ebpf))
    }

    fn ask(&self, name: &str, question: [u8; 64]) -> Option<[u8; 64]> {
        let mut answer = [0; 64];
        let program = <&Xdp>::try_from(self.0.program(name)?).ok()?;
        let options = TestRunOptions {
            data_in: Some(&question),
            data_out: Some(&mut answer),
            ..TestRunOptions::default()
        };
        program.test_run(options).ok()?;
        Some(answer)
    }

    /// The next hop; interface 0 and only the MTU of the route while the
    /// kernel does not know the neighbour.
    pub(super) fn hop(&self, address: IpAddr) -> Option<Hop> {
        let mut question = [0; 64];
        match address {
            IpAddr::V4(v4) => {
                question[0] = 2;
                question[20..24].copy_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                question[0] = 10;
                question[20..36].copy_from_slice(&v6.octets());
            }
        }
        let answer = self.ask("carrick_hop", question)?;
        let mtu = u16::from_le_bytes([answer[2], answer[3]]);
        if answer[1] != 1 {
            return Some(Hop {
                mtu,
                ..Hop::default()
            });
        }
        let six = |at: usize| -> [u8; 6] { answer[at..at + 6].try_into().expect("six of them") };
        Some(Hop {
            ifindex: u32::from_le_bytes(answer[4..8].try_into().expect("four of them")),
            source: six(8),
            destination: six(14),
            mtu,
        })
    }

    /// The time in ticks of 1 << `shift` jiffies.
    pub(super) fn ticks(&self, shift: u32) -> Option<u16> {
        let mut question = [0; 64];
        question[36..40].copy_from_slice(&shift.to_le_bytes());
        let answer = self.ask("carrick_clock", question)?;
        Some(u16::from_le_bytes([answer[40], answer[41]]))
    }
}

/// The next hop of a server. If the neighbour is not known, the kernel is made
/// to look for it; until it is found, the program asks the kernel each time.
pub(super) fn resolve(program: &Program, address: IpAddr) -> Option<Hop> {
    let hop = program.probe().hop(address);
    if hop.is_none_or(|hop| hop.ifindex == 0) {
        nudge(address);
    }
    hop
}

/// Sends a byte to the discard port, for which the kernel must find the neighbour.
fn nudge(address: IpAddr) {
    let any: IpAddr = if address.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    // Nothing depends on it arriving, and without a route it cannot be sent.
    if let Ok(socket) = UdpSocket::bind(SocketAddr::new(any, 0)) {
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to(&[0], SocketAddr::new(address, 9));
    }
}
