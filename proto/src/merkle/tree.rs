//! The crit-bit tree with kept fingerprints. Knows nothing of records beyond
//! key and digest.
//!
//! Leaves and branches live in two arrays and point to each other by 32-bit
//! indices: 92 bytes for each record, and its key. Changes
//! mark the branches above them; [`Tree::settle`] hashes each marked branch
//! once, however many changes went through it. All walks are loops: a chain of
//! 512-byte keys is 4,607 branches deep.

use super::keys::{Keys, room};
use super::{bit, branch, critical_bit};
use crate::record::Digest;

/// A leaf (top bit set) or a branch, by index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link(u32);

const LEAF: u32 = 1 << 31;

pub(super) enum Target {
    Leaf(usize),
    Branch(usize),
}

impl Link {
    fn leaf(index: usize) -> Link {
        Link(index as u32 | LEAF)
    }

    pub(super) fn branch(index: usize) -> Link {
        Link(index as u32)
    }

    pub(super) fn target(self) -> Target {
        if self.0 & LEAF != 0 {
            Target::Leaf((self.0 & !LEAF) as usize)
        } else {
            Target::Branch(self.0 as usize)
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Branch {
    pub children: [Link; 2],
    /// Records in the left half. Not of both halves: a walk down then reads
    /// the branches on its way and nothing beside it.
    pub left: u32,
    /// Some leaf below. All share the bits before the critical one, so a bound
    /// that ends above the leaves need not be followed down to them.
    pub sample: u32,
    /// The critical bit: at most 9 × 512.
    pub bit: u16,
    /// Something below changed since the fingerprint was computed, which then
    /// means nothing. All branches above are stale too.
    pub stale: bool,
}

/// A set of records (key and digest), with the fingerprint of each subtree.
/// Holds up to 2^31 - 1 records.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub(super) root: Option<Link>,
    // Side by side rather than in one array of structures: a walk down reads
    // 16 bytes for each branch, and four neighbours share a cache line.
    pub(super) keys: Keys,
    pub(super) digests: Vec<Digest>,
    pub(super) branches: Vec<Branch>,
    fingerprints: Vec<Digest>,
    free_leaves: Vec<u32>,
    free_branches: Vec<u32>,
}

/// Above every bit: where a bound that is a key of the tree differs from it.
pub(super) const EXACT: u32 = u32::MAX;

impl Tree {
    /// No records.
    pub fn new() -> Tree {
        Tree::default()
    }

    /// From records in ascending key order: about a second for a million. Keys
    /// that are out of order are accepted and merely take longer; of two equal
    /// keys the later one counts.
    pub fn from_sorted<K: AsRef<[u8]>>(records: impl IntoIterator<Item = (K, Digest)>) -> Tree {
        let records = records.into_iter();
        let mut tree = Tree::new();
        let expected = records.size_hint().0;
        tree.digests.reserve_exact(expected);
        tree.branches.reserve_exact(expected.saturating_sub(1));
        tree.fingerprints.reserve_exact(expected.saturating_sub(1));
        // the branches from the root to the greatest key, each with the rank
        // at which its right half begins
        let mut edge: Vec<(usize, usize)> = Vec::new();
        let mut last: Option<usize> = None;
        for (key, digest) in records {
            let key = key.as_ref();
            let Some(greatest) = last else {
                tree.keys.reserve(expected, expected * key.len());
                tree.insert(key, digest);
                last = Some(0);
                continue;
            };
            let critical = critical_bit(&tree.keys[greatest], key);
            let Some(critical) = critical.filter(|&b| bit(key, b)) else {
                tree.insert(key, digest);
                (last, edge) = tree.right_edge();
                continue;
            };
            while edge
                .pop_if(|(b, _)| u32::from(tree.branches[*b].bit) > critical)
                .is_some()
            {}
            let above = edge.last().copied();
            let rank = tree.len();
            let leaf = tree.new_leaf(key, digest);
            let left = rank - above.map_or(0, |(_, first)| first);
            let new = tree.branches.len();
            let place = match above {
                Some((b, _)) => &mut tree.branches[b].children[1],
                None => tree.root.get_or_insert(Link::leaf(leaf)),
            };
            let old = *place;
            *place = Link::branch(new);
            edge.push((new, rank));
            tree.push_branch(Branch {
                children: [old, Link::leaf(leaf)],
                left: left as u32,
                sample: leaf as u32,
                bit: critical as u16,
                stale: true,
            });
            last = Some(leaf);
        }
        tree.settle();
        tree
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.keys.len() - self.free_leaves.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        let links = self.free_leaves.capacity() + self.free_branches.capacity();
        self.keys.memory()
            + self.digests.capacity() * size_of::<Digest>()
            + self.branches.capacity() * size_of::<Branch>()
            + self.fingerprints.capacity() * size_of::<Digest>()
            + links * size_of::<u32>()
    }

    /// The digest under `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Digest> {
        let leaf = self.nearest(key)?;
        (self.keys[leaf] == *key).then_some(&self.digests[leaf])
    }

    /// Adds a record, or replaces the one under the same key. Returns what was
    /// there before.
    pub fn insert(&mut self, key: &[u8], digest: Digest) -> Option<Digest> {
        let Some(nearest) = self.nearest(key) else {
            let leaf = self.new_leaf(key, digest);
            self.root = Some(Link::leaf(leaf));
            return None;
        };
        let Some(critical) = critical_bit(&self.keys[nearest], key) else {
            let old = std::mem::replace(&mut self.digests[nearest], digest);
            if old != digest {
                self.touch_path(key, EXACT, 0);
            }
            return Some(old);
        };
        let (parent, size) = self.touch_path(key, critical, 1);
        let below = match parent {
            Some((p, side)) => Some(self.branches[p].children[side]),
            None => self.root,
        };
        let sample = self.new_leaf(key, digest);
        let leaf = Link::leaf(sample);
        let below = below.unwrap_or(leaf);
        let (children, left) = if bit(key, critical) {
            ([below, leaf], size)
        } else {
            ([leaf, below], 1)
        };
        let new = Link::branch(self.new_branch(Branch {
            children,
            left: left as u32,
            sample: sample as u32,
            bit: critical as u16,
            stale: true,
        }));
        match parent {
            Some((p, side)) => self.branches[p].children[side] = new,
            None => self.root = Some(new),
        }
        None
    }

    /// Removes the record under `key` and returns its digest.
    pub fn remove(&mut self, key: &[u8]) -> Option<Digest> {
        let leaf = self.nearest(key)?;
        if self.keys[leaf] != *key {
            return None;
        }
        // the branch above the leaf's parent, to which the sibling moves up
        let mut above = None;
        let mut parent = None;
        let mut at = self.root;
        while let Some(Target::Branch(b)) = at.map(Link::target) {
            let Branch {
                bit: critical,
                children,
                ..
            } = self.branches[b];
            let side = usize::from(bit(key, u32::from(critical)));
            let other = self.sample(children[1 - side]);
            let branch = &mut self.branches[b];
            if branch.sample == leaf as u32 {
                branch.sample = other as u32;
            }
            branch.left -= 1 - side as u32;
            branch.stale = true;
            above = parent;
            parent = Some((b, side));
            at = Some(branch.children[side]);
        }
        match parent {
            None => self.root = None,
            Some((p, side)) => {
                let sibling = self.branches[p].children[1 - side];
                match above {
                    None => self.root = Some(sibling),
                    Some((a, a_side)) => self.branches[a].children[a_side] = sibling,
                }
                self.free_branches.push(p as u32);
            }
        }
        self.free_leaves.push(leaf as u32);
        self.keys.clear(leaf);
        Some(self.digests[leaf])
    }

    /// Computes the fingerprints that changes made stale, each once. Without
    /// it everything stays correct; but what is stale is hashed again by each
    /// question about it.
    pub fn settle(&mut self) {
        let mut pending: Vec<Link> = Vec::from_iter(self.root);
        while let Some(&link) = pending.last() {
            if let Target::Branch(b) = link.target() {
                let Branch {
                    stale, children, ..
                } = self.branches[b];
                if stale {
                    let before = pending.len();
                    let stale = |l: &Link| matches!(l.target(), Target::Branch(c) if self.branches[c].stale);
                    pending.extend(children.into_iter().filter(stale));
                    if pending.len() > before {
                        continue;
                    }
                    let [left, right] = children.map(|c| self.kept(c));
                    self.fingerprints[b] = branch(&left, &right);
                    self.branches[b].stale = false;
                }
            }
            pending.pop();
        }
    }

    /// A leaf that shares the longest run of first bits with `key`.
    fn nearest(&self, key: &[u8]) -> Option<usize> {
        // after the bit that tells whether a key goes on, all leaves below a
        // branch compare alike
        let end = key.len() as u32 * 9;
        let mut at = self.root?;
        loop {
            match at.target() {
                Target::Branch(b) if u32::from(self.branches[b].bit) <= end => {
                    let branch = &self.branches[b];
                    at = branch.children[usize::from(bit(key, u32::from(branch.bit)))];
                }
                _ => return Some(self.sample(at)),
            }
        }
    }

    /// Some leaf of a subtree.
    pub(super) fn sample(&self, at: Link) -> usize {
        match at.target() {
            Target::Leaf(l) => l,
            Target::Branch(b) => self.branches[b].sample as usize,
        }
    }

    /// The greatest leaf, and the branches above it with the ranks at which
    /// their right halves begin.
    fn right_edge(&self) -> (Option<usize>, Vec<(usize, usize)>) {
        let mut edge = Vec::new();
        let mut rank = 0;
        let mut at = self.root;
        while let Some(Target::Branch(b)) = at.map(Link::target) {
            rank += self.branches[b].left as usize;
            edge.push((b, rank));
            at = Some(self.branches[b].children[1]);
        }
        let leaf = at.and_then(|link| match link.target() {
            Target::Leaf(l) => Some(l),
            Target::Branch(_) => None,
        });
        (leaf, edge)
    }

    /// Marks the branches on the way to `key` whose critical bit is below
    /// `limit` and adds to their counts. Returns the last of them with the
    /// side that the key takes there, and the size of the subtree on that
    /// side before the addition.
    fn touch_path(
        &mut self,
        key: &[u8],
        limit: u32,
        added: u32,
    ) -> (Option<(usize, usize)>, usize) {
        let mut last = None;
        let mut size = self.len();
        let mut at = self.root;
        while let Some(Target::Branch(b)) = at.map(Link::target) {
            let branch = &mut self.branches[b];
            if u32::from(branch.bit) > limit {
                break;
            }
            branch.stale = true;
            let side = usize::from(bit(key, u32::from(branch.bit)));
            if side == 0 {
                size = branch.left as usize;
                branch.left += added;
            } else {
                size -= branch.left as usize;
            }
            last = Some((b, side));
            at = Some(branch.children[side]);
        }
        (last, size)
    }

    fn new_leaf(&mut self, key: &[u8], digest: Digest) -> usize {
        if let Some(free) = self.free_leaves.pop() {
            let free = free as usize;
            self.keys.set(free, key);
            self.digests[free] = digest;
            return free;
        }
        room(&mut self.digests, 1);
        self.digests.push(digest);
        self.keys.push(key)
    }

    fn new_branch(&mut self, branch: Branch) -> usize {
        if let Some(free) = self.free_branches.pop() {
            let free = free as usize;
            self.branches[free] = branch;
            return free;
        }
        self.push_branch(branch)
    }

    fn push_branch(&mut self, branch: Branch) -> usize {
        room(&mut self.branches, 1);
        room(&mut self.fingerprints, 1);
        self.branches.push(branch);
        self.fingerprints.push(Digest::ZERO);
        self.branches.len() - 1
    }

    /// The fingerprint of a subtree that is not stale.
    pub(super) fn kept(&self, at: Link) -> Digest {
        match at.target() {
            Target::Leaf(l) => self.digests[l],
            Target::Branch(b) => self.fingerprints[b],
        }
    }
}
