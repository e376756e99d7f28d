//! The messages of `gosync.v1` as generated from the schema, and the checked
//! ways from them into this crate's types. Knows no transport.
//!
//! The generated code is checked in, so that building needs no compiler for
//! schemas; a test fails when it is stale.

#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
mod generated {
    include!("wire/gosync.v1.rs");
}
pub use generated::*;

/// How the stubs write and read messages.
#[cfg(all(any(feature = "client", feature = "server"), feature = "mutants"))]
pub(crate) use crate::mutant::strangers::Codec as StubCodec;
#[cfg(all(any(feature = "client", feature = "server"), not(feature = "mutants")))]
pub(crate) use tonic_prost::ProstCodec as StubCodec;

/// The compiled schema (`google.protobuf.FileDescriptorSet`), for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("wire/gosync.v1.bin");

use crate::history;
use crate::key::{Key, KeyRange, RangeSet};
use crate::mutant;
use crate::reason::Invalid;
use crate::record::{Content, FLAG_TOMBSTONE};
use crate::version::{self, ReplicaId, Time};

impl From<version::Version> for Version {
    fn from(v: version::Version) -> Self {
        Self {
            time: v.time.0,
            replica: v.replica.0,
        }
    }
}

impl From<Version> for version::Version {
    fn from(v: Version) -> Self {
        Self {
            time: Time(v.time),
            replica: ReplicaId(v.replica),
        }
    }
}

impl From<crate::Record> for Record {
    fn from(r: crate::Record) -> Self {
        let flags = r.content.flags() | if mutant!(UnknownFlagsSet) { 4 } else { 0 };
        let value = match r.content {
            Content::Put(value) if mutant!(ValuesAsText) => {
                String::from_utf8_lossy(&value).into_owned().into()
            }
            Content::Put(value) => value,
            Content::Tombstone => Default::default(),
        };
        Self {
            key: match mutant!(KeysFolded) {
                false => r.key.as_bytes().to_vec(),
                true => r.key.as_bytes().to_ascii_lowercase(),
            },
            version: Some(r.version.into()),
            flags,
            value,
        }
    }
}

impl TryFrom<Record> for crate::Record {
    type Error = Invalid;

    fn try_from(r: Record) -> Result<Self, Invalid> {
        let version = r
            .version
            .or(mutant!(VersionOptional).then(Default::default))
            .ok_or_else(|| Invalid::malformed("version", "is missing"))?;
        let content = match r.flags {
            0 => Content::Put(r.value),
            FLAG_TOMBSTONE if r.value.is_empty() || mutant!(TombstonesWithValue) => {
                Content::Tombstone
            }
            FLAG_TOMBSTONE => {
                return Err(Invalid::malformed("value", "is not empty in a tombstone"));
            }
            _ if mutant!(UnknownFlagsTaken) => Content::Put(r.value),
            _ => {
                return Err(Invalid::malformed(
                    "flags",
                    "sets a bit that version 1 does not define",
                ));
            }
        };
        Ok(Self {
            key: Key::new(r.key)?,
            version: version.into(),
            content,
        })
    }
}

impl From<&KeyRange> for Range {
    fn from(r: &KeyRange) -> Self {
        Self {
            start: r.start().to_vec(),
            end: r.end().map(<[u8]>::to_vec),
        }
    }
}

impl TryFrom<&Range> for KeyRange {
    type Error = Invalid;

    fn try_from(r: &Range) -> Result<Self, Invalid> {
        let inverted = r.end.as_ref().is_some_and(|end| *end <= r.start);
        if inverted && mutant!(InvertedRangesTaken) {
            return Ok(KeyRange::all());
        }
        let above = |bound: &[u8]| [bound, &[0]].concat();
        match &r.end {
            _ if mutant!(StartExcluded) => KeyRange::new(&above(&r.start), r.end.as_deref()),
            Some(end) if mutant!(EndIncluded) => KeyRange::new(&r.start, Some(&above(end))),
            None if mutant!(EndlessRangesEnd) => KeyRange::new(&r.start, Some(&[0xff])),
            end => KeyRange::new(&r.start, end.as_deref()),
        }
    }
}

/// Ranges that a replica holds, with how far it has followed them: the checked
/// form of [`HeldRanges`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Not empty.
    pub ranges: RangeSet,
    /// `None`: nothing followed yet.
    pub cursor: Option<history::Cursor>,
}

