use super::{CpuState, JournalRecord, Row, Rule, Server, Service, Settings, Turn, VERSIONS};

/// Entries of a flow bucket.
pub const WAYS: usize = 4;

/// A table of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// [`Reason`](super::Reason)s by CPU.
    Counters,
    /// [`CpuState`]s.
    Cpus,
    /// IPv4 flows.
    Flows4,
    /// IPv6 flows.
    Flows6,
    /// Words that say which version of a service holds.
    Generations,
    /// [`JournalRecord`]s.
    Journal,
    /// Live flows by server.
    Loads,
    /// IPv4 translations.
    Nats4,
    /// IPv6 translations.
    Nats6,
    /// [`Rule`]s.
    Rules,
    /// [`Row`]s by server.
    ServerCounters,
    /// [`Server`]s.
    Servers,
    /// [`Service`]s.
    Services,
    /// [`Settings`].
    Settings,
    /// Slot tables.
    Slots,
    /// SNAT addresses.
    Sources,
    /// [`Turn`]s.
    Turns,
    /// [`Row`]s by VIP.
    VipCounters,
    /// [`Vip4`](super::Vip4) buckets.
    Vips4,
    /// [`Vip6`](super::Vip6) buckets.
    Vips6,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 20] = [
        Self::Counters,
        Self::Cpus,
        Self::Flows4,
        Self::Flows6,
        Self::Generations,
        Self::Journal,
        Self::Loads,
        Self::Nats4,
        Self::Nats6,
        Self::Rules,
        Self::ServerCounters,
        Self::Servers,
        Self::Services,
        Self::Settings,
        Self::Slots,
        Self::Sources,
        Self::Turns,
        Self::VipCounters,
        Self::Vips4,
        Self::Vips6,
    ];

    /// The map's name in the object.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counters => "counters",
            Self::Cpus => "cpus",
            Self::Flows4 => "flows4",
            Self::Flows6 => "flows6",
            Self::Generations => "generations",
            Self::Journal => "journal",
            Self::Loads => "loads",
            Self::Nats4 => "nats4",
            Self::Nats6 => "nats6",
            Self::Rules => "rules",
            Self::ServerCounters => "server_counters",
            Self::Servers => "servers",
            Self::Services => "services",
            Self::Settings => "settings",
            Self::Slots => "slots",
            Self::Sources => "sources",
            Self::Turns => "turns",
            Self::VipCounters => "vip_counters",
            Self::Vips4 => "vips4",
            Self::Vips6 => "vips6",
        }
    }

    /// Bytes of one value. Values stand one after the other without gaps.
    #[must_use]
    pub fn value_size(self) -> usize {
        match self {
            Self::Counters => 512,
            Self::Cpus => CpuState::SIZE,
            Self::Flows6 => 160,
            Self::Generations | Self::Loads => 8,
            Self::Journal => JournalRecord::SIZE,
            Self::Nats4 => 128,
            Self::Nats6 => 320,
            Self::Rules => Rule::SIZE,
            Self::ServerCounters | Self::VipCounters => Row::SIZE,
            Self::Servers => Server::SIZE,
            Self::Services => Service::SIZE,
            Self::Settings => Settings::SIZE,
            Self::Flows4 | Self::Slots | Self::Vips4 | Self::Vips6 => 64,
            Self::Sources => 16,
            Self::Turns => Turn::SIZE,
        }
    }
}

/// How large the tables are: the read-only globals of the program, under the
/// names of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// CPUs that may run the program.
    pub cpus: u32,
    /// Slices of each flow table.
    pub slices: u32,
    /// Buckets of a slice of the IPv4 flow table.
    pub buckets4: u32,
    /// Buckets of a slice of the IPv6 flow table.
    pub buckets6: u32,
    /// Buckets of a slice of the IPv4 NAT table.
    pub nat_buckets4: u32,
    /// Buckets of a slice of the IPv6 NAT table.
    pub nat_buckets6: u32,
    /// Buckets of one copy of either VIP table.
    pub vip_buckets: u32,
    /// Rules of one copy.
    pub rules: u32,
    /// Service numbers, 0 included.
    pub services: u32,
    /// VIP numbers, 0 included; at most 32,768.
    pub vips: u32,
    /// Server numbers, 0 included; at most 32,768.
    pub servers: u32,
    /// Slots of all tables together; a multiple of 32.
    pub slots: u32,
    /// SNAT addresses of all services.
    pub sources: u32,
    /// Journal records of each CPU.
    pub journal: u32,
    /// 1: the time is [`Settings::clock`], for tests.
    pub fixed_clock: u32,
}

