//! Keys, ranges of keys and space ids: what may stand in a request as an
//! address. Knows nothing of records or versions.

use crate::mutant;
use crate::reason::{Invalid, Reason};
use std::fmt;
use std::sync::Arc;

/// A record's key: 1 to [`Key::MAX_BYTES`] opaque bytes, ordered as unsigned
/// bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// The longest key, in bytes. Part of the protocol: not configurable.
    pub const MAX_BYTES: usize = 512;

    /// Checks the length.
    ///
    /// # Errors
    /// [`Reason::Malformed`] for an empty key, [`Reason::LimitExceeded`] for a
    /// long one.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Result<Key, Invalid> {
        let bytes = bytes.into();
        match bytes.len() {
            0 if !mutant!(EmptyKeysTaken) => Err(Invalid::malformed(
                "key",
                "is empty; a key has 1 to 512 bytes",
            )),
            n if n > Key::MAX_BYTES - usize::from(mutant!(LongestKeyRefused))
                && !mutant!(LongKeysTaken) =>
            {
                Err(Invalid::limit(
                    "key",
                    "max_key_bytes",
                    Key::MAX_BYTES as u64,
                    n as u64,
                ))
            }
            _ => Ok(Key(bytes)),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The lowest byte string above this key: the key followed by a zero byte.
    /// It is a range bound and may be one byte longer than a key.
    pub fn successor(&self) -> Vec<u8> {
        let mut s = self.0.to_vec();
        s.push(0);
        s
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// The keys `k` with `start <= k` and, where there is an end, `k < end`.
/// Never empty by construction: the end is above the start.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRange {
    // shared, since neighbours have a bound in common and sessions of
    // reconciliation hand thousands of ranges on
    start: Arc<[u8]>,
    end: Option<Arc<[u8]>>,
}

impl KeyRange {
    /// The longest bound, in bytes: the successor of the longest key.
    pub const MAX_BOUND_BYTES: usize = Key::MAX_BYTES + 1;

    /// Checks the order and the length of the bounds.
    ///
    /// # Errors
    /// [`Reason::Malformed`] when the end is not above the start,
    /// [`Reason::LimitExceeded`] when a bound is too long.
    pub fn new(start: &[u8], end: Option<&[u8]>) -> Result<KeyRange, Invalid> {
        KeyRange::of_bounds(start.into(), end.map(Into::into))
    }

    /// [`KeyRange::new`] of bounds that other ranges may have as well.
    pub(crate) fn of_bounds(start: Arc<[u8]>, end: Option<Arc<[u8]>>) -> Result<KeyRange, Invalid> {
        for bound in [Some(&start), end.as_ref()].into_iter().flatten() {
            let most = Self::MAX_BOUND_BYTES - usize::from(mutant!(LongestBoundRefused));
            if bound.len() > most && !mutant!(LongBoundsTaken) {
                return Err(Invalid::limit(
                    "range",
                    "max_bound_bytes",
                    Self::MAX_BOUND_BYTES as u64,
                    bound.len() as u64,
                ));
            }
        }
        if end.as_ref().is_some_and(|e| *e <= start) {
            return Err(Invalid::malformed(
                "range",
                "its end is not above its start",
            ));
        }
        Ok(KeyRange { start, end })
    }

    /// Both bounds, to be shared.
    pub(crate) fn shared(&self) -> (Arc<[u8]>, Option<Arc<[u8]>>) {
        (self.start.clone(), self.end.clone())
    }

    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange {
            start: [].into(),
            end: None,
        }
    }

    /// Only `key`.
    pub fn single(key: &Key) -> KeyRange {
        KeyRange {
            start: key.as_bytes().into(),
            end: Some(key.successor().into()),
        }
    }

    /// Every key that begins with `prefix`.
    ///
    /// # Errors
    /// [`Reason::LimitExceeded`] when the prefix is longer than a key.
    pub fn prefix(prefix: &[u8]) -> Result<KeyRange, Invalid> {
        let mut end = prefix.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            None => KeyRange::new(prefix, None),
            Some(last) => {
                *last += 1;
                KeyRange::new(prefix, Some(&end))
            }
        }
    }

    /// The lowest key that may be in the range.
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The first byte string above the range; `None` is infinity.
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        &*self.start <= key && self.end().is_none_or(|e| key < e)
    }

    /// Whether every key of `other` lies in this range.
    pub fn covers(&self, other: &KeyRange) -> bool {
        self.start <= other.start
            && match (self.end(), other.end()) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(a), Some(b)) => b <= a,
            }
    }

    /// The keys that lie in both, if there can be any.
    pub fn intersect(&self, other: &KeyRange) -> Option<KeyRange> {
        let start = (&self.start).max(&other.start);
        let end = match (self.end(), other.end()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        KeyRange::new(start, end).ok()
    }

    /// Bounds as `std` ranges take them, for ordered maps keyed by [`Key`].
    pub fn bounds(&self) -> (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>) {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        (
            Included(&self.start),
            self.end().map_or(Unbounded, Excluded),
        )
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end() {
            Some(e) => write!(f, "[{}, {})", self.start.escape_ascii(), e.escape_ascii()),
            None => write!(f, "[{}, ∞)", self.start.escape_ascii()),
        }
    }
}

