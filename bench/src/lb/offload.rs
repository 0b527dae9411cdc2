//! What interfaces do to packets on their own account.

use std::io;

use anyhow::{Context, Result, ensure};
use nix::libc;

/// `ETHTOOL_STXCSUM` of linux/ethtool.h.
const SET_TRANSMIT_CHECKSUMS: u32 = 0x17;
/// `ETHTOOL_SGRO`.
const SET_RECEIVE_OFFLOAD: u32 = 0x2c;

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

/// Makes an interface of this thread's namespace fit for frames that packet programs redirect. They carry no word of a
/// checksum that is still to be made, so it writes those itself; and a veth takes them only if it polls, as it does
/// for receive offload.
pub(super) fn take_redirected(interface: &str) -> Result<()> {
    set(interface, SET_TRANSMIT_CHECKSUMS, 0)?;
    set(interface, SET_RECEIVE_OFFLOAD, 1)
}

fn set(interface: &str, command: u32, data: u32) -> Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    ensure!(
        interface.len() < name.len(),
        "{interface} is no interface's name"
    );
    name[..interface.len()].copy_from_slice(interface.as_bytes());
    let mut value = Value { command, data };
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
        "{interface} does not take a setting of ethtool: {}",
        io::Error::last_os_error()
    );
    Ok(())
}
