//! Tree = stream = definition, for any set, range and sequence of edits.

use super::*;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The definition as the module's documentation states it.
fn defined(records: &[(Vec<u8>, Digest)]) -> Digest {
    let [first, .., last] = records else {
        return records.first().map_or(Digest::ZERO, |(_, d)| *d);
    };
    // in a sorted list, the outermost keys differ first
    let critical = critical_bit(&first.0, &last.0).unwrap();
    let middle = records.partition_point(|(key, _)| !bit(key, critical));
    branch(&defined(&records[..middle]), &defined(&records[middle..]))
}

fn digest(n: u64) -> Digest {
    Digest(Sha256::digest(n.to_be_bytes()).into())
}

fn stream(records: &[(Vec<u8>, Digest)]) -> Summary {
    let mut s = Stream::new();
    for (k, d) in records {
        s.push(k, *d).unwrap();
    }
    s.finish()
}

fn sorted(set: &BTreeMap<Vec<u8>, Digest>) -> Vec<(Vec<u8>, Digest)> {
    set.iter().map(|(k, d)| (k.clone(), *d)).collect()
}

/// Few distinct bytes, so that prefixes, zeros and 0xff meet often.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xfe, 0xff]);
    prop::collection::vec(byte, 1..5)
}

fn set() -> impl Strategy<Value = BTreeMap<Vec<u8>, Digest>> {
    prop::collection::btree_map(key(), any::<u64>().prop_map(digest), 0..60)
}

fn range() -> impl Strategy<Value = KeyRange> {
    let bound = || prop_oneof![Just(vec![]), key()];
    (bound(), prop::option::of(bound()))
        .prop_filter_map("inverted", |(a, b)| KeyRange::new(&a, b.as_deref()).ok())
}

#[derive(Clone, Debug)]
enum Edit {
    Put(Vec<u8>, u64),
    Remove(Vec<u8>),
    Settle,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        5 => (key(), any::<u64>()).prop_map(|(k, n)| Edit::Put(k, n)),
        3 => key().prop_map(Edit::Remove),
        1 => Just(Edit::Settle),
    ]
}

#[test]
fn key_bits_are_a_presence_bit_and_eight_bits_for_each_byte() {
    let bits: Vec<bool> = (0..20).map(|i| bit(&[0b1010_0001], i)).collect();
    let want = [1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bits, want.map(|b| b == 1));
    assert_eq!(critical_bit(b"a", b"a"), None);
    assert_eq!(critical_bit(b"a", b"a\0"), Some(9));
    assert_eq!(critical_bit(b"a", b"b"), Some(7));
}

#[test]
fn a_branch_hashes_the_documented_bytes() {
    let mut preimage = b"gosync.v1.branch".to_vec();
    preimage.extend([1; 32]);
    preimage.extend([2; 32]);
    let want: [u8; 32] = Sha256::digest(preimage).into();
    assert_eq!(branch(&Digest([1; 32]), &Digest([2; 32])), Digest(want));
}

#[test]
fn nothing_is_zero_and_one_record_is_its_digest() {
    assert_eq!(Tree::new().total(), Summary::EMPTY);
    let mut tree = Tree::new();
    tree.insert(b"k", digest(1));
    assert_eq!(tree.total().fingerprint, digest(1));
    assert_eq!(tree.remove(b"k"), Some(digest(1)));
    assert_eq!(tree.total(), Summary::EMPTY);
    assert!(tree.is_empty());
}

#[test]
fn the_stream_refuses_keys_that_do_not_ascend() {
    let mut s = Stream::new();
    s.push(b"b", digest(1)).unwrap();
    assert_eq!(s.push(b"b", digest(2)), Err(NotAscending));
    assert_eq!(s.push(b"a", digest(2)), Err(NotAscending));
    assert_eq!(s.finish(), Summary::of_record(digest(1)));
}