/// Ranges in ascending order that do not overlap. May be empty; neighbours may
/// touch.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct RangeSet(Vec<KeyRange>);

impl RangeSet {
    /// Checks order and disjointness.
    ///
    /// # Errors
    /// [`Reason::Malformed`] when two ranges overlap or are out of order.
    pub fn new(ranges: Vec<KeyRange>) -> Result<RangeSet, Invalid> {
        let sorted = ranges
            .windows(2)
            .all(|w| w[0].end().is_some_and(|e| e <= w[1].start()))
            && !(mutant!(TouchingRangesRefused)
                && ranges.windows(2).any(|w| w[0].end() == Some(w[1].start())));
        if sorted {
            Ok(RangeSet(ranges))
        } else {
            Err(Invalid::malformed("ranges", "are not sorted and disjoint"))
        }
    }

    /// Every key.
    pub fn all() -> RangeSet {
        RangeSet(vec![KeyRange::all()])
    }

    /// The smallest set that covers all of `ranges`, in whatever order they
    /// come; ranges that overlap or touch are joined.
    pub fn union(mut ranges: Vec<KeyRange>) -> RangeSet {
        ranges.sort();
        let mut out: Vec<KeyRange> = Vec::with_capacity(ranges.len());
        for r in ranges {
            match out.last_mut() {
                Some(last) if last.end().is_none_or(|e| r.start() <= e) => {
                    let longer = match (last.end(), r.end()) {
                        (Some(a), Some(b)) => Some(a.max(b).into()),
                        _ => None,
                    };
                    last.end = longer;
                }
                _ => out.push(r),
            }
        }
        RangeSet(out)
    }

    /// The ranges in order.
    pub fn iter(&self) -> std::slice::Iter<'_, KeyRange> {
        self.0.iter()
    }

    /// How many ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no key lies in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges as a slice, in order.
    pub fn as_slice(&self) -> &[KeyRange] {
        &self.0
    }

    /// The range that `key` lies in.
    pub fn find(&self, key: &[u8]) -> Option<&KeyRange> {
        let i = self.0.partition_point(|r| r.start() <= key);
        self.0[..i].last().filter(|r| r.contains(key))
    }

    /// Whether `key` lies in one of the ranges.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }
}

