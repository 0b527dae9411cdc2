use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::service::{Dscp, Mode};

/// Bytes of the program's settings: `struct settings` of `lb/bpf/decap.c`.
pub(super) const SIZE: usize = VIPS + Settings::VIPS * VIP + 64 * 4 + 64 * 16;

const VIPS: usize = 36;
const VIP: usize = 36;

const IPIP: u32 = 1;
const GRE: u32 = 2;
const GUE: u32 = 4;
const VXLAN: u32 = 8;

/// What is taken out of its wrapping.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    accept: u32,
    gue: u16,
    vxlan: u16,
    vips: Vec<IpNet>,
    own: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    marks: Vec<(IpAddr, Dscp)>,
}

/// More VIPs than the program can look through, or two ports of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Two services use different ports.
    #[error("{0} has one port on a server, and two services want different ones")]
    Ports(&'static str),
    /// More VIPs than there is room for.
    #[error("a server unwraps packets for at most {} VIPs", Settings::VIPS)]
    Vips,
}

impl Settings {
    /// Most VIPs.
    pub const VIPS: usize = 64;

    /// Takes packets for these VIPs out of what the mode wraps them in. `own`
    /// is the server's address, which marked packets have as destination.
    ///
    /// # Errors
    ///
    /// There is no room for another VIP, or for another port.
    pub fn add(
        &mut self,
        mode: &Mode,
        vips: impl IntoIterator<Item = IpNet>,
        own: Option<IpAddr>,
    ) -> Result<(), TooMany> {
        match mode {
            Mode::Gre => self.accept |= GRE,
            Mode::Gue { port } => {
                self.accept |= GUE;
                one_port("GUE", &mut self.gue, *port)?;
            }
            Mode::Ipip => self.accept |= IPIP,
            Mode::Vxlan { port, .. } => {
                self.accept |= VXLAN;
                one_port("VXLAN", &mut self.vxlan, *port)?;
            }
            Mode::L3Dsr { dscp } => {
                let marks = dscp.iter().map(|(vip, dscp)| (vip.addr(), *dscp));
                self.marks.extend(marks);
                match own {
                    Some(IpAddr::V4(own)) => self.own.0 = Some(own),
                    Some(IpAddr::V6(own)) => self.own.1 = Some(own),
                    None => {}
                }
            }
            Mode::L2 | Mode::Nat { .. } => return Ok(()),
        }
        for vip in vips {
            if !self.vips.contains(&vip) {
                self.vips.push(vip);
            }
        }
        if self.vips.len() > Self::VIPS {
            return Err(TooMany::Vips);
        }
        Ok(())
    }

    /// Whether there is anything to take out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accept == 0 && self.marks.is_empty()
    }

    pub(super) fn bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, &self.accept.to_ne_bytes());
        put(4, &self.gue.to_be_bytes());
        put(6, &self.vxlan.to_be_bytes());
        let count = u32::try_from(self.vips.len()).unwrap_or(u32::MAX);
        put(8, &count.to_ne_bytes());
        put(12, &u32::from(!self.marks.is_empty()).to_ne_bytes());
        put(16, &self.own.0.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        put(20, &self.own.1.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
        for (n, vip) in self.vips.iter().enumerate().take(Self::VIPS) {
            let at = VIPS + n * VIP;
            put(at, &octets(vip.network()));
            put(at + 16, &octets(vip.netmask()));
            put(at + 32, &u32::from(vip.addr().is_ipv6()).to_ne_bytes());
        }
        let marked = VIPS + Self::VIPS * VIP;
        for (vip, dscp) in &self.marks {
            let n = usize::from(dscp.get());
            match vip {
                IpAddr::V4(vip) => put(marked + n * 4, &vip.octets()),
                IpAddr::V6(vip) => put(marked + 64 * 4 + n * 16, &vip.octets()),
            }
        }
        bytes
    }
}

fn one_port(kind: &'static str, known: &mut u16, port: u16) -> Result<(), TooMany> {
    if *known != 0 && *known != port {
        return Err(TooMany::Ports(kind));
    }
    *known = port;
    Ok(())
}

/// An address in sixteen bytes, IPv4 in the first four.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn services_of_several_modes_are_taken_together() {
        let mut settings = Settings::default();
        let vips = [vip("10.0.0.1/32"), vip("2001:db8::/64")];
        settings.add(&Mode::Ipip, vips, None).unwrap();
        settings.add(&Mode::Gue { port: 6080 }, vips, None).unwrap();
        let bytes = settings.bytes();
        assert_eq!(bytes[..4], (IPIP | GUE).to_ne_bytes());
        assert_eq!(bytes[4..6], [0x17, 0xc0]);
        assert_eq!(bytes[8..12], 2_u32.to_ne_bytes());
        assert_eq!(bytes[36..40], [10, 0, 0, 1]);
        assert_eq!(bytes[52..56], [255; 4]);
        assert_eq!(bytes[72..76], [0x20, 1, 0x0d, 0xb8]);
        assert_eq!(bytes[104..108], 1_u32.to_ne_bytes());
    }

    #[test]
    fn what_needs_no_unwrapping_leaves_nothing_to_do() {
        let mut settings = Settings::default();
        settings.add(&Mode::L2, [vip("10.0.0.1/32")], None).unwrap();
        assert!(settings.is_empty());
    }

    #[test]
    fn two_ports_and_too_many_vips_are_refused() {
        let mut settings = Settings::default();
        settings.add(&Mode::Gue { port: 1 }, [], None).unwrap();
        let again = settings.add(&Mode::Gue { port: 2 }, [], None);
        assert_eq!(again, Err(TooMany::Ports("GUE")));
        let many = (0..65).map(|n| vip(&format!("10.0.{n}.1/32")));
        assert_eq!(settings.add(&Mode::Gre, many, None), Err(TooMany::Vips));
    }
}
