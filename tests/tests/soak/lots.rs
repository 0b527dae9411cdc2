/// Numbers that look random and are the same for the same seed (Marsaglia's
/// xorshift).
pub(crate) struct Lots {
    seed: u64,
    state: u64,
}

impl Lots {
    /// Seeded by `CARRICK_SOAK_SEED`, or differently each time.
    pub(crate) fn new() -> Self {
        let given = std::env::var("CARRICK_SOAK_SEED").ok();
        let given = given.map(|text| text.parse().expect("CARRICK_SOAK_SEED is a number"));
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::from(now.unwrap().subsec_nanos()) | 1 << 32
        });
        Self { seed, state: seed }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn draw<T: Copy>(&mut self, from: &[T]) -> T {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let range = u64::try_from(from.len()).unwrap();
        from[usize::try_from(self.state % range).unwrap()]
    }
}
