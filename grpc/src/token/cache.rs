use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use carrick_types::Token;

/// Tokens by audience, so that not every Request costs a signature. Pure.
#[derive(Debug, Default)]
pub(super) struct Cache {
    by_audience: HashMap<Option<String>, Cached>,
}

#[derive(Debug)]
struct Cached {
    token: Token,
    made: SystemTime,
    /// A third of its life.
    fresh: Duration,
}

impl Cached {
    /// Fresh, and made in what is the past by today's clock.
    fn is_fresh(&self, now: SystemTime) -> bool {
        now.duration_since(self.made)
            .is_ok_and(|age| age < self.fresh)
    }
}

impl Cache {
    /// Most audiences that are remembered.
    pub(super) const MAX: usize = 256;

    /// The token for `audience` while less than a third of its life is gone.
    pub(super) fn token(&self, audience: Option<&str>, now: SystemTime) -> Option<Token> {
        let cached = self.by_audience.get(&audience.map(str::to_owned))?;
        cached.is_fresh(now).then(|| cached.token.clone())
    }

    /// Remembers a token made at `now`; others make room if need be.
    pub(super) fn put(&mut self, audience: Option<&str>, token: Token, now: SystemTime) {
        if self.by_audience.len() >= Self::MAX {
            self.by_audience.retain(|_, cached| cached.is_fresh(now));
        }
        if self.by_audience.len() >= Self::MAX {
            self.by_audience.clear();
        }
        let fresh = token.expires.duration_since(now).unwrap_or_default() / 3;
        self.by_audience.insert(
            audience.map(str::to_owned),
            Cached {
                token,
                made: now,
                fresh,
            },
        );
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_audience.len()
    }
}
