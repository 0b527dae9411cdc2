//! What interfaces leave to the hardware, which a veth does not have.

use std::io;

use anyhow::{Context, Result, ensure};
use nix::libc;

/// `ETHTOOL_STXCSUM` of linux/ethtool.h.
const SET_TRANSMIT_CHECKSUMS: u32 = 0x17;

/// struct `ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// struct `ifreq`, as far as it is used.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: *mut Value,
    unused: [u64; 2],
}

/// Has an interface of this thread's namespace write checksums itself. A frame that a packet program redirects carries
/// no word of a checksum that is still to be made.
pub(super) fn write_checksums(interface: &str) -> Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    ensure!(
        interface.len() < name.len(),
        "{interface} is no interface's name"
    );
    name[..interface.len()].copy_from_slice(interface.as_bytes());
    let mut value = Value {
        command: SET_TRANSMIT_CHECKSUMS,
        data: 0,
    };
    let request = Request {
        name,
        value: &raw mut value,
        unused: [0; 2],
    };
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("no socket")?;
    #[expect(unsafe_code, reason = "no library offers this request")]
    // SAFETY: the request is laid out as the kernel reads it, and it and its value live until the call returns.
    let result = unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SIOCETHTOOL,
            &raw const request,
        )
    };
    ensure!(
        result == 0,
        "{interface} keeps leaving checksums to others: {}",
        io::Error::last_os_error()
    );
    Ok(())
}
