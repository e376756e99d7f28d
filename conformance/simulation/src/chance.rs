//! The one source of chance of a run: a small generator whose whole state is
//! its seed. Knows nothing of what is decided with it.

use std::sync::{Arc, Mutex, PoisonError};

/// Draws numbers. Clones draw from the same stream, so the order of draws is
/// part of what a seed decides.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<u64>>);

impl Chance {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(Arc::new(Mutex::new(seed ^ 0x6a09_e667_f3bc_c908)))
    }

    /// A stream of its own that begins at a drawn place.
    pub fn fork(&self) -> Chance {
        Chance::new(self.bits())
    }

    /// 64 bits (SplitMix64).
    pub fn bits(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `from..=to`.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.bits() % (to.saturating_sub(from) + 1)
    }

    /// True in so many of a thousand cases.
    pub fn permille(&self, share: u64) -> bool {
        self.bits() % 1_000 < share
    }

    /// One of these; `None` of none.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        match of.len() {
            0 => None,
            n => of.get((self.bits() % n as u64) as usize),
        }
    }

    /// Mostly small numbers up to `most`, now and then a large one: how long
    /// things take.
    pub fn skewed(&self, most: u64) -> u64 {
        let bits = self.between(0, u64::from(u64::BITS - most.leading_zeros()));
        self.between(0, (1u64 << bits.min(62)).min(most))
    }
}
