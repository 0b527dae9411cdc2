//! Datagrams: answered from the address that they came to, which the kernel would not choose by itself for a VIP.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Name;
use crate::{Error, Transport};

/// A socket that says where a datagram was sent to.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
}

/// One datagram's ends.
#[derive(Clone, Copy, Debug)]
struct Ends {
    from: SockaddrStorage,
    to: Option<Local>,
}

#[derive(Clone, Copy, Debug)]
enum Local {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Local {
    fn address(self) -> IpAddr {
        match self {
            Self::V4(info) => Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr)).into(),
            Self::V6(info) => Ipv6Addr::from(info.ipi6_addr.s6_addr).into(),
        }
    }
}

impl Datagrams {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Transport::Udp.datagrams(address)?;
        if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) async fn serve(self, name: &Name, stop: CancellationToken) -> Result<(), Error> {
        let answered = stop.run_until_cancelled(self.answer(name)).await;
        let Some(Err(source)) = answered else {
            return Ok(());
        };
        let address = self
            .address()
            .unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        Err(Error::Serve {
            address,
            transport: Transport::Udp,
            source,
        })
    }

    async fn answer(&self, name: &Name) -> io::Result<()> {
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || receive(&self.socket))
                .await;
            match received {
                Ok(ends) => {
                    let name = name.for_local(|| ends.to.map(Local::address));
                    // What cannot be sent is lost, as datagrams are.
                    let _ = send(&self.socket, &ends, name.as_bytes());
                }
                // An ICMP error for an earlier answer.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn receive(socket: &UdpSocket) -> io::Result<Ends> {
    let mut bytes = [0; 2048];
    let mut space = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::empty())?;
    let to = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Local::V4(info)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Local::V6(info)),
        _ => None,
    });
    let from = message
        .address
        .ok_or_else(|| io::Error::other("a datagram without a source"))?;
    Ok(Ends { from, to })
}

fn send(socket: &UdpSocket, ends: &Ends, bytes: &[u8]) -> io::Result<()> {
    let parts = [IoSlice::new(bytes)];
    let (v4, v6);
    let control = match ends.to {
        Some(Local::V4(mut info)) => {
            // The routing table chooses the interface.
            info.ipi_ifindex = 0;
            v4 = info;
            vec![ControlMessage::Ipv4PacketInfo(&v4)]
        }
        Some(Local::V6(info)) => {
            v6 = info;
            vec![ControlMessage::Ipv6PacketInfo(&v6)]
        }
        None => Vec::new(),
    };
    sendmsg(
        socket.as_raw_fd(),
        &parts,
        &control,
        MsgFlags::empty(),
        Some(&ends.from),
    )?;
    Ok(())
}
