//! SQLite's locks on files and on the index of its log. Knows no files.

use std::collections::BTreeMap;

/// Names one opening of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HandleId(pub u64);

/// How much of a file a handle has locked; SQLite's five levels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Not at all.
    None,
    /// Reads.
    Shared,
    /// Is going to write; others may read.
    Reserved,
    /// Waits for the readers to go; no new ones.
    Pending,
    /// Writes.
    Exclusive,
}

/// The locks of one file.
#[derive(Debug, Default)]
pub struct FileLocks(BTreeMap<HandleId, Level>);

impl FileLocks {
    /// Raises a handle's lock; `false` when another one is in the way.
    pub fn raise(&mut self, handle: HandleId, wanted: Level) -> bool {
        let mine = self.level(handle);
        if mine >= wanted {
            return true;
        }
        let others = self.0.iter().filter(|(h, _)| **h != handle);
        let highest = others.map(|(_, l)| *l).max().unwrap_or(Level::None);
        let granted = match wanted {
            Level::None => Level::None,
            Level::Shared if highest < Level::Pending => Level::Shared,
            Level::Reserved if highest < Level::Reserved => Level::Reserved,
            Level::Pending | Level::Exclusive if highest == Level::None => wanted,
            // keeps new readers out while the present ones finish
            Level::Pending | Level::Exclusive if highest == Level::Shared => {
                self.0.insert(handle, Level::Pending);
                return wanted == Level::Pending;
            }
            _ => return false,
        };
        self.0.insert(handle, granted);
        true
    }

    /// Lowers a handle's lock.
    pub fn lower(&mut self, handle: HandleId, to: Level) {
        match to {
            Level::None => self.0.remove(&handle),
            to => self.0.insert(handle, to),
        };
    }

    /// Whether any handle is going to write.
    pub fn reserved(&self) -> bool {
        self.0.values().any(|l| *l >= Level::Reserved)
    }

    fn level(&self, handle: HandleId) -> Level {
        self.0.get(&handle).copied().unwrap_or(Level::None)
    }
}

/// The locks of one log's index: some slots, each shared or exclusive.
#[derive(Debug, Default)]
pub struct IndexLocks {
    shared: BTreeMap<(u32, HandleId), ()>,
    exclusive: BTreeMap<u32, HandleId>,
}

impl IndexLocks {
    /// Locks slots; all or none.
    pub fn lock(&mut self, handle: HandleId, slots: std::ops::Range<u32>, exclusive: bool) -> bool {
        let free = slots.clone().all(|slot| {
            let others_write = self.exclusive.get(&slot).is_some_and(|h| *h != handle);
            let mut readers = self
                .shared
                .range((slot, HandleId(0))..=(slot, HandleId(u64::MAX)));
            let others_read = readers.any(|((_, h), ())| *h != handle);
            !(others_write || exclusive && others_read)
        });
        if free {
            for slot in slots {
                match exclusive {
                    true => {
                        self.exclusive.insert(slot, handle);
                    }
                    false => {
                        self.shared.insert((slot, handle), ());
                    }
                }
            }
        }
        free
    }

    /// Gives slots back.
    pub fn unlock(&mut self, handle: HandleId, slots: std::ops::Range<u32>, exclusive: bool) {
        for slot in slots {
            match exclusive {
                true => {
                    self.exclusive.retain(|s, h| *s != slot || *h != handle);
                }
                false => {
                    self.shared.remove(&(slot, handle));
                }
            }
        }
    }

    /// Gives everything back.
    pub fn forget(&mut self, handle: HandleId) {
        self.shared.retain(|(_, h), ()| *h != handle);
        self.exclusive.retain(|_, h| *h != handle);
    }
}