impl Sizes {
    /// Tables for a balancer of one machine with so many CPUs, for `flows` IPv4
    /// flows: 20 bytes for each, so that buckets are full to four fifths; and
    /// for `translated` IPv4 flows of NAT, 80 bytes for each, as each has an
    /// entry for either direction. IPv6 flows are an eighth of either.
    ///
    /// All CPUs share one slice: entries are claimed by compare-and-swap, and a
    /// flow that changes its CPU is found at once. More slices keep CPUs out of
    /// each other's memory, but a new flow must then be looked for in all.
    #[must_use]
    pub fn of_machine(cpus: u32, flows: u32, translated: u32) -> Self {
        let buckets = |flows: u32| (flows / 16 * 5).max(64);
        Self {
            cpus,
            slices: 1,
            buckets4: buckets(flows),
            buckets6: buckets(flows / 8),
            nat_buckets4: buckets(translated.saturating_mul(2)),
            nat_buckets6: buckets(translated / 4),
            vip_buckets: 4_096,
            rules: 4_096,
            services: 512,
            vips: 2_048,
            servers: 8_192,
            slots: 1 << 22,
            sources: 1_024,
            journal: 16_384,
            fixed_clock: 0,
        }
    }

    /// Small tables and a clock that stands still, for tests and the model.
    #[must_use]
    pub fn small() -> Self {
        Self {
            cpus: 1,
            slices: 1,
            buckets4: 64,
            buckets6: 64,
            nat_buckets4: 64,
            nat_buckets6: 64,
            vip_buckets: 16,
            rules: 64,
            services: 16,
            vips: 32,
            servers: 64,
            slots: 4_096,
            sources: 16,
            journal: 64,
            fixed_clock: 1,
        }
    }

    /// Values of a table.
    #[must_use]
    pub fn entries(&self, table: Table) -> u32 {
        match table {
            Table::Counters | Table::Cpus => self.cpus,
            Table::Flows4 => self.slices * self.buckets4,
            Table::Flows6 => self.slices * self.buckets6,
            Table::Generations | Table::Turns => self.services,
            Table::Journal => self.cpus * self.journal,
            Table::Loads | Table::Servers => self.servers,
            Table::Nats4 => self.slices * self.nat_buckets4,
            Table::Nats6 => self.slices * self.nat_buckets6,
            Table::Rules => 2 * self.rules,
            Table::ServerCounters => self.cpus * self.servers,
            Table::Services => self.services * VERSIONS,
            Table::Settings => 1,
            Table::Slots => self.slots / 32,
            Table::Sources => self.sources,
            Table::VipCounters => self.cpus * self.vips,
            Table::Vips4 | Table::Vips6 => 2 * self.vip_buckets,
        }
    }

    /// Bytes of a table.
    #[must_use]
    pub fn bytes(&self, table: Table) -> usize {
        self.entries(table) as usize * table.value_size()
    }

    /// The globals by name.
    #[must_use]
    pub fn globals(&self) -> [(&'static str, u32); 15] {
        [
            ("cpus_count", self.cpus),
            ("slices", self.slices),
            ("buckets4", self.buckets4),
            ("buckets6", self.buckets6),
            ("nat_buckets4", self.nat_buckets4),
            ("nat_buckets6", self.nat_buckets6),
            ("vip_buckets", self.vip_buckets),
            ("rules_count", self.rules),
            ("services_count", self.services),
            ("vips_count", self.vips),
            ("servers_count", self.servers),
            ("slots_count", self.slots),
            ("sources_count", self.sources),
            ("journal_count", self.journal),
            ("fixed_clock", self.fixed_clock),
        ]
    }
}
