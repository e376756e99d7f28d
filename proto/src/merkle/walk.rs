//! Walks over a tree in key order, and the tree as a [`View`].

use super::finger::Finger;
use super::tree::{Link, Target, Tree};
use super::{Summary, View};
use crate::key::KeyRange;
use crate::record::Digest;
use std::convert::Infallible;
use std::ops::ControlFlow;

impl Tree {
    /// The records in `range`, in key order.
    pub fn iter<'a>(&'a self, range: &KeyRange) -> Iter<'a> {
        let mut finger = Finger::new(self);
        let (from, to) = finger.ranks(range);
        let left = to - from;
        let mut pending = Vec::with_capacity(32);
        let part = finger.holding(from, to).filter(|_| left > 0);
        let mut at = part.map(|part| part.at);
        let mut from = part.map_or(0, |part| from - part.before);
        while let Some(link) = at.take() {
            match link.target() {
                Target::Branch(b) if from > 0 => {
                    let branch = &self.branches[b];
                    let [low, high] = branch.children;
                    if let Some(rest) = from.checked_sub(branch.left as usize) {
                        from = rest;
                        at = Some(high);
                    } else {
                        pending.push(high);
                        at = Some(low);
                    }
                }
                _ => pending.push(link),
            }
        }
        Iter {
            tree: self,
            pending,
            left,
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
                    return Some((&self.tree.keys[l], &self.tree.digests[l]));
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

    fn summaries(&self, ranges: &[KeyRange]) -> Result<Vec<Summary>, Infallible> {
        let mut finger = Finger::new(self);
        let mut last: (&[u8], usize) = (&[], 0);
        let mut summaries = Vec::with_capacity(ranges.len());
        for range in ranges {
            let from = match last {
                (end, rank) if end == range.start() => rank,
                _ => finger.rank(range.start()),
            };
            let to = match range.end() {
                None => self.len(),
                Some(end) => {
                    last = (end, finger.rank(end));
                    last.1
                }
            };
            summaries.push(self.between(finger.holding(from, to), from, to));
        }
        Ok(summaries)
    }

    fn split(
        &self,
        range: &KeyRange,
        parts: usize,
    ) -> Result<Vec<(KeyRange, Summary)>, Infallible> {
        Ok(self.split(range, parts))
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
