use crate::tables::{
    CpuState, JournalRecord, Row, Rule, SERVER_IN_USE, Server, Service, Settings, Sizes, Table,
    Turn, VERSIONS, Vip4, Vip6,
};

/// The tables as bytes, just as the packet program's maps hold them.
///
/// Reads and writes beyond the end of a table do nothing, like look-ups of an
/// array map that fail.
#[derive(Clone, PartialEq, Eq)]
pub struct Memory {
    sizes: Sizes,
    tables: Vec<Vec<u8>>,
}

impl Memory {
    /// Tables full of zeros.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        let tables = Table::ALL.map(|table| vec![0; sizes.bytes(table)]);
        Self {
            sizes,
            tables: tables.into(),
        }
    }

    /// How large the tables are.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// A table's bytes.
    #[must_use]
    pub fn bytes(&self, table: Table) -> &[u8] {
        &self.tables[position(table)]
    }

    /// A table's bytes, to be changed.
    pub fn bytes_mut(&mut self, table: Table) -> &mut [u8] {
        &mut self.tables[position(table)]
    }

    /// `N` bytes from `at`, if the table has them.
    pub(super) fn take<const N: usize>(&self, table: Table, at: usize) -> Option<[u8; N]> {
        self.bytes(table).get(at..)?.first_chunk().copied()
    }

    /// Writes `bytes` from `at`, if the table has room for them there.
    pub(super) fn put(&mut self, table: Table, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes_mut(table).get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

fn position(table: Table) -> usize {
    let same = |other: &Table| *other == table;
    Table::ALL
        .iter()
        .position(same)
        .expect("ALL names every table")
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory of {:?}", self.sizes)
    }
}

/// Typed access to a table whose values stand one after the other.
macro_rules! values {
    ($($read:ident, $write:ident: $table:ident of $type:ident;)*) => {
        impl Memory {
            $(
                #[doc = concat!("A value of [`Table::", stringify!($table), "`].")]
                #[must_use]
                pub fn $read(&self, index: usize) -> Option<$type> {
                    let bytes = self.take(Table::$table, index * $type::SIZE)?;
                    Some($type::decode(&bytes))
                }

                #[doc = concat!("Writes a value of [`Table::", stringify!($table), "`].")]
                pub fn $write(&mut self, index: usize, value: &$type) {
                    self.put(Table::$table, index * $type::SIZE, &value.encode());
                }
            )*
        }
    };
}

values! {
    cpu, set_cpu: Cpus of CpuState;
    record, set_record: Journal of JournalRecord;
    rule, set_rule: Rules of Rule;
    server_row, set_server_row: ServerCounters of Row;
    server, set_server: Servers of Server;
    service_version, set_service_version: Services of Service;
    turn, set_turn: Turns of Turn;
    vip_row, set_vip_row: VipCounters of Row;
    vip4, set_vip4: Vips4 of Vip4;
    vip6, set_vip6: Vips6 of Vip6;
}

impl Memory {
    /// The settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let bytes = self.take(Table::Settings, 0);
        bytes.map_or_else(Settings::default, |bytes| Settings::decode(&bytes))
    }

    /// Writes the settings.
    pub fn set_settings(&mut self, settings: &Settings) {
        self.put(Table::Settings, 0, &settings.encode());
    }

    fn word(&self, table: Table, index: usize) -> Option<u64> {
        self.take(table, index * 8).map(u64::from_le_bytes)
    }

    /// Which version of a service is in force.
    #[must_use]
    pub fn generation(&self, service: u16) -> Option<u64> {
        self.word(Table::Generations, service.into())
    }

    /// Puts a version of a service in force.
    pub fn set_generation(&mut self, service: u16, generation: u64) {
        let at = usize::from(service) * 8;
        self.put(Table::Generations, at, &generation.to_le_bytes());
    }

    /// The version of a service that is in force.
    #[must_use]
    pub fn service(&self, number: u16) -> Option<Service> {
        let version = self.generation(number)? % u64::from(VERSIONS);
        let version = usize::try_from(version).ok()?;
        self.service_version(usize::from(number) * VERSIONS as usize + version)
            .filter(|service| service.used != 0)
    }

    /// A server that is in use.
    #[must_use]
    pub fn server_in_use(&self, number: u16) -> Option<Server> {
        self.server(number.into())
            .filter(|server| server.flags & SERVER_IN_USE != 0)
    }

    /// The server number in a slot.
    #[must_use]
    pub fn slot(&self, slot: u32) -> Option<u16> {
        let bytes = self.take(Table::Slots, slot as usize * 2)?;
        Some(u16::from_le_bytes(bytes))
    }

    /// Writes a slot.
    pub fn set_slot(&mut self, slot: u32, server: u16) {
        self.put(Table::Slots, slot as usize * 2, &server.to_le_bytes());
    }

    /// Live flows of a server; below zero it wraps around.
    #[must_use]
    pub fn load(&self, server: u16) -> Option<u64> {
        self.word(Table::Loads, server.into())
    }

    /// Adds to the live flows of a server and of its service.
    pub(super) fn add_load(&mut self, server: u16, service: u16, flows: i64) {
        if let Some(load) = self.load(server) {
            let load = load.wrapping_add_signed(flows);
            self.put(Table::Loads, usize::from(server) * 8, &load.to_le_bytes());
        }
        if let Some(mut turn) = self.turn(service.into()) {
            turn.flows = turn.flows.wrapping_add_signed(flows);
            self.set_turn(service.into(), &turn);
        }
    }

    /// An SNAT address.
    #[must_use]
    pub fn source(&self, index: usize) -> Option<[u8; 16]> {
        self.take(Table::Sources, index * 16)
    }

    /// Writes an SNAT address; IPv4 stands in the first four bytes.
    pub fn set_source(&mut self, index: usize, address: [u8; 16]) {
        self.put(Table::Sources, index * 16, &address);
    }

    /// Adds 1 to a counter of a CPU.
    pub(super) fn count(&mut self, cpu: usize, counter: usize) {
        let at = cpu * Table::Counters.value_size() + counter * 8;
        if let Some(value) = self.take(Table::Counters, at).map(u64::from_le_bytes) {
            self.put(Table::Counters, at, &(value + 1).to_le_bytes());
        }
    }
}
