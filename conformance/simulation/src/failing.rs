//! How often a disk fails: now and then, for a while, and then it works again.
//! Knows nothing of what is kept on it.

use crate::chance::Chance;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clones are of the same disk.
#[derive(Clone, Debug, Default)]
pub struct Failing(Arc<AtomicU64>);

impl Failing {
    /// From now on so many of a thousand operations fail.
    pub fn set(&self, permille: u64) {
        self.0.store(permille, Ordering::Relaxed);
    }

    /// Whether this operation does. A sound disk draws nothing.
    pub fn strikes(&self, chance: &Chance) -> bool {
        let share = self.0.load(Ordering::Relaxed);
        share > 0 && chance.permille(share)
    }
}
