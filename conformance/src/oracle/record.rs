//! A record, its digest, and which of two records wins.

use crate::schema::v1;
use sha2::{Digest, Sha256};
use std::cmp::Ordering;

/// A record as the oracle sees it: plain numbers and bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// 1 to 512 bytes.
    pub key: Vec<u8>,
    /// Milliseconds << 16 | counter.
    pub time: u64,
    /// Who wrote it.
    pub replica: u64,
    /// Bit 0: tombstone.
    pub flags: u32,
    /// Empty in a tombstone.
    pub value: Vec<u8>,
}

/// Why a record may not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The key has no bytes.
    EmptyKey,
    /// The key has more than 512 bytes.
    LongKey,
    /// A flag other than bit 0 is set.
    UnknownFlag,
    /// A tombstone carries a value.
    TombstoneWithValue,
    /// The version is missing.
    NoVersion,
}

impl Defect {
    /// The name used in vectors.
    pub fn name(self) -> &'static str {
        match self {
            Defect::EmptyKey => "empty_key",
            Defect::LongKey => "long_key",
            Defect::UnknownFlag => "unknown_flag",
            Defect::TombstoneWithValue => "tombstone_with_value",
            Defect::NoVersion => "no_version",
        }
    }

    /// The protocol's reason for refusing it.
    pub fn reason(self) -> &'static str {
        match self {
            Defect::LongKey => "LIMIT_EXCEEDED",
            _ => "MALFORMED",
        }
    }
}

impl Record {
    /// A record with a value.
    pub fn put(key: impl AsRef<[u8]>, time: u64, replica: u64, value: impl AsRef<[u8]>) -> Record {
        Record {
            key: key.as_ref().to_vec(),
            time,
            replica,
            flags: 0,
            value: value.as_ref().to_vec(),
        }
    }

    /// A tombstone.
    pub fn tombstone(key: impl AsRef<[u8]>, time: u64, replica: u64) -> Record {
        Record {
            flags: 1,
            ..Record::put(key, time, replica, b"")
        }
    }

    /// Whether it says that the key was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.flags & 1 == 1
    }

    /// What forbids it, if anything.
    pub fn defect(&self) -> Option<Defect> {
        if self.key.is_empty() {
            Some(Defect::EmptyKey)
        } else if self.key.len() > 512 {
            Some(Defect::LongKey)
        } else if self.flags & !1 != 0 {
            Some(Defect::UnknownFlag)
        } else if self.is_tombstone() && !self.value.is_empty() {
            Some(Defect::TombstoneWithValue)
        } else {
            None
        }
    }

    /// SHA-256 of the value; 32 zero bytes for a tombstone.
    pub fn value_hash(&self) -> [u8; 32] {
        if self.is_tombstone() {
            [0; 32]
        } else {
            Sha256::digest(&self.value).into()
        }
    }

    /// What the digest is the SHA-256 of.
    pub fn preimage(&self) -> Vec<u8> {
        let mut bytes = b"gosync.v1.record".to_vec();
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.time.to_be_bytes());
        bytes.extend(self.replica.to_be_bytes());
        bytes.extend((self.key.len() as u32).to_be_bytes());
        bytes.extend(&self.key);
        bytes.extend(self.value_hash());
        bytes
    }

    /// The record's digest.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.preimage()).into()
    }

    /// As a message.
    pub fn to_wire(&self) -> v1::Record {
        v1::Record {
            key: self.key.clone(),
            version: Some(v1::Version {
                time: self.time,
                replica: self.replica,
            }),
            flags: self.flags,
            value: self.value.clone(),
        }
    }

    /// From a message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_wire(message: &v1::Record) -> Result<Record, Defect> {
        let version = message.version.ok_or(Defect::NoVersion)?;
        let record = Record {
            key: message.key.clone(),
            time: version.time,
            replica: version.replica,
            flags: message.flags,
            value: message.value.clone(),
        };
        match record.defect() {
            None => Ok(record),
            Some(defect) => Err(defect),
        }
    }
}

/// Versions are ordered by time, then by replica.
pub fn compare_versions(a: (u64, u64), b: (u64, u64)) -> Ordering {
    if a.0 != b.0 {
        a.0.cmp(&b.0)
    } else {
        a.1.cmp(&b.1)
    }
}

/// What becomes of an offered record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It replaces the held one.
    Wins,
    /// It is the held one.
    Same,
    /// The held one stays.
    Loses,
}

/// Offers a record where another one is held under the same key.
pub fn merge(offered: &Record, held: &Record) -> Merge {
    match compare_versions((offered.time, offered.replica), (held.time, held.replica)) {
        Ordering::Greater => return Merge::Wins,
        Ordering::Less => return Merge::Loses,
        Ordering::Equal => {}
    }
    match (offered.is_tombstone(), held.is_tombstone()) {
        (true, false) => return Merge::Wins,
        (false, true) => return Merge::Loses,
        _ => {}
    }
    match offered.value_hash().cmp(&held.value_hash()) {
        Ordering::Greater => Merge::Wins,
        Ordering::Less => Merge::Loses,
        Ordering::Equal => Merge::Same,
    }
}

/// Whether a key lies in `[start, end)`.
pub fn contains(range: &v1::Range, key: &[u8]) -> bool {
    if key < range.start.as_slice() {
        return false;
    }
    match &range.end {
        Some(end) => key < end.as_slice(),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_beats_a_put_of_the_same_version_and_the_greater_hash_the_other() {
        let (a, b) = (Record::put("k", 1, 1, "a"), Record::put("k", 1, 1, "b"));
        assert_eq!(merge(&Record::tombstone("k", 1, 1), &a), Merge::Wins);
        let a_is_greater = a.value_hash() > b.value_hash();
        assert_eq!(merge(&a, &b) == Merge::Wins, a_is_greater);
        assert_eq!(merge(&a, &a), Merge::Same);
    }

    #[test]
    fn the_preimage_has_fixed_width_fields_before_the_key() {
        let record = Record::put("key", 0x0102, 0x0304, "v");
        assert_eq!(record.preimage().len(), 16 + 4 + 8 + 8 + 4 + 3 + 32);
        assert_eq!(&record.preimage()[40..43], b"key");
    }
}
