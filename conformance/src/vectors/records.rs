//! Records and versions: digest, order, merge.

use super::form::{Hex, Number, Plain, at, milk};
use super::{Case, Kind};
use crate::oracle::{self, Record};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// The digest of a record.
#[derive(Clone, Serialize, Deserialize)]
pub struct Digest {
    record: Plain,
    #[serde(skip_serializing_if = "Option::is_none")]
    preimage: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Hex>,
}

impl Kind for Digest {
    const NAME: &'static str = "digest";
    const ABOUT: &'static str = "The digest of a record, and records that may not exist.";

    fn cases() -> Vec<Case<Digest>> {
        let milk = milk();
        let with_key = |key: &[u8]| Record::put(key, 1, 1, "v");
        let flagged = |flags: u32, value: &str| Record {
            flags,
            ..Record::put("k", 1, 1, value)
        };
        [
            ("a put", milk.clone()),
            (
                "a tombstone of the same version",
                Record::tombstone("milk", milk.time, milk.replica),
            ),
            (
                "an empty value is no tombstone",
                Record::put("milk", milk.time, milk.replica, ""),
            ),
            ("the shortest key", with_key(b"\0")),
            ("the longest key", with_key(&[0xff; 512])),
            (
                "a key of which another is a prefix",
                Record::put("milk\0", milk.time, milk.replica, "2 litres"),
            ),
            ("all numbers zero", Record::put("k", 0, 0, "")),
            (
                "all numbers at their maximum",
                Record::put("k", u64::MAX, u64::MAX, "v"),
            ),
            (
                "a value of 1,000 bytes",
                Record::put("k", 1, 1, [0xa5; 1000]),
            ),
            ("a key that is no UTF-8", with_key(b"\xc3\x28\x80")),
            ("an empty key", with_key(b"")),
            ("a key of 513 bytes", with_key(&[b'k'; 513])),
            ("an unknown flag", flagged(2, "v")),
            (
                "an unknown flag beside the tombstone's",
                flagged(0x8000_0001, ""),
            ),
            ("a tombstone with a value", flagged(1, "v")),
        ]
        .into_iter()
        .map(|(name, record)| {
            let of = Digest {
                record: (&record).into(),
                preimage: None,
                digest: None,
            };
            Case::new(name, of)
        })
        .collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        let record = Record::from(&self.record);
        let defect = record.defect().map(oracle::Defect::name);
        let sound = defect.is_none();
        self.preimage = sound.then(|| Hex(record.preimage()));
        self.digest = sound.then(|| Hex(record.digest().to_vec()));
        Ok(defect)
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Version {
    time: Number,
    replica: Number,
}

/// The order of two versions.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    a: Version,
    b: Version,
    order: String,
}

impl Kind for Order {
    const NAME: &'static str = "order";
    const ABOUT: &'static str = "The order of versions.";

    fn cases() -> Vec<Case<Order>> {
        let half = 1 << 63;
        [
            ("equal", (5, 5), (5, 5)),
            ("by time", (1, 9), (2, 0)),
            ("by replica at equal times", (5, 1), (5, 2)),
            ("replicas compare as unsigned", (5, half - 1), (5, half)),
            ("times compare as unsigned", (half - 1, 0), (half, 0)),
            (
                "the counter is part of the time",
                (at(7, 1), 0),
                (at(7, 2), 0),
            ),
            (
                "a millisecond is above every counter",
                (at(7, 0xffff), u64::MAX),
                (at(8, 0), 0),
            ),
        ]
        .into_iter()
        .flat_map(|(name, a, b)| both_ways(name, a, b))
        .map(|(name, a, b)| {
            let version = |(time, replica)| Version {
                time: Number(time),
                replica: Number(replica),
            };
            let of = Order {
                a: version(a),
                b: version(b),
                order: String::new(),
            };
            Case::new(name, of)
        })
        .collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        let version = |v: &Version| (v.time.0, v.replica.0);
        self.order = match oracle::compare_versions(version(&self.a), version(&self.b)) {
            Ordering::Less => "less",
            Ordering::Equal => "equal",
            Ordering::Greater => "greater",
        }
        .to_owned();
        Ok(None)
    }
}

/// A case, and the same with its sides exchanged.
fn both_ways<T: Clone>(name: &str, a: T, b: T) -> [(String, T, T); 2] {
    [
        (name.to_owned(), a.clone(), b.clone()),
        (format!("{name}, exchanged"), b, a),
    ]
}

/// Which of two records is kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Merge {
    a: Plain,
    b: Plain,
    winner: String,
}

impl Kind for Merge {
    const NAME: &'static str = "merge";
    const ABOUT: &'static str = "Which of two records under one key is kept.";

    fn cases() -> Vec<Case<Merge>> {
        let put = |time: u64, replica: u64, value: &str| Record::put("k", time, replica, value);
        let tombstone = |time: u64, replica: u64| Record::tombstone("k", time, replica);
        let base = put(at(5, 0), 5, "value");
        [
            ("newer time", put(at(6, 0), 1, "other")),
            ("newer by one tick", put(at(5, 1), 1, "other")),
            ("greater replica", put(at(5, 0), 6, "other")),
            ("the same record", base.clone()),
            ("same version, other value", put(at(5, 0), 5, "other")),
            ("same version, empty value", put(at(5, 0), 5, "")),
            ("same version, tombstone", tombstone(at(5, 0), 5)),
            ("older tombstone", tombstone(at(4, 0), 9)),
            ("newer tombstone", tombstone(at(6, 0), 0)),
        ]
        .into_iter()
        .flat_map(|(name, other)| both_ways(name, base.clone(), other))
        .map(|(name, a, b)| {
            let of = Merge {
                a: (&a).into(),
                b: (&b).into(),
                winner: String::new(),
            };
            Case::new(name, of)
        })
        .collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        self.winner = match oracle::merge(&(&self.a).into(), &(&self.b).into()) {
            oracle::Merge::Wins => "a",
            oracle::Merge::Same => "same",
            oracle::Merge::Loses => "b",
        }
        .to_owned();
        Ok(None)
    }
}
