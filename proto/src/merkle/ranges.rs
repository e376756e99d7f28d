//! Questions about ranges of a tree: counts, fingerprints, splits. Changes
//! nothing.

use super::finger::{Finger, Part};
use super::tree::{Branch, Link, Target, Tree};
use super::{Summary, branch};
use crate::key::KeyRange;
use crate::mutant;
use crate::record::Digest;
use std::sync::Arc;

impl Tree {
    /// Count and fingerprint of all records.
    pub fn total(&self) -> Summary {
        self.between(self.part(), 0, self.len())
    }

    /// Count and fingerprint of the records in `range`, in O(depth).
    pub fn summary(&self, range: &KeyRange) -> Summary {
        let mut finger = Finger::new(self);
        let (from, to) = finger.ranks(range);
        match self.between(finger.holding(from, to), from, to) {
            Summary { count: 0, .. } if mutant!(EmptyIsNotZero) => Summary {
                count: 0,
                fingerprint: branch(&Digest::ZERO, &Digest::ZERO),
            },
            summary => summary,
        }
    }

    /// How many records lie in `range`; no hashing.
    pub fn count(&self, range: &KeyRange) -> u64 {
        let (from, to) = Finger::new(self).ranks(range);
        (to - from) as u64
    }

    /// Cuts `range` into up to `parts` ranges with similar counts, each with
    /// what it holds. Each bound lies where the tree branches highest within
    /// half a part of where what is left would be cut evenly: there bounds are
    /// short, and a part mostly is a subtree or two, whose fingerprints are
    /// kept, here and at the peer, whose tree has nearly the same branches.
    /// What is left always is worth three quarters to four thirds of its
    /// parts, so no part is much larger or smaller than the others.
    pub fn split(&self, range: &KeyRange, parts: usize) -> Vec<(KeyRange, Summary)> {
        let mut finger = Finger::new(self);
        let (base, end) = finger.ranks(range);
        let part = finger.holding(base, end);
        let count = end - base;
        let parts = parts.clamp(1, count.max(1));
        let mut pieces = Vec::with_capacity(parts);
        let (mut start, infinity) = range.shared();
        let mut first = base;
        for more in (1..parts).rev() {
            // what `more` parts of three quarters and four thirds would take
            let [low, high] = [(3, 4), (4, 3)]
                .map(|(n, of)| (count as u128 * more as u128 * n / (parts as u128 * of)) as usize);
            let size = (end - first) / (more + 1);
            let even = first + size;
            let least = (first + size.div_ceil(2)).max(end.saturating_sub(high));
            let most = (even + size / 2).min(end.saturating_sub(low));
            let (least, most) = (least.min(even), most.max(even).min(end - more));
            let Some((rank, bound)) = self.cut(part, least, most) else {
                break;
            };
            // ascends: each piece has a record at or above its start
            let Ok(piece) = KeyRange::of_bounds(start.clone(), Some(bound.clone())) else {
                break;
            };
            pieces.push((piece, self.between(part, first, rank)));
            (start, first) = (bound, rank);
        }
        if let Ok(last) = KeyRange::of_bounds(start, infinity) {
            pieces.push((last, self.between(part, first, end)));
        }
        pieces
    }

    /// The bound between the halves of the highest branch of a subtree whose
    /// right half begins at a rank between `least` and `most`, and that rank.
    fn cut(&self, part: Option<Part>, least: usize, most: usize) -> Option<(usize, Arc<[u8]>)> {
        let Part {
            mut at, mut before, ..
        } = part?;
        while let Target::Branch(b) = at.target() {
            let branch = &self.branches[b];
            let middle = before + branch.left as usize;
            let [left, right] = branch.children;
            if middle > most {
                at = left;
            } else if middle < least {
                before = middle;
                at = right;
            } else {
                return Some((middle, self.bound(branch)));
            }
        }
        None
    }

    /// All of the tree.
    pub(super) fn part(&self) -> Option<Part> {
        self.root.map(|at| Part {
            at,
            before: 0,
            size: self.len(),
        })
    }

    /// The records from rank `from` up to below rank `to`, all of which are in
    /// `part`.
    pub(super) fn between(&self, part: Option<Part>, from: usize, to: usize) -> Summary {
        let Some(part) = part.filter(|_| from < to) else {
            return Summary::EMPTY;
        };
        let (mut at, mut size) = (part.at, part.size);
        let (mut from, mut to) = (from - part.before, to - part.before);
        while from > 0 || to < size {
            let Target::Branch(b) = at.target() else {
                break;
            };
            let branch = &self.branches[b];
            let left = branch.left as usize;
            let [low, high] = branch.children;
            if to <= left {
                (at, size) = (low, left);
            } else if from >= left {
                (at, size) = (high, size - left);
                (from, to) = (from - left, to - left);
            } else {
                let low = self.rank_and_above(low, left, from);
                return low.join(self.below_rank(high, size - left, to - left));
            }
        }
        self.whole(at, size)
    }

    /// The records of a subtree of `size` records from rank `from` on.
    fn rank_and_above(&self, mut at: Link, mut size: usize, mut from: usize) -> Summary {
        let mut rights = Vec::new();
        while let (1.., Target::Branch(b)) = (from, at.target()) {
            let branch = &self.branches[b];
            let left = branch.left as usize;
            let [low, high] = branch.children;
            if from < left {
                rights.push((high, size - left));
                (at, size) = (low, left);
            } else {
                (at, size) = (high, size - left);
                from -= left;
            }
        }
        let join = |left: Summary, (at, size)| left.join(self.whole(at, size));
        rights.into_iter().rev().fold(self.whole(at, size), join)
    }

    /// The records of a subtree of `size` records below rank `to` (at least 1).
    fn below_rank(&self, mut at: Link, mut size: usize, mut to: usize) -> Summary {
        let mut lefts = Vec::new();
        while let (true, Target::Branch(b)) = (to < size, at.target()) {
            let branch = &self.branches[b];
            let left = branch.left as usize;
            let [low, high] = branch.children;
            if to <= left {
                (at, size) = (low, left);
            } else {
                lefts.push((low, left));
                (at, size) = (high, size - left);
                to -= left;
            }
        }
        let join = |right: Summary, (at, size)| self.whole(at, size).join(right);
        lefts.into_iter().rev().fold(self.whole(at, size), join)
    }

    /// The shortest bound between the halves of a branch: the bits that they
    /// share, a 1, and zeros to the end of the byte.
    fn bound(&self, branch: &Branch) -> Arc<[u8]> {
        let key = &self.keys[branch.sample as usize];
        let (byte, n) = (usize::from(branch.bit / 9), branch.bit % 9);
        let last = match (n, key.get(byte)) {
            (1.., Some(last)) => {
                let one = 1 << (8 - n);
                last & !(one - 1) | one
            }
            _ => 0,
        };
        // the half with a 0 has all bytes before
        let shared = &key[..byte.min(key.len())];
        shared.iter().copied().chain([last]).collect()
    }

    /// Of a subtree of `size` records.
    fn whole(&self, at: Link, size: usize) -> Summary {
        Summary {
            count: size as u64,
            fingerprint: match at.target() {
                Target::Branch(b) if self.branches[b].stale => self.computed(at),
                _ => self.kept(at),
            },
        }
    }

    /// The fingerprint of a stale subtree, from its settled parts.
    fn computed(&self, mut at: Link) -> Digest {
        // stale branches on the way down, with their left half once it is done
        let mut open: Vec<(usize, Option<Digest>)> = Vec::new();
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
                        value = branch(left, &value);
                        open.pop();
                    }
                }
            }
        }
    }
}