/// Keys that make the deepest tree there is: at each bit of a 512-byte key one
/// key leaves the path.
fn chain() -> Vec<(Vec<u8>, Digest)> {
    let mut set = BTreeMap::new();
    let spine = vec![0u8; 512];
    set.insert(spine.clone(), digest(0));
    for byte in 0..512 {
        set.insert(spine[..byte.max(1)].to_vec(), digest(byte as u64));
        for b in 0..8 {
            let mut k = spine[..=byte].to_vec();
            k[byte] = 1 << b;
            set.insert(k, digest((byte * 9 + b) as u64));
        }
    }
    sorted(&set)
}

#[test]
fn the_deepest_chain_overflows_no_stack() {
    let records = chain();
    assert_eq!(records.len(), 4608);
    let run = move || {
        let want = stream(&records);
        let built = Tree::from_sorted(records.iter().map(|(k, d)| (k, *d)));
        assert_eq!(built.total(), want);
        let mut edited = Tree::new();
        for (k, d) in records.iter().rev() {
            edited.insert(k, *d);
        }
        assert_eq!(edited.total(), want, "not settled");
        let middle = KeyRange::new(&records[1000].0, Some(&records[3000].0)).unwrap();
        let part = stream(&records[1000..3000]);
        assert_eq!(edited.summary(&middle), part);
        edited.settle();
        assert_eq!(edited.total(), want);
        assert_eq!(edited.summary(&middle), part);
        assert_eq!(edited.iter(&KeyRange::all()).count(), 4608);
        assert_eq!(edited.split(&KeyRange::all(), 16).len(), 16);
    };
    let small = std::thread::Builder::new().stack_size(128 << 10);
    small.spawn(run).unwrap().join().unwrap();
}

#[test]
fn splits_are_even_whatever_the_shape() {
    let records = chain();
    let tree = Tree::from_sorted(records.iter().map(|(k, d)| (k, *d)));
    let pieces = tree.split(&KeyRange::all(), 8);
    assert_eq!(pieces.len(), 8);
    for (_, summary) in pieces {
        let n = summary.count;
        assert!((4608 / 16..4608 / 4).contains(&n), "{n}");
    }
}

/// What a server's cache counts, and what documents name.
#[test]
fn a_tree_knows_what_memory_it_takes() {
    let records = |n: u64| (0..n).map(|i| (format!("{i:036}"), digest(i)));
    let mut tree = Tree::from_sorted(records(1000));
    let each = tree.memory() as f64 / 1000.0;
    assert!((127.0..129.0).contains(&each), "{each} bytes for 36 of key");
    assert_eq!(Tree::new().memory(), 0);
    // changes add little, and nothing where as much goes as comes
    tree.insert(b"one more", digest(0));
    let grown = tree.memory();
    assert!((grown as f64) < 1.2 * 1000.0 * each, "{grown}");
    for round in 0..50 {
        for i in 0..200 {
            tree.insert(format!("{round} {i:036}").as_bytes(), digest(i));
        }
        for i in 0..200 {
            tree.remove(format!("{round} {i:036}").as_bytes());
        }
    }
    let churned = tree.memory() as f64;
    assert!(churned < 1.8 * 1000.0 * each, "{churned}");
}

#[test]
fn bounds_of_a_split_are_as_short_as_possible() {
    let keys = [&b"apple"[..], b"apricot", b"banana", b"bananas"];
    let tree = Tree::from_sorted(keys.map(|k| (k, digest(k.len() as u64))));
    let starts: Vec<_> = tree
        .split(&KeyRange::all(), 4)
        .iter()
        .map(|(range, _)| range.start().to_vec())
        .collect();
    assert_eq!(starts, [&b""[..], b"apr", b"b", b"banana\0"]);
}

