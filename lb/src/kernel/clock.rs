use std::time::Duration;

use crate::service::IdleTimeouts;
use crate::tables::{Kind, MAX_TICKS, State};

/// The ticks of flow entries: the kernel's jiffies, shifted until one lasts
/// about two seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) shift: u32,
    pub(super) tick: Duration,
}

impl Clock {
    /// The clock of this kernel.
    pub(super) fn of_this_kernel() -> Self {
        let resolution = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse).tv_nsec;
        let jiffy = u64::try_from(resolution).unwrap_or(4_000_000).max(1);
        Self::of_jiffies(Duration::from_nanos(jiffy))
    }

    fn of_jiffies(jiffy: Duration) -> Self {
        let mut shift = 0;
        let mut tick = jiffy;
        while tick * 2 <= Duration::from_millis(2_600) {
            tick *= 2;
            shift += 1;
        }
        Self { shift, tick }
    }

    /// Whole ticks that last at least as long, as far as stamps can tell.
    pub(super) fn ticks(self, time: Duration) -> u16 {
        let ticks = time.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        u16::try_from(ticks).unwrap_or(MAX_TICKS).min(MAX_TICKS)
    }

    /// The limits of a service by kind and state.
    pub(super) fn limits(self, idle: &IdleTimeouts) -> [u16; 32] {
        let mut limits = [0; 32];
        let mut set = |kind: Kind, state: State, time: Duration| {
            limits[kind as usize * 4 + state as usize] = self.ticks(time);
        };
        for state in [State::Opening, State::Established, State::Closing] {
            set(Kind::Udp, state, idle.udp);
            set(Kind::Sctp, state, idle.sctp);
            set(Kind::Echo, state, idle.other);
            set(Kind::Other, state, idle.other);
            set(Kind::Fragment, state, Duration::from_secs(5));
            set(Kind::Hint, state, Duration::from_secs(60));
        }
        set(Kind::Tcp, State::Opening, idle.tcp_opening);
        set(Kind::Tcp, State::Established, idle.tcp);
        set(Kind::Tcp, State::Closing, idle.tcp_closing);
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_lasts_about_two_seconds_whatever_the_kernel() {
        for hertz in [100, 250, 300, 1000] {
            let clock = Clock::of_jiffies(Duration::from_secs(1) / hertz);
            assert!(clock.tick > Duration::from_millis(1_300), "{clock:?}");
            assert!(clock.tick <= Duration::from_millis(2_600), "{clock:?}");
        }
    }

    #[test]
    fn no_limit_is_longer_than_stamps_can_tell() {
        let clock = Clock::of_jiffies(Duration::from_millis(4));
        assert_eq!(clock.ticks(Duration::from_secs(86_400)), MAX_TICKS);
        assert_eq!(clock.ticks(Duration::from_secs(3)), 2);
    }
}
