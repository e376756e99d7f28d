//! The fingerprint of a set of records: the recursive definition, literally.

use super::record::{Record, contains};
use crate::schema::v1;
use sha2::{Digest, Sha256};

/// Bit `i` of a key: for every byte a 1 and then its eight bits, most
/// significant first; after the end 0s.
pub fn key_bit(key: &[u8], i: usize) -> bool {
    match key.get(i / 9) {
        None => false,
        Some(_) if i.is_multiple_of(9) => true,
        Some(byte) => byte >> (8 - i % 9) & 1 == 1,
    }
}

/// The fingerprint of records in key order, each key once.
pub fn fingerprint(records: &[&Record]) -> [u8; 32] {
    match records {
        [] => [0; 32],
        [one] => one.digest(),
        [first, .., last] => {
            // in key order, all keys agree on the bits on which the first and
            // the last agree
            let mut bit = 0;
            while key_bit(&first.key, bit) == key_bit(&last.key, bit) {
                bit += 1;
                if bit > 9 * (first.key.len().max(last.key.len())) {
                    return first.digest(); // the same key twice: not a set
                }
            }
            let zeros = records.iter().take_while(|r| !key_bit(&r.key, bit)).count();
            let mut hash = Sha256::new();
            hash.update(b"gosync.v1.branch");
            hash.update(fingerprint(&records[..zeros]));
            hash.update(fingerprint(&records[zeros..]));
            hash.finalize().into()
        }
    }
}

/// Whether a fingerprint at horizon `h` counts this record: tombstones below
/// it are left out.
pub fn visible(record: &Record, horizon: u64) -> bool {
    !(record.is_tombstone() && record.time < horizon)
}

/// Count and fingerprint of the records of a range, at a horizon.
pub fn range_state<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    range: &v1::Range,
    horizon: u64,
) -> (u64, [u8; 32]) {
    let mut inside: Vec<&Record> = records
        .into_iter()
        .filter(|r| contains(range, &r.key) && visible(r, horizon))
        .collect();
    inside.sort_by(|a, b| a.key.cmp(&b.key));
    (inside.len() as u64, fingerprint(&inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_splits_before_the_longer_key() {
        assert!(!key_bit(b"a", 9));
        assert!(key_bit(b"ab", 9));
        assert!(key_bit(b"a\0", 9));
    }

    #[test]
    fn two_records_hash_as_one_branch() {
        let (a, b) = (Record::put("a", 1, 1, ""), Record::put("b", 1, 1, ""));
        let mut bytes = b"gosync.v1.branch".to_vec();
        bytes.extend(a.digest());
        bytes.extend(b.digest());
        let want: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(fingerprint(&[&a, &b]), want);
    }

    proptest! {
        #[test]
        fn the_bits_of_keys_order_as_their_bytes_do(a in prop::collection::vec(any::<u8>(), 0..4), b in prop::collection::vec(any::<u8>(), 0..4)) {
            let bits = |k: &[u8]| (0..45).map(|i| key_bit(k, i)).collect::<Vec<_>>();
            prop_assert_eq!(a.cmp(&b), bits(&a).cmp(&bits(&b)));
        }

        #[test]
        fn another_set_has_another_fingerprint(keys in prop::collection::btree_set("[ab]{1,4}", 2..12), drop in any::<prop::sample::Index>()) {
            let records: Vec<Record> = keys.iter().map(|k| Record::put(k, 1, 1, "v")).collect();
            let all: Vec<&Record> = records.iter().collect();
            let mut fewer = all.clone();
            fewer.remove(drop.index(all.len()));
            prop_assert_ne!(fingerprint(&all), fingerprint(&fewer));
        }
    }
}
