//! Finding the ranks of bounds. Knows the shape of the tree and its keys; no
//! digests.

use super::tree::{EXACT, Link, Target, Tree};
use super::{bit, critical_bit};
use crate::key::KeyRange;

/// A subtree, and the rank of its first record.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub at: Link,
    pub before: usize,
    pub size: usize,
}

/// Finds the ranks of bounds, each on the way from the one before: neighbours
/// share most of their path down the tree.
pub(super) struct Finger<'a> {
    tree: &'a Tree,
    bound: &'a [u8],
    /// The branches that `bound` goes through.
    path: Vec<Step>,
}

/// A subtree on the path.
#[derive(Clone, Copy)]
struct Step {
    branch: u32,
    bit: u32,
    /// Records below the subtree, and in it.
    below: usize,
    size: usize,
}

impl<'a> Finger<'a> {
    pub(super) fn new(tree: &'a Tree) -> Finger<'a> {
        Finger {
            tree,
            bound: &[],
            path: Vec::with_capacity(64),
        }
    }

    /// How many keys are below `bound`.
    pub(super) fn rank(&mut self, bound: &'a [u8]) -> usize {
        let Some(root) = self.tree.root else {
            return 0;
        };
        // up to where both bounds take the same turns
        let shared = critical_bit(self.bound, bound).unwrap_or(EXACT);
        self.bound = bound;
        while self.path.pop_if(|step| step.bit >= shared).is_some() {}
        let (mut at, mut below, mut size) = match self.path.last() {
            Some(step) => self.below(*step),
            None => (root, 0, self.tree.len()),
        };
        // after the bit that tells whether a key goes on, all leaves below a
        // branch compare alike
        let end = bound.len() as u32 * 9;
        while let Target::Branch(b) = at.target()
            && let critical = u32::from(self.tree.branches[b].bit)
            && critical <= end
        {
            let step = Step {
                branch: b as u32,
                bit: critical,
                below,
                size,
            };
            self.path.push(step);
            (at, below, size) = self.below(step);
        }
        let nearest = &self.tree.keys[self.tree.sample(at)];
        let Some(critical) = critical_bit(nearest, bound) else {
            return below;
        };
        // the highest subtree whose keys all differ from the bound there
        let above = self.path.partition_point(|step| step.bit < critical);
        if let Some(step) = self.path.get(above) {
            (below, size) = (step.below, step.size);
        }
        match bit(bound, critical) {
            true => below + size,
            false => below,
        }
    }

    /// The ranks of a range's first record and of the first one above it.
    pub(super) fn ranks(&mut self, range: &'a KeyRange) -> (usize, usize) {
        let from = self.rank(range.start());
        let to = range.end().map_or(self.tree.len(), |end| self.rank(end));
        (from, to.max(from))
    }

    /// The lowest subtree on the way to the last bound that holds the records
    /// from rank `from` up to below rank `to`: what is asked of a small range
    /// then need not begin at the root.
    pub(super) fn holding(&self, from: usize, to: usize) -> Option<Part> {
        // each step lies within the one before
        let holds = |step: &Step| step.below <= from && to <= step.below + step.size;
        let holding = self.path.partition_point(holds);
        match self.path[..holding].last() {
            Some(step) => Some(Part {
                at: Link::branch(step.branch as usize),
                before: step.below,
                size: step.size,
            }),
            None => self.tree.part(),
        }
    }

    /// The half of a subtree that the bound goes into.
    fn below(&self, step: Step) -> (Link, usize, usize) {
        let branch = &self.tree.branches[step.branch as usize];
        let left = branch.left as usize;
        match bit(self.bound, step.bit) {
            false => (branch.children[0], step.below, left),
            true => (branch.children[1], step.below + left, step.size - left),
        }
    }
}
