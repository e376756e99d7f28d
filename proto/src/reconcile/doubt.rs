//! Ranges that were found to differ, until what differs in them is found. Knows
//! neither how anything is asked nor what becomes of it.
//!
//! Digests are short, so parts may agree by chance (RECON-037); and a server
//! may say one thing and another, which it may do only if it changed in between
//! (RECON-052).

use crate::key::{Key, KeyRange};
use crate::record::Digest;
use crate::wire;
use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};

/// Where the server stood when it answered.
pub(super) type Head = Option<wire::Cursor>;

/// A range that differs.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Doubt {
    pub range: KeyRange,
    /// The fingerprint of the replica's own records there.
    pub own: Digest,
    /// Digests of full length said so.
    pub full: bool,
    /// The state of the server that differs.
    pub head: Head,
    /// Something about it was told from another state since.
    pub moved: bool,
}

/// All of them. They do not overlap: what differs in a part of a range is why
/// the range differs.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubts {
    /// By their starts.
    ranges: BTreeMap<Vec<u8>, Doubt>,
}

impl Doubts {
    /// A piece differs. It stands for the range that it is a piece of.
    pub fn found(&mut self, doubt: Doubt) {
        self.explained(doubt.range.start());
        self.ranges.insert(doubt.range.start().to_vec(), doubt);
    }

    /// Why the range with `key` differs is known. Returns that range.
    pub fn explained(&mut self, key: &[u8]) -> Option<KeyRange> {
        let mut below = self.ranges.range::<[u8], _>((Unbounded, Included(key)));
        let (start, _) = below
            .next_back()
            .filter(|(_, doubt)| doubt.range.contains(key))?;
        let start = start.clone();
        self.ranges.remove(&start).map(|doubt| doubt.range)
    }

    /// Why the ranges with these keys differ is known; the keys in order, many
    /// in one range.
    pub fn explained_by(&mut self, keys: &[Key]) {
        let mut last: Option<KeyRange> = None;
        for key in keys.iter().map(Key::as_bytes) {
            if last.as_ref().is_some_and(|range| range.contains(key)) {
                continue;
            }
            if self.ranges.is_empty() {
                return;
            }
            last = self.explained(key).or(last);
        }
    }

    /// Something about `told` was answered from the state `head`. Returns the
    /// starts of the doubtful ranges that it touches.
    pub fn told(&mut self, told: &KeyRange, head: &Head) -> Vec<Vec<u8>> {
        let below = (Unbounded, Included(told.start()));
        let first = self.ranges.range::<[u8], _>(below).next_back();
        let first = first.map_or_else(|| told.start().to_vec(), |(start, _)| start.clone());
        let mut touched = Vec::new();
        for (start, doubt) in self.ranges.range_mut(first..) {
            if told.end().is_some_and(|end| start[..] >= *end) {
                break;
            }
            if doubt.range.intersect(told).is_some() {
                doubt.moved |= doubt.head != *head;
                touched.push(start.clone());
            }
        }
        touched
    }

    /// The doubtful range that begins at `start`, which is one no more.
    pub fn take(&mut self, start: &[u8]) -> Option<Doubt> {
        self.ranges.remove(start)
    }

    /// The doubtful range that begins at `start`.
    pub fn get(&self, start: &[u8]) -> Option<&Doubt> {
        self.ranges.get(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> KeyRange {
        KeyRange::new(start.as_bytes(), Some(end.as_bytes())).unwrap()
    }

    fn at(sequence: u64) -> Head {
        Some(wire::Cursor {
            sequence,
            ..Default::default()
        })
    }

    fn doubt(start: &str, end: &str) -> Doubt {
        Doubt {
            range: range(start, end),
            own: Digest([1; 32]),
            full: false,
            head: at(1),
            moved: false,
        }
    }

    #[test]
    fn a_piece_stands_for_its_range_and_a_key_explains_only_its_own() {
        let mut doubts = Doubts::default();
        doubts.found(doubt("a", "m"));
        doubts.found(doubt("m", "z"));
        doubts.found(doubt("a", "c"));
        doubts.found(doubt("d", "e"));
        assert!(doubts.get(b"a").is_some_and(|d| d.range == range("a", "c")));
        doubts.explained(b"c");
        assert!(doubts.get(b"a").is_some() && doubts.get(b"d").is_some());
        doubts.explained_by(&[Key::new(*b"dd").unwrap()]);
        assert_eq!(doubts.take(b"d"), None);
        assert!(doubts.take(b"a").is_some() && doubts.take(b"m").is_some());
    }

    #[test]
    fn many_keys_in_order_explain_each_range_that_holds_one() {
        let mut doubts = Doubts::default();
        for (start, end) in [("a", "c"), ("c", "e"), ("g", "k"), ("m", "p")] {
            doubts.found(doubt(start, end));
        }
        let keys = ["a", "ab", "b", "f", "h", "i", "p"].map(|k| Key::new(k.as_bytes()).unwrap());
        doubts.explained_by(&keys);
        let left = ["a", "c", "g", "m"].map(|start| doubts.get(start.as_bytes()).is_some());
        assert_eq!(left, [false, true, false, true]);
    }

    #[test]
    fn only_what_is_told_of_a_range_can_show_that_the_server_moved() {
        let mut doubts = Doubts::default();
        doubts.found(doubt("a", "c"));
        doubts.found(doubt("d", "f"));
        assert_eq!(doubts.told(&range("b", "e"), &at(1)), [b"a", b"d"]);
        assert!(!doubts.get(b"a").unwrap().moved);
        assert_eq!(doubts.told(&range("e", "g"), &at(2)), [b"d"]);
        assert!(doubts.told(&range("c", "d"), &at(2)).is_empty());
        assert!(doubts.get(b"d").unwrap().moved && !doubts.get(b"a").unwrap().moved);
    }
}
