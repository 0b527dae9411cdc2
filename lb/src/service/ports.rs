use std::fmt;
use std::str::FromStr;

use carrick_types::Invalid;

/// The destination ports of a VIP. ICMP and protocols without ports belong to
/// it whatever the ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Ports {
    /// Every port.
    #[default]
    All,
    /// These, in rising order, neither touching nor overlapping, at least one.
    Ranges(Vec<PortRange>),
}

impl Ports {
    /// One port alone.
    ///
    /// # Errors
    ///
    /// The port is 0.
    pub fn single(port: u16) -> Result<Self, Invalid> {
        Ok(Self::Ranges(vec![PortRange::new(port, port)?]))
    }

    /// These ranges in any order; those that touch or overlap become one. No
    /// range at all means every port.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        if merged.is_empty() {
            Self::All
        } else {
            Self::Ranges(merged)
        }
    }

    /// Whether the port belongs to it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Ranges(ranges) => ranges.iter().any(|range| range.contains(port)),
        }
    }

    /// Whether any port belongs to both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => true,
            (Self::Ranges(ours), Self::Ranges(theirs)) => ours.iter().any(|a| {
                theirs
                    .iter()
                    .any(|b| a.first <= b.last && b.first <= a.last)
            }),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Ranges(ranges) => {
                for (index, range) in ranges.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{range}")?;
                }
                Ok(())
            }
        }
    }
}

/// Ports from one to another, both included; 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Takes the first and the last port.
    ///
    /// # Errors
    ///
    /// The first is 0 or above the last.
    pub fn new(first: u16, last: u16) -> Result<Self, Invalid> {
        if first == 0 || first > last {
            return Err(invalid(format!("{first}-{last}")));
        }
        Ok(Self { first, last })
    }

    /// The first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

fn invalid(text: impl AsRef<str>) -> Invalid {
    Invalid::new(
        "ports",
        text.as_ref(),
        "a port of 1 to 65535 or a range such as 8000-8099",
    )
}

impl FromStr for PortRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) => Self::new(first, last).map_err(|_| invalid(text)),
            _ => Err(invalid(text)),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Ports {
        Ports::of(text.split(',').map(|range| range.parse().unwrap()))
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(ports("90-99,1-10,11,5-8").to_string(), "1-11,90-99");
        assert_eq!(ports("1-65535").to_string(), "1-65535");
        assert_eq!(Ports::of([]), Ports::All);
    }

    #[test]
    fn overlap_means_a_port_of_both() {
        assert!(ports("1-10").overlaps(&ports("10-20")));
        assert!(!ports("1-10").overlaps(&ports("11-20")));
        assert!(ports("80").overlaps(&Ports::All));
    }

    #[test]
    fn port_zero_and_backward_ranges_are_refused() {
        for bad in ["0", "0-5", "9-8", "65536", "a", "", "1-"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
