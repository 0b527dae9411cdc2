//! The packets that the rig makes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a packet is, besides the flow it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lb) enum What {
    /// A segment in the middle of a connection.
    Ack,
    /// The first segment of a connection.
    Syn,
    /// A datagram.
    Udp,
}

/// A packet to a VIP, or not to one.
#[derive(Clone, Copy, Debug)]
pub(in crate::lb) struct Packet {
    pub(in crate::lb) what: What,
    pub(in crate::lb) to: IpAddr,
    pub(in crate::lb) port: u16,
    /// How many different ones there are, from the first source on.
    pub(in crate::lb) flows: u32,
    /// Where they go on Ethernet, and where from.
    pub(in crate::lb) ethernet: [[u8; 6]; 2],
    /// What becomes of them when there is no program that decides: an XDP action.
    pub(in crate::lb) verdict: u32,
    /// Added to the lowest source.
    pub(in crate::lb) offset: u32,
}

/// The lowest source.
const SOURCE: u32 = Ipv4Addr::new(20, 0, 0, 0).to_bits();
/// The last byte of a network in front of it, for IPv6.
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0);

/// As the program reads it; see `lb/bpf/rig.c`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Settings {
    frame: [u8; 80],
    length: u32,
    flows: u32,
    source: u32,
    verdict: u32,
    ip_sum: u32,
    l4_sum: u32,
    ipv6: u32,
    unused: u32,
}

#[expect(
    unsafe_code,
    reason = "plain numbers without padding, as the trait demands"
)]
// SAFETY: every bit pattern is a value, and there is no padding.
unsafe impl aya::Pod for Settings {}

impl Packet {
    /// The frame without source and source port.
    pub(super) fn settings(&self) -> Settings {
        let mut frame = [0; 80];
        let [to, from] = self.ethernet;
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from);
        let (at, l4_length) = match self.what {
            What::Udp => (17, 26),
            What::Ack | What::Syn => (6, 26),
        };
        let l4 = match self.to {
            IpAddr::V4(to) => {
                frame[12..14].copy_from_slice(&[0x08, 0x00]);
                let header = &mut frame[14..34];
                header[0] = 0x45;
                header[3] = 20 + l4_length;
                header[6] = 0x40;
                header[8] = 64;
                header[9] = at;
                header[16..20].copy_from_slice(&to.octets());
                34
            }
            IpAddr::V6(to) => {
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                let header = &mut frame[14..54];
                header[0] = 0x60;
                header[5] = l4_length;
                header[6] = at;
                header[7] = 64;
                header[8..24].copy_from_slice(&SOURCE6.octets());
                header[24..40].copy_from_slice(&to.octets());
                54
            }
        };
        let body = &mut frame[l4..];
        body[2..4].copy_from_slice(&self.port.to_be_bytes());
        match self.what {
            What::Udp => body[5] = l4_length,
            What::Ack | What::Syn => {
                body[12] = 0x50;
                body[13] = if self.what == What::Syn { 0x02 } else { 0x10 };
                body[14] = 0x40;
            }
        }
        let length = l4 + usize::from(l4_length);
        let pseudo =
            u32::from(u16::from_ne_bytes([0, at])) + u32::from(u16::from_ne_bytes([0, l4_length]));
        let addresses = if l4 == 34 { 26..34 } else { 22..54 };
        let is_tcp = self.what != What::Udp;
        // IPv6 does without checksum only by agreement, but nobody here asks.
        Settings {
            length: u32::try_from(length).expect("a frame is short"),
            flows: self.flows,
            source: if l4 == 34 { SOURCE } else { 0 }.wrapping_add(self.offset),
            verdict: self.verdict,
            ip_sum: sum(&frame[14..34]),
            l4_sum: if is_tcp {
                sum(&frame[addresses]) + pseudo + sum(&frame[l4..length])
            } else {
                0
            },
            ipv6: u32::from(l4 == 54),
            unused: 0,
            frame,
        }
    }

    /// A frame of that length for the kernel to begin with.
    pub(super) fn blank(&self) -> Vec<u8> {
        let settings = self.settings();
        settings.frame[..settings.length as usize].to_vec()
    }
}

/// The one's complement sum of 16-bit words as this machine loads them.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    words
        .map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]])))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program makes of it for a flow, done here.
    fn finish(settings: &Settings, n: u32) -> Vec<u8> {
        let mut frame = settings.frame[..settings.length as usize].to_vec();
        let source = (settings.source + n).to_be_bytes();
        let port = u16::try_from(1024 + (n & 0x3fff)).unwrap().to_be_bytes();
        let [ip, l4] = if settings.ipv6 == 1 {
            [34, 54]
        } else {
            [26, 34]
        };
        frame[ip..ip + 4].copy_from_slice(&source);
        frame[l4..l4 + 2].copy_from_slice(&port);
        frame
    }

    fn folded(mut sum: u32) -> u16 {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    fn packet(what: What, to: &str) -> Settings {
        let packet = Packet {
            what,
            to: to.parse().unwrap(),
            port: 80,
            flows: 10,
            ethernet: [[2; 6], [4; 6]],
            verdict: 2,
            offset: 0,
        };
        packet.settings()
    }

    #[test]
    fn sums_lack_only_what_the_program_adds() {
        for to in ["10.0.0.1", "fd00::1"] {
            let settings = packet(What::Syn, to);
            let frame = finish(&settings, 5);
            let (l4, addresses) = if to.contains(':') {
                (54, 22..54)
            } else {
                (34, 26..34)
            };
            let whole = sum(&frame[addresses]) + sum(&frame[l4..]) + sum(&[0, 6]) + sum(&[0, 26]);
            let source = &frame[if l4 == 54 { 34..38 } else { 26..30 }];
            let added = sum(source) + sum(&frame[l4..l4 + 2]);
            assert_eq!(folded(settings.l4_sum + added), folded(whole), "{to}");
            if l4 == 34 {
                assert_eq!(
                    folded(settings.ip_sum + sum(source)),
                    folded(sum(&frame[14..34]))
                );
            }
        }
    }

    #[test]
    fn datagrams_have_no_checksum() {
        assert_eq!(packet(What::Udp, "10.0.0.1").l4_sum, 0);
        assert_eq!(packet(What::Udp, "10.0.0.1").length, 60);
    }
}
