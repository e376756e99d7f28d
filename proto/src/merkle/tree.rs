//! The crit-bit tree with kept fingerprints. Knows nothing of records beyond
//! key and digest.
//!
//! Leaves and branches live in two arrays and point to each other by 32-bit
//! indices: 96 bytes for each record beside the key's own allocation. Changes
//! mark the branches above them; [`Tree::settle`] hashes each marked branch
//! once, however many changes went through it. All walks are loops: a chain of
//! 512-byte keys is 4,607 branches deep.

use super::{Summary, View, bit, critical_bit, separator};
use crate::key::KeyRange;
use crate::record::Digest;
use std::convert::Infallible;
use std::ops::ControlFlow;

/// A leaf (top bit set) or a branch, by index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link(u32);

const LEAF: u32 = 1 << 31;

enum Target {
    Leaf(usize),
    Branch(usize),
}

impl Link {
    fn leaf(index: usize) -> Link {
        Link(index as u32 | LEAF)
    }

    fn branch(index: usize) -> Link {
        Link(index as u32)
    }

    fn target(self) -> Target {
        if self.0 & LEAF != 0 {
            Target::Leaf((self.0 & !LEAF) as usize)
        } else {
            Target::Branch(self.0 as usize)
        }
    }
}

#[derive(Clone, Debug)]
struct Leaf {
    key: Box<[u8]>,
    digest: Digest,
}

#[derive(Clone, Debug)]
struct Branch {
    /// Meaningless while `stale`.
    fingerprint: Digest,
    children: [Link; 2],
    count: u32,
    /// The critical bit: at most 9 × 512.
    bit: u16,
    /// Something below changed since the fingerprint was computed. Then all
    /// branches above are stale too.
    stale: bool,
}

/// A set of records (key and digest), with the fingerprint of each subtree.
/// Holds up to 2^31 - 1 records.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    root: Option<Link>,
    leaves: Vec<Leaf>,
    branches: Vec<Branch>,
    free_leaves: Vec<u32>,
    free_branches: Vec<u32>,
}

/// Where a bound falls: the first bit in which it differs from the keys that
/// are nearest to it.
struct Fence<'a> {
    bound: &'a [u8],
    /// [`EXACT`] when the bound is a key of the tree.
    bit: u32,
}

const EXACT: u32 = u32::MAX;

