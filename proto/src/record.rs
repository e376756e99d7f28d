//! Records, their digest and the merge of two records under one key. Knows
//! nothing of who holds them or how they travel.

use crate::key::Key;
use crate::mutant;
use crate::reason::Invalid;
use crate::version::{Time, Version};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::cmp::Ordering;
use std::fmt;

/// Begins the preimage of a record's digest.
pub const RECORD_TAG: &[u8; 16] = b"gosync.v1.record";
/// Begins the preimage of a fingerprint of two halves. As long as
/// [`RECORD_TAG`] and different from it, so that no preimage of the one is a
/// preimage of the other.
pub const BRANCH_TAG: &[u8; 16] = b"gosync.v1.branch";
/// The flag bit of a tombstone. No other flag exists in version 1.
pub const FLAG_TOMBSTONE: u32 = 1;

/// A SHA-256 value: of a record, of a value, or a fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// 32 zero bytes: the fingerprint of nothing, the value hash of a
    /// tombstone.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The digest in lower-case hex.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = Invalid;
    fn try_from(bytes: &[u8]) -> Result<Digest, Invalid> {
        <[u8; 32]>::try_from(bytes)
            .map(Digest)
            .map_err(|_| Invalid::malformed("fingerprint", "does not have 32 bytes"))
    }
}

/// What a key maps to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A value, opaque to the protocol.
    Put(Bytes),
    /// The key was deleted.
    Tombstone,
}

impl Content {
    /// SHA-256 of the value; 32 zero bytes for a tombstone.
    pub fn value_hash(&self) -> Digest {
        match self {
            Content::Put(value) => Digest(Sha256::digest(value).into()),
            Content::Tombstone => Digest::ZERO,
        }
    }

    /// The flags that say what it is.
    pub fn flags(&self) -> u32 {
        match self {
            Content::Put(_) => 0,
            Content::Tombstone => FLAG_TOMBSTONE,
        }
    }

    /// The value's bytes; empty for a tombstone.
    pub fn value(&self) -> &[u8] {
        match self {
            Content::Put(value) => value,
            Content::Tombstone => &[],
        }
    }
}

/// A key's state: the unit that replicates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where.
    pub key: Key,
    /// When, and by whom.
    pub version: Version,
    /// What.
    pub content: Content,
}

impl Record {
    /// Whether the record says that its key was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.content == Content::Tombstone
    }

    /// Whether fingerprints at horizon `horizon` contain the record; see
    /// [`in_fingerprints`].
    pub fn in_fingerprints(&self, horizon: Time) -> bool {
        in_fingerprints(self.is_tombstone(), self.version, horizon)
    }

    /// The record's digest: SHA-256 over
    /// `tag || flags u32 || time u64 || replica u64 || key length u32 || key ||
    /// value hash`, integers big-endian.
    pub fn digest(&self) -> Digest {
        record_digest(
            &self.key,
            self.version,
            self.content.flags(),
            &self.content.value_hash(),
        )
    }

    /// Key and value bytes, as quotas and budgets count them.
    pub fn size(&self) -> usize {
        self.key.as_bytes().len() + self.content.value().len()
    }

    /// How this record fares against `held`, the record now under the same
    /// key: last writer wins by version; at equal versions (a faulty replica) a
    /// tombstone beats a put, then the greater value hash wins. A total order,
    /// so the merge is commutative, associative and idempotent.
    pub fn merge_against(&self, held: &Record) -> Merge {
        debug_assert_eq!(self.key, held.key);
        let by_kind = || match self.is_tombstone().cmp(&held.is_tombstone()) {
            order if mutant!(TombstoneLosesTie) => order.reverse(),
            order => order,
        };
        let by_hash = || match self.content.value_hash().cmp(&held.content.value_hash()) {
            order if mutant!(SmallerHashWins) => order.reverse(),
            order => order,
        };
        let by_version = match self.version.cmp(&held.version) {
            order if mutant!(SmallerReplicaWins) && self.version.time == held.version.time => {
                order.reverse()
            }
            order => order,
        };
        let order =
            by_version
                .then_with(by_kind)
                .then_with(|| match self.content == held.content {
                    true => Ordering::Equal,
                    false => by_hash(),
                });
        match order {
            Ordering::Greater => Merge::Wins,
            Ordering::Equal => Merge::Same,
            Ordering::Less => Merge::Loses,
        }
    }
}

/// Whether fingerprints at horizon `horizon` contain a record: all but the
/// tombstones below it, which compaction may have removed on one side and not
/// yet on the other.
pub fn in_fingerprints(tombstone: bool, version: Version, horizon: Time) -> bool {
    !(tombstone && version.time < horizon)
}

