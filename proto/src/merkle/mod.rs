//! The fingerprint of any set and range of records. Knows keys and digests;
//! never values, versions, or who holds what.
//!
//! For a set S of records in key order:
//!
//! ```text
//! fp(empty) = 32 zero bytes
//! fp({r})   = digest(r)
//! fp(S)     = SHA-256("gosync.v1.branch" || fp(S0) || fp(S1))
//! ```
//!
//! where S0 and S1 are the records whose keys have 0 and 1 at the first *bit*
//! in which the keys of S differ. The bits of a key: for each byte a 1
//! followed by its eight bits, most significant first; zeros for ever after
//! the end. So a key that is a prefix of another sorts and splits before it,
//! and bit order is byte order.
//!
//! It is a crit-bit tree over the keys themselves, and these follow:
//! - A function of the set only. There is nothing to tune and no history, so
//!   two parties that hold the same records compute the same 32 bytes.
//! - Equal fingerprints mean equal sets or a SHA-256 collision: sums and XORs
//!   of digests do not have this property.
//! - The fingerprint of a range is the same definition on the records in the
//!   range. Restricting a tree to a range only removes branches, so it costs
//!   O(depth) hashes where the fingerprints of subtrees are kept.
//! - The depth is at most 9 × key length, whatever the keys; it does not
//!   depend on hashes that somebody could grind.
//!
//! [`Stream`] computes it in one pass, [`Tree`] keeps it up to date. A tree is
//! a cache: it can be dropped and rebuilt at any time.

mod finger;
mod keys;
mod ranges;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

pub use tree::Tree;
pub use walk::Iter;

use crate::key::KeyRange;
use crate::mutant;
use crate::record::{BRANCH_TAG, Digest};
use crate::sha256::sha256_of;
use std::ops::ControlFlow;

/// What a set of records amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Summary {
    /// How many records. For progress and for choosing splits; no part of any
    /// security argument.
    pub count: u64,
    /// The fingerprint.
    pub fingerprint: Digest,
}

impl Summary {
    /// Of no records.
    pub const EMPTY: Summary = Summary {
        count: 0,
        fingerprint: Digest::ZERO,
    };

    /// Of one record.
    pub fn of_record(digest: Digest) -> Summary {
        Summary {
            count: 1,
            fingerprint: digest,
        }
    }

    /// Of two sets that lie on the two sides of a critical bit: `self` has 0
    /// there, `right` has 1. Where one is empty there is no such bit, and the
    /// other stands alone.
    #[must_use]
    pub fn join(self, right: Summary) -> Summary {
        if self.count == 0 {
            right
        } else if right.count == 0 {
            self
        } else {
            Summary {
                count: self.count + right.count,
                fingerprint: branch(&self.fingerprint, &right.fingerprint),
            }
        }
    }

    /// Whether both describe the same set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// SHA-256 over the branch tag and the fingerprints of both halves.
pub fn branch(left: &Digest, right: &Digest) -> Digest {
    let mut preimage = [0; 80];
    if !mutant!(BranchTagForgotten) {
        preimage[..16].copy_from_slice(BRANCH_TAG);
    }
    preimage[16..48].copy_from_slice(&left.0);
    preimage[48..].copy_from_slice(&right.0);
    Digest(sha256_of(&preimage))
}

/// Bit `index` of a key (or of a range bound).
pub fn bit(key: &[u8], index: u32) -> bool {
    match key.get((index / 9) as usize) {
        None => false,
        Some(byte) => match index % 9 {
            0 => true,
            n => byte >> (8 - n) & 1 == 1,
        },
    }
}

/// How many first bytes two byte strings share.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    // keys of one space often share dozens: eight are compared at a time
    let (wide_a, wide_b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let wide = wide_a.iter().zip(wide_b).take_while(|(x, y)| x == y);
    let start = wide.count() * 8;
    let rest = a[start..].iter().zip(&b[start..]);
    start + rest.take_while(|(x, y)| x == y).count()
}

/// The first bit in which two keys differ; `None` for equal keys.
pub fn critical_bit(a: &[u8], b: &[u8]) -> Option<u32> {
    let shared = common_prefix(a, b);
    let byte = shared as u32 * 9;
    match (a.get(shared), b.get(shared)) {
        (None, None) => None,
        (Some(x), Some(y)) => Some(byte + 1 + (x ^ y).leading_zeros()),
        _ => Some(byte),
    }
}

/// A key that did not come after the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("keys are not in ascending order")]
pub struct NotAscending;

/// The fingerprint of records that come in key order, in one pass. Its stack
/// is as deep as the tree, at most 9 entries for each byte of the longest key.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Left halves that wait for their right half, with their critical bit,
    /// which rises from bottom to top.
    waiting: Vec<(u32, Summary)>,
    /// What came since the topmost of `waiting`.
    current: Summary,
    last_key: Vec<u8>,
}

impl Stream {
    /// Before the first record.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// The next record.
    ///
    /// # Errors
    /// [`NotAscending`]; the record is then not counted.
    pub fn push(&mut self, key: &[u8], digest: Digest) -> Result<(), NotAscending> {
        if !self.current.is_empty() {
            let Some(critical) = critical_bit(&self.last_key, key).filter(|&b| bit(key, b)) else {
                return Err(NotAscending);
            };
            while let Some((_, left)) = self.waiting.pop_if(|(b, _)| *b > critical) {
                self.current = left.join(self.current);
            }
            self.waiting.push((critical, self.current));
        }
        self.current = Summary::of_record(digest);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// The fingerprint of all that came.
    pub fn finish(self) -> Summary {
        self.waiting
            .into_iter()
            .rev()
            .fold(self.current, |right, (_, left)| left.join(right))
    }
}

/// A set of records as reconciliation sees it. [`Tree`] is one in memory; a
/// store may keep the upper part of the tree in memory and read what is below
/// on demand, hence the errors.
pub trait View {
    /// What can go wrong when parts are read from elsewhere.
    type Error;

    /// Count and fingerprint of the records in `range`.
    ///
    /// # Errors
    /// When a part cannot be read.
    fn summary(&self, range: &KeyRange) -> Result<Summary, Self::Error>;

    /// How many records lie in `range`.
    ///
    /// # Errors
    /// When a part cannot be read.
    fn count(&self, range: &KeyRange) -> Result<u64, Self::Error> {
        Ok(self.summary(range)?.count)
    }

    /// As [`View::summary`] of each of many ranges, sorted and disjoint.
    ///
    /// # Errors
    /// When a part cannot be read.
    fn summaries(&self, ranges: &[KeyRange]) -> Result<Vec<Summary>, Self::Error> {
        ranges.iter().map(|r| self.summary(r)).collect()
    }

    /// Cuts `range` into at most `parts` (at least one) ranges with similar
    /// counts, in order, each with what it holds. Implementations choose
    /// bounds near the even ones that are short and lie on high branches of
    /// the tree: these cost few bytes and few hashes.
    ///
    /// # Errors
    /// When a part cannot be read.
    fn split(
        &self,
        range: &KeyRange,
        parts: usize,
    ) -> Result<Vec<(KeyRange, Summary)>, Self::Error>;

    /// Calls `visit` with key and digest of each record in `range`, in key
    /// order, until it breaks.
    ///
    /// # Errors
    /// When a part cannot be read.
    fn items(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &Digest) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;
}