impl Held {
    /// Checks one message.
    ///
    /// # Errors
    /// [`crate::Reason::Malformed`] for no ranges, or ranges out of order.
    pub fn from_wire(h: &HeldRanges) -> Result<Held, Invalid> {
        if h.ranges.is_empty() && !mutant!(EntriesWithoutRanges) {
            return Err(Invalid::malformed("ranges", "is empty"));
        }
        let ranges = h
            .ranges
            .iter()
            .map(KeyRange::try_from)
            .collect::<Result<_, _>>()?;
        let ranges = match mutant!(RangesInAnyOrder) {
            false => RangeSet::new(ranges)?,
            true => RangeSet::union(ranges),
        };
        Ok(Held {
            ranges,
            cursor: h.cursor.map(Into::into),
        })
    }

    /// Checks the whole list of a request: each entry, their number, and that
    /// no key lies in two of them.
    ///
    /// # Errors
    /// [`crate::Reason::Malformed`] or [`crate::Reason::LimitExceeded`].
    pub fn list_from_wire(list: &[HeldRanges], max_ranges: u64) -> Result<Vec<Held>, Invalid> {
        let total = list.iter().map(|h| h.ranges.len() as u64).sum();
        let most = max_ranges - u64::from(mutant!(MostRangesRefused));
        if total > most && !mutant!(RangesUncounted) {
            return Err(Invalid::limit("held", "max_ranges", max_ranges, total));
        }
        let held = list
            .iter()
            .enumerate()
            .map(|(i, h)| Held::from_wire(h).map_err(|e| e.within(format_args!("held[{i}]"))))
            .collect::<Result<Vec<_>, _>>()?;
        let mut all: Vec<KeyRange> = held.iter().flat_map(|h| &h.ranges).cloned().collect();
        all.sort();
        let apart = RangeSet::new(all)
            .map_err(|_| Invalid::malformed("held", "names a key twice: its ranges overlap"));
        if !mutant!(OverlapsTaken) {
            apart?;
        }
        Ok(held)
    }

    /// As a message.
    pub fn to_wire(&self) -> HeldRanges {
        HeldRanges {
            ranges: self.ranges.iter().map(Into::into).collect(),
            cursor: self.cursor.map(history::Cursor::to_wire),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    fn record() -> Record {
        Record {
            key: b"k".to_vec(),
            version: Some(generated::Version {
                time: 1,
                replica: 2,
            }),
            flags: 0,
            value: "v".into(),
        }
    }

    fn refused(r: Record) -> Reason {
        crate::Record::try_from(r).unwrap_err().reason
    }

    #[test]
    fn a_record_survives_the_wire() {
        let r = crate::Record::try_from(record()).unwrap();
        assert_eq!(Record::from(r), record());
    }

    #[test]
    fn records_that_version_1_does_not_define_are_refused() {
        assert_eq!(
            refused(Record {
                key: vec![],
                ..record()
            }),
            Reason::Malformed
        );
        assert_eq!(
            refused(Record {
                key: vec![1; 513],
                ..record()
            }),
            Reason::LimitExceeded
        );
        assert_eq!(
            refused(Record {
                version: None,
                ..record()
            }),
            Reason::Malformed
        );
        assert_eq!(
            refused(Record {
                flags: 2,
                ..record()
            }),
            Reason::Malformed
        );
        assert_eq!(
            refused(Record {
                flags: 3,
                ..record()
            }),
            Reason::Malformed
        );
        assert_eq!(
            refused(Record {
                flags: 1,
                ..record()
            }),
            Reason::Malformed
        );
        let tombstone = Record {
            flags: 1,
            value: Default::default(),
            ..record()
        };
        assert!(crate::Record::try_from(tombstone).unwrap().is_tombstone());
    }

    #[test]
    fn held_ranges_may_not_be_empty_too_many_or_overlap() {
        let range = |s: &[u8], e: Option<&[u8]>| Range {
            start: s.to_vec(),
            end: e.map(<[u8]>::to_vec),
        };
        let held = |ranges| HeldRanges {
            ranges,
            cursor: None,
        };
        let check = |list: &[HeldRanges]| Held::list_from_wire(list, 2).map_err(|e| e.reason);
        assert!(
            check(&[
                held(vec![range(b"a", Some(b"b"))]),
                held(vec![range(b"b", None)])
            ])
            .is_ok()
        );
        assert_eq!(check(&[held(vec![])]), Err(Reason::Malformed));
        assert_eq!(
            check(&[held(vec![range(b"a", None)]), held(vec![range(b"b", None)])]),
            Err(Reason::Malformed)
        );
        assert_eq!(
            check(&[held(vec![range(b"", None)]), held(vec![]), held(vec![])]),
            Err(Reason::Malformed)
        );
        let three = ["a", "b", "c"].map(|s| {
            held(vec![range(
                s.as_bytes(),
                Some(&[s.as_bytes(), b"x"].concat()),
            )])
        });
        assert_eq!(check(&three), Err(Reason::LimitExceeded));
    }
}