/// The digest of a record of which only the value's hash is at hand.
pub fn record_digest(key: &Key, version: Version, flags: u32, value_hash: &Digest) -> Digest {
    let key = key.as_bytes();
    let mut h = Sha256::new();
    h.update(RECORD_TAG);
    let flags = if mutant!(FlagsOutOfDigest) { 0 } else { flags };
    h.update(flags.to_be_bytes());
    h.update(version.time.0.to_be_bytes());
    if !mutant!(ReplicaOutOfDigest) {
        h.update(version.replica.0.to_be_bytes());
    }
    h.update((key.len() as u32).to_be_bytes());
    if !mutant!(KeyOutOfDigest) {
        h.update(key);
    }
    h.update(value_hash.0);
    Digest(h.finalize().into())
}

/// The outcome of offering a record where another one is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// The offered record wins and replaces the held one.
    Wins,
    /// Both are the same record.
    Same,
    /// The held record wins and stays.
    Loses,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{ReplicaId, Time};
    use proptest::prelude::*;

    fn record(time: u64, replica: u64, value: Option<&[u8]>) -> Record {
        Record {
            key: Key::new(*b"k").unwrap(),
            version: Version {
                time: Time(time),
                replica: ReplicaId(replica),
            },
            content: value.map_or(Content::Tombstone, |v| {
                Content::Put(Bytes::copy_from_slice(v))
            }),
        }
    }

    #[test]
    fn every_field_is_in_the_digest() {
        let base = record(1, 2, Some(b"v"));
        let mut other_key = base.clone();
        other_key.key = Key::new(*b"l").unwrap();
        for other in [
            other_key,
            record(2, 2, Some(b"v")),
            record(1, 3, Some(b"v")),
            record(1, 2, Some(b"w")),
            record(1, 2, Some(b"")),
            record(1, 2, None),
        ] {
            assert_ne!(base.digest(), other.digest(), "{other:?}");
        }
    }

    #[test]
    fn the_digest_is_the_hash_of_the_documented_bytes() {
        let mut preimage = b"gosync.v1.record".to_vec();
        preimage.extend([0, 0, 0, 0]);
        preimage.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        preimage.extend([0, 0, 0, 0, 0, 0, 0, 2]);
        preimage.extend([0, 0, 0, 1, b'k']);
        preimage.extend(<[u8; 32]>::from(Sha256::digest(b"v")));
        let want: [u8; 32] = Sha256::digest(&preimage).into();
        assert_eq!(record(1, 2, Some(b"v")).digest(), Digest(want));
    }

    #[test]
    fn a_newer_version_wins_whatever_the_content() {
        assert_eq!(
            record(2, 0, Some(b"a")).merge_against(&record(1, 9, None)),
            Merge::Wins
        );
        assert_eq!(
            record(1, 9, None).merge_against(&record(2, 0, Some(b"a"))),
            Merge::Loses
        );
        assert_eq!(
            record(1, 3, Some(b"a")).merge_against(&record(1, 2, None)),
            Merge::Wins
        );
    }

    #[test]
    fn at_equal_versions_a_tombstone_wins_and_then_the_greater_value_hash() {
        assert_eq!(
            record(1, 1, None).merge_against(&record(1, 1, Some(b"a"))),
            Merge::Wins
        );
        let (a, b) = (record(1, 1, Some(b"a")), record(1, 1, Some(b"b")));
        let a_greater = a.content.value_hash() > b.content.value_hash();
        assert_eq!(a.merge_against(&b) == Merge::Wins, a_greater);
        assert_eq!(a.merge_against(&a.clone()), Merge::Same);
    }

    fn any_record() -> impl Strategy<Value = Record> {
        (
            0u64..3,
            0u64..3,
            prop::option::of(prop::collection::vec(0u8..3, 0..2)),
        )
            .prop_map(|(t, r, v)| record(t, r, v.as_deref()))
    }

    fn merge(a: &Record, b: &Record) -> Record {
        if b.merge_against(a) == Merge::Wins {
            b.clone()
        } else {
            a.clone()
        }
    }

    proptest! {
        #[test]
        fn merge_is_commutative_associative_and_idempotent(a in any_record(), b in any_record(), c in any_record()) {
            prop_assert_eq!(merge(&a, &b), merge(&b, &a));
            prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
            prop_assert_eq!(merge(&a, &a), a);
        }

        #[test]
        fn same_means_equal_digests(a in any_record(), b in any_record()) {
            prop_assert_eq!(a.merge_against(&b) == Merge::Same, a.digest() == b.digest());
        }
    }
}
