//! The replica's clean records as fingerprints see them: a tree over the
//! digests, without the tombstones below the horizon. A cache of the store;
//! knows neither values nor the network.

use crate::store::Leaf;
use gosync_proto::merkle::{Summary, Tree};
use gosync_proto::{Digest, Key, KeyRange, Time, mutant};
use std::collections::BTreeMap;

/// Digests of the clean records of the held ranges.
#[derive(Clone, Debug, Default)]
pub struct Image {
    tree: Tree,
    /// Every clean tombstone, also those below the horizon.
    tombstones: BTreeMap<Key, (Time, Digest)>,
    horizon: Time,
}

impl Image {
    /// From leaves in key order.
    pub fn new(leaves: Vec<Leaf>, horizon: Time) -> Image {
        let tombstones = leaves
            .iter()
            .filter(|l| l.tombstone)
            .map(|l| (l.key.clone(), (l.time, l.digest)))
            .collect();
        let seen = leaves
            .iter()
            .filter(|l| !l.tombstone || l.time >= horizon || mutant!(OldTombstonesCounted))
            .map(|l| (&l.key, l.digest));
        Image {
            tree: Tree::from_sorted(seen),
            tombstones,
            horizon,
        }
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Follows what a transaction changed.
    pub fn update(&mut self, leaves: &[(Key, Option<Leaf>)]) {
        for (key, leaf) in leaves {
            self.tombstones.remove(key);
            match leaf {
                Some(l) if l.tombstone => {
                    self.tombstones.insert(key.clone(), (l.time, l.digest));
                    if l.time >= self.horizon || mutant!(OldTombstonesCounted) {
                        self.tree.insert(key.as_bytes(), l.digest);
                    } else {
                        self.tree.remove(key.as_bytes());
                    }
                }
                Some(l) => {
                    self.tree.insert(key.as_bytes(), l.digest);
                }
                None => {
                    self.tree.remove(key.as_bytes());
                }
            }
        }
    }

    /// Looks at the records as of another horizon.
    pub fn set_horizon(&mut self, horizon: Time) {
        self.horizon = horizon;
        for (key, (time, digest)) in &self.tombstones {
            if *time < horizon && !mutant!(OldTombstonesCounted) {
                self.tree.remove(key.as_bytes());
            } else {
                self.tree.insert(key.as_bytes(), *digest);
            }
        }
    }

    /// The tombstones below `horizon`.
    pub fn tombstones_below(&self, horizon: Time) -> Vec<Key> {
        let below = self.tombstones.iter().filter(|(_, (t, _))| *t < horizon);
        below.map(|(key, _)| key.clone()).collect()
    }

    /// Count and fingerprint of a range.
    pub fn summary(&mut self, range: &KeyRange) -> Summary {
        // each stale branch is hashed once, not once for every question
        self.tree.settle();
        self.tree.summary(range)
    }

    /// The tree with every fingerprint computed.
    pub fn settled(&mut self) -> &Tree {
        self.tree.settle();
        &self.tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(key: &str, time: u64, tombstone: bool) -> Leaf {
        Leaf {
            key: Key::new(key.as_bytes()).unwrap(),
            digest: Digest([time as u8; 32]),
            time: Time(time),
            tombstone,
        }
    }

    #[test]
    fn tombstones_below_the_horizon_are_left_out_whichever_came_first() {
        let leaves = vec![leaf("a", 1, false), leaf("b", 5, true), leaf("c", 9, true)];
        let at_7 = Image::new(leaves.clone(), Time(7)).summary(&KeyRange::all());
        assert_eq!(at_7.count, 2);
        let mut moved = Image::new(leaves, Time(0));
        assert_eq!(moved.summary(&KeyRange::all()).count, 3);
        moved.set_horizon(Time(7));
        assert_eq!(moved.summary(&KeyRange::all()), at_7);
        assert_eq!(moved.tombstones_below(Time(7)).len(), 1);
        moved.set_horizon(Time(0));
        assert_eq!(moved.summary(&KeyRange::all()).count, 3);
    }

    #[test]
    fn updates_equal_a_rebuild() {
        let mut image = Image::new(vec![leaf("a", 1, false)], Time(4));
        let changes = [leaf("b", 3, true), leaf("c", 5, true), leaf("d", 2, false)];
        let changes: Vec<_> = changes
            .into_iter()
            .map(|l| (l.key.clone(), Some(l)))
            .chain([(Key::new(&b"a"[..]).unwrap(), None)])
            .collect();
        image.update(&changes);
        let rebuilt = vec![leaf("b", 3, true), leaf("c", 5, true), leaf("d", 2, false)];
        assert_eq!(
            image.summary(&KeyRange::all()),
            Image::new(rebuilt, Time(4)).summary(&KeyRange::all())
        );
    }
}