impl<'a> IntoIterator for &'a RangeSet {
    type Item = &'a KeyRange;
    type IntoIter = std::slice::Iter<'a, KeyRange>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The id of a space: 1 to 128 bytes of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SpaceId(Box<str>);

impl SpaceId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Checks length and alphabet.
    ///
    /// # Errors
    /// [`Reason::Malformed`].
    pub fn new(id: &str) -> Result<SpaceId, Invalid> {
        let legal = |b: u8| match b {
            b'.' | b'_' => !mutant!(DotsInSpacesRefused),
            b => b.is_ascii_alphanumeric() || b == b'-',
        };
        let proper = (1..=Self::MAX_BYTES).contains(&id.len()) && id.bytes().all(legal);
        if proper || mutant!(AnySpaceId) {
            Ok(SpaceId(id.into()))
        } else {
            Err(Invalid::new(
                Reason::Malformed,
                "space",
                "is not 1 to 128 characters of [A-Za-z0-9._-]",
            ))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_has_1_to_512_bytes() {
        assert_eq!(Key::new(vec![]).unwrap_err().reason, Reason::Malformed);
        assert!(Key::new(vec![0]).is_ok());
        assert!(Key::new(vec![7; 512]).is_ok());
        assert_eq!(
            Key::new(vec![7; 513]).unwrap_err().reason,
            Reason::LimitExceeded
        );
    }

    #[test]
    fn a_range_that_could_hold_no_key_is_refused() {
        assert!(KeyRange::new(b"a", Some(b"a")).is_err());
        assert!(KeyRange::new(b"b", Some(b"a")).is_err());
        assert!(KeyRange::new(b"", Some(b"")).is_err());
        assert!(KeyRange::new(b"", None).is_ok());
    }

    #[test]
    fn a_prefix_of_0xff_bytes_has_no_upper_bound() {
        assert_eq!(KeyRange::prefix(&[0xff, 0xff]).unwrap().end(), None);
        assert_eq!(KeyRange::prefix(&[1, 0xff]).unwrap().end(), Some(&[2][..]));
        assert_eq!(KeyRange::prefix(&[]).unwrap(), KeyRange::all());
    }

    #[test]
    fn ranges_out_of_order_or_overlapping_are_refused() {
        let r = |a: &[u8], b: &[u8]| KeyRange::new(a, Some(b)).unwrap();
        assert!(RangeSet::new(vec![r(b"a", b"b"), r(b"b", b"c")]).is_ok());
        assert!(RangeSet::new(vec![r(b"b", b"c"), r(b"a", b"b")]).is_err());
        assert!(RangeSet::new(vec![r(b"a", b"c"), r(b"b", b"d")]).is_err());
        assert!(RangeSet::new(vec![KeyRange::all(), r(b"b", b"d")]).is_err());
    }

    #[test]
    fn space_ids_have_a_small_alphabet() {
        for good in ["a", "team-1", "A.b_C-9", &"x".repeat(128)] {
            assert!(SpaceId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", "a\0", &"x".repeat(129)] {
            assert!(SpaceId::new(bad).is_err(), "{bad:?}");
        }
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        let bytes = || prop::collection::vec(0u8..4, 0..4);
        (bytes(), prop::option::of(bytes()))
            .prop_filter_map("inverted", |(a, b)| KeyRange::new(&a, b.as_deref()).ok())
    }

    proptest! {
        #[test]
        fn an_intersection_holds_exactly_the_keys_of_both(a in range(), b in range(), k in prop::collection::vec(0u8..4, 1..4)) {
            let both = a.contains(&k) && b.contains(&k);
            prop_assert_eq!(a.intersect(&b).is_some_and(|r| r.contains(&k)), both);
        }

        #[test]
        fn a_union_holds_exactly_the_keys_of_any(rs in prop::collection::vec(range(), 0..5), k in prop::collection::vec(0u8..4, 1..4)) {
            let any = rs.iter().any(|r| r.contains(&k));
            let union = RangeSet::union(rs);
            prop_assert!(RangeSet::new(union.0.clone()).is_ok());
            prop_assert_eq!(union.contains(&k), any);
        }

        #[test]
        fn a_prefix_range_holds_exactly_the_keys_with_the_prefix(p in prop::collection::vec(any::<u8>(), 0..4), k in prop::collection::vec(any::<u8>(), 1..6)) {
            let range = KeyRange::prefix(&p).unwrap();
            prop_assert_eq!(range.contains(&k), k.starts_with(&p));
            let mut q = p.clone();
            q.extend(&k);
            prop_assert!(range.contains(&q));
        }

        #[test]
        fn a_single_key_range_holds_that_key_only(k in prop::collection::vec(any::<u8>(), 1..4), other in prop::collection::vec(any::<u8>(), 1..4)) {
            let key = Key::new(k.clone()).unwrap();
            prop_assert_eq!(KeyRange::single(&key).contains(&other), k == other);
        }
    }
}
