//! Sets of records: the fingerprint of all, and of a key range.

use super::form::{self, Hex, Number, Plain, at, plain};
use super::{Case, Kind};
use crate::oracle::{self, Record};
use crate::schema::v1;
use serde::{Deserialize, Serialize};

/// Count and fingerprint of a set.
#[derive(Clone, Serialize, Deserialize)]
pub struct Fingerprint {
    records: Vec<Plain>,
    horizon: Number,
    count: u64,
    fingerprint: Hex,
}

impl Kind for Fingerprint {
    const NAME: &'static str = "fingerprint";
    const ABOUT: &'static str = "The fingerprint of a set of records.";

    fn cases() -> Vec<Case<Fingerprint>> {
        let with = |mut records: Vec<Record>, more: Record| {
            records.push(more);
            records
        };
        let chain: Vec<String> = (1..20).map(|n| "k".repeat(n)).collect();
        let counters: Vec<String> = (0..100).map(|n| format!("item-{n:03}")).collect();
        let young = Record::tombstone("b", at(9, 0), 1);
        let old = Record::tombstone("b", at(8, 0), 1);
        [
            ("no records", vec![], 0),
            ("one record", of(&["a"]), 0),
            ("two records", of(&["a", "b"]), 0),
            ("three records", of(&["a", "b", "c"]), 0),
            ("a key and its extension", of(&["a", "a\0"]), 0),
            (
                "prefixes of each other",
                of(&["a", "ab", "abc", "b", "ba"]),
                0,
            ),
            (
                "zero and 0xff bytes",
                of::<&[u8]>(&[b"\0", b"\0\0", b"\xff", b"\xff\0", b"\xff\xff"]),
                0,
            ),
            (
                "above and below the surrogates",
                of(&["\u{ffff}", "\u{10000}"]),
                0,
            ),
            ("a tombstone counts", with(of(&["a"]), young), at(9, 0)),
            (
                "a tombstone below the horizon does not",
                with(of(&["a"]), old),
                at(9, 0),
            ),
            ("a put below the horizon does", of(&["a", "b"]), at(9, 0)),
            ("a chain: each key extends the one before", of(&chain), 0),
            ("a hundred counters", of(&counters), 0),
        ]
        .into_iter()
        .map(|(name, records, horizon)| {
            let of = Fingerprint {
                records: plain(&records),
                horizon: Number(horizon),
                count: 0,
                fingerprint: Hex(Vec::new()),
            };
            Case::new(name, of)
        })
        .collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        let records = form::records(&self.records);
        let (count, fingerprint) =
            oracle::range_state(&records, &v1::Range::default(), self.horizon.0);
        self.count = count;
        self.fingerprint = Hex(fingerprint.to_vec());
        Ok(None)
    }
}

/// Records under these keys.
fn of<K: AsRef<[u8]>>(keys: &[K]) -> Vec<Record> {
    keys.iter()
        .map(|key| {
            let value = [b"value of ", key.as_ref()].concat();
            Record::put(key, at(1, 0), 1, value)
        })
        .collect()
}

/// A case's name, and the bounds of its range.
type Bounds<'a> = (&'a str, &'a [u8], Option<&'a [u8]>);

/// Count and fingerprint of a key range.
#[derive(Clone, Serialize, Deserialize)]
pub struct Range {
    records: Vec<Plain>,
    horizon: Number,
    start: Hex,
    end: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Hex>,
}

impl Kind for Range {
    const NAME: &'static str = "range";
    const ABOUT: &'static str = "The fingerprint of a key range.";

    fn cases() -> Vec<Case<Range>> {
        let keys: [&[u8]; 8] = [b"a", b"ab", b"b", b"b\0", b"ba", b"c", b"\xff", b"\xff\xff"];
        let mut records: Vec<Record> = (0..)
            .zip(keys)
            .map(|(i, key)| Record::put(key, at(i, 0), 1, "v"))
            .collect();
        records.push(Record::tombstone("bb", at(3, 0), 1));
        let case = |name: &str, records: &[Record], start: &[u8], end: Option<&[u8]>| {
            let of = Range {
                records: plain(records),
                horizon: Number(0),
                start: start.into(),
                end: end.map(Hex::from),
                count: None,
                fingerprint: None,
            };
            Case::new(name, of)
        };
        let sound: [Bounds<'_>; 9] = [
            ("all keys", b"", None),
            ("the end is not in the range", b"a", Some(b"b")),
            ("the start is", b"b", Some(b"c")),
            ("one key", b"b", Some(b"b\0")),
            ("a prefix", b"a", Some(b"b")),
            ("nothing between", b"bc", Some(b"c")),
            ("no upper end", b"c", None),
            ("from the lowest", b"", Some(b"ab")),
            ("an end that is no key", b"a", Some(b"aa\xff\xff")),
        ];
        let inverted: [Bounds<'_>; 3] = [
            ("inverted", b"b", Some(b"a")),
            ("empty", b"a", Some(b"a")),
            ("empty at the beginning", b"", Some(b"")),
        ];
        let sound = sound.map(|(name, start, end)| case(name, &records, start, end));
        let inverted = inverted.map(|(name, start, end)| case(name, &[], start, end));
        sound.into_iter().chain(inverted).collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        let range = form::range(&self.start, self.end.as_ref());
        (self.count, self.fingerprint) = (None, None);
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(Some("MALFORMED"));
        }
        let records = form::records(&self.records);
        let (count, fingerprint) = oracle::range_state(&records, &range, self.horizon.0);
        self.count = Some(count);
        self.fingerprint = Some(Hex(fingerprint.to_vec()));
        Ok(None)
    }
}