proptest! {
    #[test]
    fn the_stream_computes_the_definition(set in set()) {
        let records = sorted(&set);
        let summary = stream(&records);
        prop_assert_eq!(summary.fingerprint, defined(&records));
        prop_assert_eq!(summary.count, records.len() as u64);
    }

    #[test]
    fn a_bulk_built_tree_computes_the_definition(mut records in set().prop_map(|s| sorted(&s)), swap in any::<prop::sample::Index>()) {
        let want = defined(&records);
        let tree = Tree::from_sorted(records.iter().map(|(k, d)| (k, *d)));
        prop_assert_eq!(tree.total().fingerprint, want);
        if records.len() > 1 {
            let i = swap.index(records.len() - 1);
            records.swap(i, i + 1);
            let tree = Tree::from_sorted(records.iter().map(|(k, d)| (k, *d)));
            prop_assert_eq!(tree.total().fingerprint, want);
            prop_assert_eq!(tree.total().count, records.len() as u64);
        }
    }

    #[test]
    fn a_tree_follows_any_edits(start in set(), edits in prop::collection::vec(edit(), 0..80), range in range()) {
        let mut set = start.clone();
        let mut tree = Tree::from_sorted(sorted(&start));
        for edit in edits {
            match edit {
                Edit::Put(k, n) => prop_assert_eq!(tree.insert(&k, digest(n)), set.insert(k, digest(n))),
                Edit::Remove(k) => prop_assert_eq!(tree.remove(&k), set.remove(&k)),
                Edit::Settle => tree.settle(),
            }
            let records = sorted(&set);
            prop_assert_eq!(tree.total().fingerprint, defined(&records));
            prop_assert_eq!(tree.len(), records.len());
        }
        for (k, d) in &set {
            prop_assert_eq!(tree.get(k), Some(d));
        }
        let part: Vec<_> = sorted(&set).into_iter().filter(|(k, _)| range.contains(k)).collect();
        let want = Summary { count: part.len() as u64, fingerprint: defined(&part) };
        prop_assert_eq!(tree.summary(&range), want);
        tree.settle();
        prop_assert_eq!(tree.summary(&range), want);
        prop_assert_eq!(tree.count(&range), want.count);
        let walked: Vec<_> = tree.iter(&range).map(|(k, d)| (k.to_vec(), *d)).collect();
        prop_assert_eq!(walked, part);
    }

    /// A bound is found on the way from the one before, in whatever order they
    /// come.
    #[test]
    fn summaries_of_many_ranges_are_those_of_each(set in set(), ranges in prop::collection::vec(range(), 0..12)) {
        let tree = Tree::from_sorted(sorted(&set));
        let summaries = View::summaries(&tree, &ranges).unwrap();
        for (range, summary) in ranges.iter().zip(summaries) {
            let within = set.keys().filter(|k| range.contains(k)).count() as u64;
            prop_assert_eq!(tree.count(range), within);
            prop_assert_eq!(summary, tree.summary(range));
            prop_assert_eq!(summary.count, within);
        }
    }

    #[test]
    fn a_split_tiles_its_range_with_ranges_that_hold_something(set in set(), range in range(), parts in 0usize..12) {
        let tree = Tree::from_sorted(sorted(&set));
        let count = tree.count(&range);
        let pieces = tree.split(&range, parts);
        prop_assert_eq!(pieces.len() as u64, (parts as u64).min(count).max(1));
        let mut start = range.start().to_vec();
        for (piece, summary) in &pieces {
            prop_assert_eq!(piece.start(), &start[..]);
            prop_assert!(range.covers(piece));
            prop_assert_eq!(*summary, tree.summary(piece));
            prop_assert!(count == 0 || summary.count > 0);
            start = piece.end().unwrap_or_default().to_vec();
        }
        prop_assert_eq!(pieces.last().unwrap().0.end(), range.end());
        let ranges: Vec<_> = pieces.iter().map(|(r, _)| r.clone()).step_by(2).collect();
        let one_by_one: Vec<_> = ranges.iter().map(|r| tree.summary(r)).collect();
        prop_assert_eq!(View::summaries(&tree, &ranges).unwrap(), one_by_one);
    }
}
