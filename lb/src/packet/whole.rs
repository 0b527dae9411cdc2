use std::net::{IpAddr, SocketAddr};

use super::{Error, Ethernet, Icmp, Ip, Problem, Sctp, Tcp, TcpFlags, Transport, Udp};

/// An IP packet.
///
/// A part of a packet (see [`Ip::is_fragment`]) has a payload only, and
/// [`Transport::Other`]: no checksum can be checked in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its IP header; the protocol in it follows from the transport.
    pub ip: Ip,
    /// What stands behind the IP header.
    pub transport: Transport,
    /// What stands behind the transport's header.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet between two addresses of one family, without payload.
    ///
    /// # Panics
    ///
    /// The addresses are not of one family.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        let ip = Ip::new(source, destination, transport.protocol(source));
        Self {
            ip,
            transport,
            payload: Vec::new(),
        }
    }

    /// A TCP segment.
    ///
    /// # Panics
    ///
    /// As [`Packet::new`] does.
    #[must_use]
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: TcpFlags) -> Self {
        let header = Tcp::new(source.port(), destination.port(), flags);
        Self::new(source.ip(), destination.ip(), Transport::Tcp(header))
    }

    /// A UDP datagram.
    ///
    /// # Panics
    ///
    /// As [`Packet::new`] does.
    #[must_use]
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        let header = Udp::new(source.port(), destination.port());
        Self::new(source.ip(), destination.ip(), Transport::Udp(header))
    }

    /// An SCTP packet; its payload are chunks, see [`Sctp::chunk`].
    ///
    /// # Panics
    ///
    /// As [`Packet::new`] does.
    #[must_use]
    pub fn sctp(source: SocketAddr, destination: SocketAddr, tag: u32) -> Self {
        let header = Sctp::new(source.port(), destination.port(), tag);
        Self::new(source.ip(), destination.ip(), Transport::Sctp(header))
    }

    /// An echo request.
    ///
    /// # Panics
    ///
    /// As [`Packet::new`] does.
    #[must_use]
    pub fn echo(source: IpAddr, destination: IpAddr, id: u16, sequence: u16) -> Self {
        Self::new(
            source,
            destination,
            Transport::Icmp(Icmp::Request { id, sequence }),
        )
    }

    /// The ICMP error by which `source`, a router or the receiver, tells the
    /// sender of `about` (an encoded packet) what is wrong with it. It quotes
    /// as much as a packet of 576 (IPv4, RFC 1812 §4.3.2.3) or 1280 bytes (IPv6,
    /// RFC 4443 §2.4) takes.
    ///
    /// # Errors
    ///
    /// `about` is no IP packet.
    ///
    /// # Panics
    ///
    /// `source` is not of the family of `about`.
    pub fn problem(source: IpAddr, problem: Problem, about: &[u8]) -> Result<Self, Error> {
        let (ip, _) = Ip::decode(about)?;
        let room = if source.is_ipv4() {
            576 - 20 - 8
        } else {
            1280 - 40 - 8
        };
        let icmp = Transport::Icmp(Icmp::Problem(problem));
        let payload = &about[..about.len().min(room)];
        Ok(Self::new(source, ip.source(), icmp).with_payload(payload))
    }

    /// The packet with another payload.
    #[must_use]
    pub fn with_payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The packet with IPv4 options (RFC 791 §3.1), padded to a multiple of 4
    /// bytes; an IPv6 packet stays as it is.
    #[must_use]
    pub fn with_options(mut self, options: &[u8]) -> Self {
        if let Ip::V4(header) = &mut self.ip {
            header.options = options.to_vec();
            header.options.resize(options.len().next_multiple_of(4), 0);
        }
        self
    }

    /// The packet with a mark that tells its fragments from those of others.
    /// IPv6 carries it in the fragments only, see [`fragments`](super::fragments).
    #[must_use]
    pub fn with_id(mut self, id: u16) -> Self {
        if let Ip::V4(header) = &mut self.ip {
            header.id = id;
        }
        self
    }

    /// Bytes as they travel.
    ///
    /// # Panics
    ///
    /// The packet is longer than 65535 bytes, or options have a wrong length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (source, destination) = (self.ip.source(), self.ip.destination());
        let mut ip = self.ip.clone();
        ip.set_protocol(self.transport.protocol(source));
        ip.encode(&self.transport.encode(source, destination, &self.payload))
    }

    /// The packet in an Ethernet frame.
    ///
    /// # Panics
    ///
    /// As [`Packet::encode`] does.
    #[must_use]
    pub fn frame(&self, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        Ethernet::new(destination, source, self.ip.ether_type()).encode(&self.encode())
    }

    /// Reads a packet and checks its checksums.
    ///
    /// # Errors
    ///
    /// The bytes end too early, are no IP, or a checksum is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (ip, rest) = Ip::decode(bytes)?;
        let (transport, payload) = if ip.is_fragment() {
            (Transport::Other(ip.protocol()), rest)
        } else {
            Transport::decode(ip.protocol(), ip.source(), ip.destination(), rest)?
        };
        let payload = payload.to_vec();
        Ok(Self {
            ip,
            transport,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transport() -> impl Strategy<Value = Transport> {
        let tcp = any::<(u16, u16, u32, u32, u8, u16)>().prop_map(
            |(from, to, seq, ack, flags, window)| {
                let (sequence, acknowledgement) = (seq, ack);
                let tcp = Tcp::new(from, to, TcpFlags(flags));
                Transport::Tcp(Tcp {
                    sequence,
                    acknowledgement,
                    window,
                    options: vec![1; 4],
                    ..tcp
                })
            },
        );
        prop_oneof![
            tcp,
            any::<(u16, u16)>().prop_map(|(from, to)| Transport::Udp(Udp::new(from, to))),
            any::<(u16, u16, u32)>()
                .prop_map(|(from, to, tag)| Transport::Sctp(Sctp::new(from, to, tag))),
            any::<(u16, u16)>()
                .prop_map(|(id, sequence)| Transport::Icmp(Icmp::Request { id, sequence })),
            any::<(u16, u16)>()
                .prop_map(|(id, sequence)| Transport::Icmp(Icmp::Reply { id, sequence })),
            any::<u8>()
                .prop_map(|code| Transport::Icmp(Icmp::Problem(Problem::TimeExceeded(code)))),
            any::<u16>()
                .prop_map(|mtu| Transport::Icmp(Icmp::Problem(Problem::TooBig(mtu.into())))),
        ]
    }

    fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into())),
            any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_packet_is_always_read_as_it_was_written(
            (source, destination) in addresses(),
            transport in transport(),
            payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let packet = Packet::new(source, destination, transport).with_payload(&payload);
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }

        #[test]
        fn one_wrong_bit_behind_the_header_is_always_noticed(
            (source, destination) in addresses(),
            transport in transport(),
            at in any::<proptest::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = Packet::new(source, destination, transport).with_payload(b"data").encode();
            let header = if source.is_ipv4() { 20 } else { 40 };
            let at = header + at.index(bytes.len() - header);
            bytes[at] ^= 1 << bit;
            // A UDP header without a checksum, and a checksum in its two forms.
            prop_assume!(bytes[at] != 0 && bytes[at] != 0xff);
            prop_assert!(Packet::decode(&bytes).is_err());
        }

        #[test]
        fn no_bytes_ever_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Packet::decode(&bytes);
        }
    }

    #[test]
    fn an_error_quotes_what_it_is_about() {
        let [client, server, router] = ["10.0.0.1:1000", "10.0.0.2:80", "10.9.9.9:0"]
            .map(|address| address.parse::<SocketAddr>().unwrap());
        let about = Packet::tcp(server, client, TcpFlags::ACK)
            .with_payload(&[7; 1400])
            .encode();
        let error = Packet::problem(router.ip(), Problem::TooBig(1400), &about).unwrap();
        assert_eq!(error.ip.destination(), server.ip());
        assert_eq!(error.encode().len(), 576);
        assert!(about.starts_with(&error.payload));
    }
}
