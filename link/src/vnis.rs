use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use carrick_types::Vni;

/// The VXLAN network identifiers in use on a node. A VXLAN device is told apart
/// by identifier and port alone, so each tunnel of a node needs its own.
#[derive(Clone, Debug, Default)]
pub struct Vnis {
    taken: Arc<Mutex<HashSet<Vni>>>,
}

impl Vnis {
    /// Takes `wanted` if it is free, another one if not. Random ones are
    /// proposed, so two nodes seldom disagree: 1,000 tunnels on each side meet
    /// in about 6 of 100,000 new ones.
    ///
    /// # Panics
    ///
    /// Never: a node has fewer tunnels than there are identifiers.
    #[must_use]
    pub fn take(&self, wanted: Option<Vni>) -> Reserved {
        let mut taken = self.lock();
        let free = wanted
            .into_iter()
            .chain(std::iter::repeat_with(random))
            .find(|vni| taken.insert(*vni))
            .expect("random identifiers do not end");
        Reserved {
            vni: free,
            vnis: self.clone(),
        }
    }

    /// How many are in use.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Vni>> {
        self.taken.lock().expect("no holder of this lock panics")
    }
}

fn random() -> Vni {
    Vni::new(fastrand::u32(1..=Vni::MAX)).expect("the range is that of an identifier")
}

/// An identifier that is taken until this is dropped.
#[derive(Debug)]
pub struct Reserved {
    vni: Vni,
    vnis: Vnis,
}

impl Reserved {
    /// The identifier.
    #[must_use]
    pub fn vni(&self) -> Vni {
        self.vni
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.vnis.lock().remove(&self.vni);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_taken_once_and_free_again_when_dropped() {
        let vnis = Vnis::default();
        let wanted = Some(Vni::new(7).unwrap());
        let first = vnis.take(wanted);
        let second = vnis.take(wanted);
        assert_eq!(Some(first.vni()), wanted);
        assert_ne!(second.vni(), first.vni());
        drop(first);
        assert_eq!(Some(vnis.take(wanted).vni()), wanted);
    }
}
