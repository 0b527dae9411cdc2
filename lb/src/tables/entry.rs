#![expect(
    clippy::cast_possible_truncation,
    reason = "words are taken apart into their parts"
)]

use super::Kind;

/// How far a flow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Only its first packet was seen.
    Opening = 0,
    /// More was seen.
    Established = 1,
    /// Its end was seen.
    Closing = 2,
    /// The entry is being written; it matches nothing.
    Claimed = 3,
}

impl State {
    /// The state of the low two bits.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        [
            Self::Opening,
            Self::Established,
            Self::Closing,
            Self::Claimed,
        ][usize::from(bits & 3)]
    }
}

/// The word of a flow entry that says whose it is; 0 is a free place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Meta {
    /// Server number, 1 to [`Meta::MAX_SERVER`].
    pub server: u16,
    /// What kind of flow.
    pub kind: Kind,
    /// How far it has come.
    pub state: State,
    /// When it was last seen: 12 bits of ticks.
    pub stamp: u16,
}

/// From this age on an entry is not old but of the near future.
const FUTURE: u16 = 4_064;

impl Meta {
    /// Greatest server number an entry can name.
    pub const MAX_SERVER: u16 = 0x7fff;

    /// The word.
    #[must_use]
    pub fn encode(self) -> u32 {
        u32::from(self.server & Self::MAX_SERVER)
            | (self.kind as u32) << 15
            | (self.state as u32) << 18
            | u32::from(self.stamp & 0xfff) << 20
    }

    /// Reads a word that is not 0.
    #[must_use]
    pub fn decode(word: u32) -> Option<Self> {
        (word != 0).then(|| Self {
            server: (word & u32::from(Self::MAX_SERVER)) as u16,
            kind: Kind::from_bits((word >> 15) as u8),
            state: State::from_bits((word >> 18) as u8),
            stamp: (word >> 20) as u16,
        })
    }

    /// Ticks since it was seen. What would be 4,064 or older was touched by a
    /// packet on another CPU after `now` was asked for, and is new.
    #[must_use]
    pub fn age(self, now: u16) -> u16 {
        let age = now.wrapping_sub(self.stamp) & 0xfff;
        if age < FUTURE { age } else { 0 }
    }
}

/// The word of a NAT entry that says what it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NatInfo {
    /// Service number.
    pub service: u16,
    /// VIP number, 15 bits.
    pub vip: u16,
    /// Whether it translates answers.
    pub reply: bool,
}

impl NatInfo {
    /// The word.
    #[must_use]
    pub fn encode(self) -> u32 {
        u32::from(self.service) | u32::from(self.vip & 0x7fff) << 16 | u32::from(self.reply) << 31
    }

    /// Reads a word.
    #[must_use]
    pub fn decode(word: u32) -> Self {
        Self {
            service: (word & 0xffff) as u16,
            vip: (word >> 16 & 0x7fff) as u16,
            reply: word >> 31 == 1,
        }
    }
}