/// How a subtree lies to a fence.
enum Way {
    /// All keys are below the bound.
    Below,
    /// All keys are at or above the bound.
    Above,
    /// The bound falls into this child (0 or 1) of the branch.
    Into(usize, usize),
}

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
        tree.leaves.reserve(expected);
        tree.branches.reserve(expected.saturating_sub(1));
        // the branches from the root to the greatest key
        let mut spine: Vec<usize> = Vec::new();
        let mut last: Option<usize> = None;
        for (key, digest) in records {
            let key = key.as_ref();
            let ascending =
                last.map(|l| critical_bit(&tree.leaves[l].key, key).filter(|&b| bit(key, b)));
            match ascending {
                None => {
                    let leaf = tree.new_leaf(key, digest);
                    tree.root = Some(Link::leaf(leaf));
                    last = Some(leaf);
                }
                Some(Some(critical)) => {
                    let leaf = tree.new_leaf(key, digest);
                    while spine
                        .pop_if(|b| u32::from(tree.branches[*b].bit) > critical)
                        .is_some()
                    {}
                    let above = spine.last().copied();
                    let left = match above {
                        Some(b) => tree.branches[b].children[1],
                        None => tree.root.unwrap_or(Link::leaf(leaf)),
                    };
                    let new = tree.new_branch(critical, [left, Link::leaf(leaf)]);
                    match above {
                        Some(b) => tree.branches[b].children[1] = Link::branch(new),
                        None => tree.root = Some(Link::branch(new)),
                    }
                    spine.push(new);
                    last = Some(leaf);
                }
                Some(None) => {
                    tree.insert(key, digest);
                    (last, spine) = tree.right_edge();
                }
            }
        }
        tree.recount_and_settle();
        tree
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.leaves.len() - self.free_leaves.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The digest under `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Digest> {
        let leaf = &self.leaves[self.nearest(key)?];
        (*leaf.key == *key).then_some(&leaf.digest)
    }

    /// Adds a record, or replaces the one under the same key. Returns what was
    /// there before.
    pub fn insert(&mut self, key: &[u8], digest: Digest) -> Option<Digest> {
        let Some(nearest) = self.nearest(key) else {
            let leaf = self.new_leaf(key, digest);
            self.root = Some(Link::leaf(leaf));
            return None;
        };
        let Some(critical) = critical_bit(&self.leaves[nearest].key, key) else {
            let old = std::mem::replace(&mut self.leaves[nearest].digest, digest);
            if old != digest {
                self.touch_path(key, EXACT, 0);
            }
            return Some(old);
        };
        let leaf = Link::leaf(self.new_leaf(key, digest));
        let parent = self.touch_path(key, critical, 1);
        let below = match parent {
            Some((p, side)) => self.branches[p].children[side],
            None => self.root.unwrap_or(leaf),
        };
        let children = if bit(key, critical) {
            [below, leaf]
        } else {
            [leaf, below]
        };
        let new = Link::branch(self.new_branch(critical, children));
        match parent {
            Some((p, side)) => self.branches[p].children[side] = new,
            None => self.root = Some(new),
        }
        None
    }

    /// Removes the record under `key` and returns its digest.
    pub fn remove(&mut self, key: &[u8]) -> Option<Digest> {
        let leaf = self.nearest(key)?;
        if *self.leaves[leaf].key != *key {
            return None;
        }
        // the branch above the leaf's parent, to which the sibling moves up
        let mut above = None;
        let mut parent = None;
        let mut at = self.root;
        while let Some(Target::Branch(b)) = at.map(Link::target) {
            let branch = &mut self.branches[b];
            let side = usize::from(bit(key, u32::from(branch.bit)));
            branch.count -= 1;
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
        let leaf = &mut self.leaves[leaf];
        leaf.key = Box::default();
        Some(leaf.digest)
    }

    /// Computes the fingerprints that changes made stale, each once. Without
    /// it everything stays correct; but what is stale is hashed again by each
    /// question about it.
    pub fn settle(&mut self) {
        let mut pending: Vec<Link> = self.root.into_iter().collect();
        while let Some(&link) = pending.last() {
            if let Target::Branch(b) = link.target() {
                let branch = &self.branches[b];
                if branch.stale {
                    let before = pending.len();
                    let stale = |l: &Link| matches!(l.target(), Target::Branch(c) if self.branches[c].stale);
                    pending.extend(branch.children.into_iter().filter(stale));
                    if pending.len() > before {
                        continue;
                    }
                    let [left, right] = branch.children.map(|c| self.kept(c));
                    self.branches[b].fingerprint = left.join(right).fingerprint;
                    self.branches[b].stale = false;
                }
            }
            pending.pop();
        }
    }

    /// Count and fingerprint of all records.
    pub fn total(&self) -> Summary {
        self.root.map_or(Summary::EMPTY, |r| self.whole(r))
    }

    /// Count and fingerprint of the records in `range`, in O(depth).
    pub fn summary(&self, range: &KeyRange) -> Summary {
        let Some(mut at) = self.root else {
            return Summary::EMPTY;
        };
        let low = self.fence(range.start());
        let high = range.end().map(|end| self.fence(end));
        loop {
            let from = self.way(&low, at);
            let until = high.as_ref().map_or(Way::Below, |h| self.way(h, at));
            match (from, until) {
                (Way::Below, _) | (_, Way::Above) => return Summary::EMPTY,
                (Way::Above, Way::Below) => return self.whole(at),
                (Way::Into(..), Way::Below) => return self.from(at, &low),
                (Way::Above, Way::Into(..)) => return self.until(at, high.as_ref()),
                (Way::Into(b, 0), Way::Into(_, 1)) => {
                    let [left, right] = self.branches[b].children;
                    return self.from(left, &low).join(self.until(right, high.as_ref()));
                }
                (Way::Into(b, side), Way::Into(..)) => at = self.branches[b].children[side],
            }
        }
    }

    /// How many records lie in `range`; no hashing.
    pub fn count(&self, range: &KeyRange) -> u64 {
        let below_end = range.end().map_or(self.len() as u64, |end| self.rank(end));
        below_end.saturating_sub(self.rank(range.start()))
    }

    /// The records in `range`, in key order.
    pub fn iter<'a>(&'a self, range: &KeyRange) -> Iter<'a> {
        let mut pending = Vec::new();
        let fence = self.fence(range.start());
        let mut at = self.root;
        while let Some(link) = at.take() {
            match self.way(&fence, link) {
                Way::Below => {}
                Way::Above => pending.push(link),
                Way::Into(b, 1) => at = Some(self.branches[b].children[1]),
                Way::Into(b, _) => {
                    let [left, right] = self.branches[b].children;
                    pending.push(right);
                    at = Some(left);
                }
            }
        }
        Iter {
            tree: self,
            pending,
            left: self.count(range) as usize,
        }
    }

    /// Bounds that split the records of `range` into `parts` parts of about
    /// equal counts. Each is moved by up to a quarter of a part to where the
    /// tree branches highest, since there bounds are short and most of the
    /// fingerprint is kept.
    pub fn splits(&self, range: &KeyRange, parts: usize) -> Vec<Vec<u8>> {
        let base = self.rank(range.start());
        let count = self.count(range);
        let parts = (parts as u64).min(count);
        let mut bounds = Vec::with_capacity(parts.saturating_sub(1) as usize);
        let mut last = base;
        for i in 1..parts {
            let slack = count / (4 * parts);
            let even = base + (u128::from(count) * u128::from(i) / u128::from(parts)) as u64;
            let least = (even - slack).max(last + 1);
            let Some((rank, bound)) = self.cut(least, even + slack) else {
                break;
            };
            // within the range: its first record lies above the start
            last = rank;
            bounds.push(bound);
        }
        bounds
    }

    /// The highest branch whose right half begins at a rank between `least`
    /// and `most`, and the shortest bound that separates there.
    fn cut(&self, least: u64, most: u64) -> Option<(u64, Vec<u8>)> {
        let mut at = self.root?;
        let mut before = 0;
        while let Target::Branch(b) = at.target() {
            let [left, right] = self.branches[b].children;
            let middle = before + self.size(left);
            if middle > most {
                at = left;
            } else if middle < least {
                before = middle;
                at = right;
            } else {
                let bound = separator(self.edge(left, 1), self.edge(right, 0));
                return Some((middle, bound.to_vec()));
            }
        }
        None
    }

    /// How many keys are below `bound`.
    fn rank(&self, bound: &[u8]) -> u64 {
        let fence = self.fence(bound);
        let mut below = 0;
        let mut at = self.root;
        while let Some(link) = at.take() {
            match self.way(&fence, link) {
                Way::Below => below += self.size(link),
                Way::Above => {}
                Way::Into(b, side) => {
                    let children = self.branches[b].children;
                    if side == 1 {
                        below += self.size(children[0]);
                    }
                    at = Some(children[side]);
                }
            }
        }
        below
    }

    /// The records of a subtree at or above the fence.
    fn from(&self, mut at: Link, low: &Fence) -> Summary {
        let mut rights = Vec::new();
        let edge = loop {
            match self.way(low, at) {
                Way::Below => break Summary::EMPTY,
                Way::Above => break self.whole(at),
                Way::Into(b, side) => {
                    let children = self.branches[b].children;
                    if side == 0 {
                        rights.push(children[1]);
                    }
                    at = children[side];
                }
            }
        };
        let join = |left: Summary, right: Link| left.join(self.whole(right));
        rights.into_iter().rev().fold(edge, join)
    }

    /// The records of a subtree below the fence; all without one.
    fn until(&self, mut at: Link, high: Option<&Fence>) -> Summary {
        let Some(high) = high else {
            return self.whole(at);
        };
        let mut lefts = Vec::new();
        let edge = loop {
            match self.way(high, at) {
                Way::Below => break self.whole(at),
                Way::Above => break Summary::EMPTY,
                Way::Into(b, side) => {
                    let children = self.branches[b].children;
                    if side == 1 {
                        lefts.push(children[0]);
                    }
                    at = children[side];
                }
            }
        };
        let join = |right: Summary, left: Link| self.whole(left).join(right);
        lefts.into_iter().rev().fold(edge, join)
    }

    fn fence<'a>(&self, bound: &'a [u8]) -> Fence<'a> {
        let critical = self
            .nearest(bound)
            .and_then(|leaf| critical_bit(&self.leaves[leaf].key, bound));
        Fence {
            bound,
            bit: critical.unwrap_or(EXACT),
        }
    }

    /// How the subtree `at`, which lies on the fence's own path, lies to it.
    fn way(&self, fence: &Fence, at: Link) -> Way {
        if let Target::Branch(b) = at.target() {
            let critical = u32::from(self.branches[b].bit);
            if critical < fence.bit {
                return Way::Into(b, usize::from(bit(fence.bound, critical)));
            }
        }
        if fence.bit != EXACT && bit(fence.bound, fence.bit) {
            Way::Below
        } else {
            Way::Above
        }
    }

    /// The leaf that shares the longest run of first bits with `key`.
    fn nearest(&self, key: &[u8]) -> Option<usize> {
        let mut at = self.root?;
        loop {
            match at.target() {
                Target::Leaf(l) => return Some(l),
                Target::Branch(b) => {
                    let branch = &self.branches[b];
                    at = branch.children[usize::from(bit(key, u32::from(branch.bit)))];
                }
            }
        }
    }

    /// The lowest (side 0) or greatest (side 1) key of a subtree.
    fn edge(&self, mut at: Link, side: usize) -> &[u8] {
        loop {
            match at.target() {
                Target::Leaf(l) => return &self.leaves[l].key,
                Target::Branch(b) => at = self.branches[b].children[side],
            }
        }
    }

    /// The greatest leaf and the branches above it.
    fn right_edge(&self) -> (Option<usize>, Vec<usize>) {
        let mut spine = Vec::new();
        let mut at = self.root;
        while let Some(link) = at {
            match link.target() {
                Target::Leaf(l) => return (Some(l), spine),
                Target::Branch(b) => {
                    spine.push(b);
                    at = Some(self.branches[b].children[1]);
                }
            }
        }
        (None, spine)
    }

    /// Marks the branches on the way to `key` whose critical bit is below
    /// `limit`, adds to their counts, and returns the last of them with the
    /// side that the key takes there.
    fn touch_path(&mut self, key: &[u8], limit: u32, added: u32) -> Option<(usize, usize)> {
        let mut last = None;
        let mut at = self.root;
        while let Some(Target::Branch(b)) = at.map(Link::target) {
            let branch = &mut self.branches[b];
            if u32::from(branch.bit) > limit {
                break;
            }
            branch.count += added;
            branch.stale = true;
            let side = usize::from(bit(key, u32::from(branch.bit)));
            last = Some((b, side));
            at = Some(branch.children[side]);
        }
        last
    }

    fn new_leaf(&mut self, key: &[u8], digest: Digest) -> usize {
        let leaf = Leaf {
            key: key.into(),
            digest,
        };
        match self.free_leaves.pop() {
            Some(free) => {
                self.leaves[free as usize] = leaf;
                free as usize
            }
            None => {
                self.leaves.push(leaf);
                self.leaves.len() - 1
            }
        }
    }

    fn new_branch(&mut self, critical: u32, children: [Link; 2]) -> usize {
        let [left, right] = children.map(|c| self.size(c));
        let branch = Branch {
            fingerprint: Digest::ZERO,
            children,
            count: (left + right) as u32,
            bit: critical as u16,
            stale: true,
        };
        match self.free_branches.pop() {
            Some(free) => {
                self.branches[free as usize] = branch;
                free as usize
            }
            None => {
                self.branches.push(branch);
                self.branches.len() - 1
            }
        }
    }

    fn size(&self, at: Link) -> u64 {
        match at.target() {
            Target::Leaf(_) => 1,
            Target::Branch(b) => u64::from(self.branches[b].count),
        }
    }

    /// Count and fingerprint of a subtree.
    fn whole(&self, at: Link) -> Summary {
        match at.target() {
            Target::Branch(b) if self.branches[b].stale => self.computed(at),
            _ => self.kept(at),
        }
    }

    /// As [`Tree::whole`], of a subtree that is not stale.
    fn kept(&self, at: Link) -> Summary {
        match at.target() {
            Target::Leaf(l) => Summary::of_record(self.leaves[l].digest),
            Target::Branch(b) => Summary {
                count: u64::from(self.branches[b].count),
                fingerprint: self.branches[b].fingerprint,
            },
        }
    }

    /// As [`Tree::whole`], of a stale subtree: by its leaves and its settled
    /// parts, in one pass.
    fn computed(&self, at: Link) -> Summary {
        // stale branches on the way down, with their left half once it is done
        let mut open: Vec<(usize, Option<Summary>)> = Vec::new();
        let mut at = at;
        loop {
            let mut value = match at.target() {
                Target::Branch(b) if self.branches[b].stale => {
                    open.push((b, None));
                    at = self.branches[b].children[0];
                    continue;
                }
                _ => self.kept(at),
            };
            loop {
                match open.last_mut() {
                    None => return value,
                    Some((b, left @ None)) => {
                        *left = Some(value);
                        at = self.branches[*b].children[1];
                        break;
                    }
                    Some((_, Some(left))) => {
                        value = left.join(value);
                        open.pop();
                    }
                }
            }
        }
    }

    /// Counts and fingerprints of a tree of which only the links are right.
    fn recount_and_settle(&mut self) {
        let mut order: Vec<usize> = Vec::new();
        let mut pending: Vec<Link> = self.root.into_iter().collect();
        while let Some(link) = pending.pop() {
            if let Target::Branch(b) = link.target() {
                order.push(b);
                pending.extend(self.branches[b].children);
            }
        }
        for b in order.into_iter().rev() {
            let [left, right] = self.branches[b].children.map(|c| self.kept(c));
            let joined = left.join(right);
            let branch = &mut self.branches[b];
            branch.count = joined.count as u32;
            branch.fingerprint = joined.fingerprint;
            branch.stale = false;
        }
    }
}

/// Records of a range in key order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    tree: &'a Tree,
    /// Subtrees to come, the next one on top.
    pending: Vec<Link>,
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a Digest);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let mut at = self.pending.pop()?;
        loop {
            match at.target() {
                Target::Leaf(l) => {
                    self.left -= 1;
                    let leaf = &self.tree.leaves[l];
                    return Some((&leaf.key, &leaf.digest));
                }
                Target::Branch(b) => {
                    let [left, right] = self.tree.branches[b].children;
                    self.pending.push(right);
                    at = left;
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl View for Tree {
    type Error = Infallible;

    fn summary(&self, range: &KeyRange) -> Result<Summary, Infallible> {
        Ok(self.summary(range))
    }

    fn count(&self, range: &KeyRange) -> Result<u64, Infallible> {
        Ok(self.count(range))
    }

    fn splits(&self, range: &KeyRange, parts: usize) -> Result<Vec<Vec<u8>>, Infallible> {
        Ok(self.splits(range, parts))
    }

    fn items(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &Digest) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        for (key, digest) in self.iter(range) {
            if visit(key, digest).is_break() {
                break;
            }
        }
        Ok(())
    }
}
