//! The one row of a store that is not a record: how far the replica has
//! followed the server, and its clock. Every store keeps it as the bytes that
//! [`Meta::encode`] makes.

use super::{StoreError, WriteId};
use gosync_proto::history::{Cursor, Epoch, Point};
use gosync_proto::limits::Limits;
use gosync_proto::{KeyRange, RangeSet, Time};
use serde::{Deserialize, Serialize};

/// The version of what a store keeps, tables and meta row alike. A store with
/// a newer one is refused; an older one is migrated when it is opened.
pub const SCHEMA_VERSION: u32 = 3;

/// How far a replica has followed the server, and its clock.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Meta {
    /// The space whose data the store holds; `None` before the first opening.
    pub space: Option<String>,
    /// The last version time that any opening issued.
    pub floor: Time,
    /// The id of the next write.
    pub next_write: u64,
    /// Writes with an id up to this one may have been sent: their fate is
    /// unknown until there is a verdict.
    pub attempted: u64,
    /// The replica id of the opening that talks to the server, or [`NOBODY`].
    /// Another one must not change clean records.
    pub active: u64,
    /// The horizon that the clean records were cut at.
    pub horizon: Time,
    /// The newest commit known from verdicts.
    pub newest_commit: Option<Cursor>,
    /// Counts reconcile sessions; see [`super::Stored::era`].
    pub era: u64,
    /// The held ranges in key order.
    pub ranges: Vec<HeldRange>,
    /// Where a bootstrap was interrupted.
    pub snapshot: Option<SnapshotProgress>,
    /// Wall clock when the replica was last seen equal to the server.
    pub last_synced_ms: Option<u64>,
    /// The limits that the server last told.
    pub limits: Option<Limits>,
}

/// No opening talks to the server: none did yet, or what is held has changed
/// since one did.
pub const NOBODY: u64 = 0;

/// One range that the replica holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldRange {
    /// The keys.
    pub range: KeyRange,
    /// Everything up to here is stored.
    pub cursor: Option<Cursor>,
    /// The last session that confirmed all records of the range.
    pub confirmed: Option<Confirmed>,
}

/// A completed session: it is the point of every record of the range that was
/// stored in an earlier era.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confirmed {
    /// The era that the session began.
    pub era: u64,
    /// Its point.
    pub point: Point,
}

/// An interrupted bootstrap of a store that was empty when it began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotProgress {
    /// The state that the first stream was read from: where Watch goes on.
    pub cursor: Cursor,
    /// The last key that is stored.
    pub after: Vec<u8>,
}

impl Meta {
    /// Numbers so many new writes, and returns the first number. They rise with
    /// the order of writing, and none is given twice.
    pub fn number_writes(&mut self, count: usize) -> WriteId {
        let first = self.next_write.max(1);
        self.next_write = first.saturating_add(count as u64);
        WriteId(first)
    }

    /// The newest write that was ever numbered.
    pub fn newest_write(&self) -> Option<WriteId> {
        self.next_write.checked_sub(1).map(WriteId)
    }

    /// The point at which a clean record counts as acknowledged or received.
    pub fn point_of(&self, stored: &super::Stored) -> Point {
        let key = stored.record.key.as_bytes();
        self.ranges
            .iter()
            .find(|h| h.range.contains(key))
            .and_then(|h| h.confirmed)
            .filter(|c| stored.era < c.era)
            .map_or(stored.point, |c| c.point)
    }

    /// The held ranges as a set.
    pub fn range_set(&self) -> RangeSet {
        // kept sorted and disjoint; joined, where a damaged row is not
        let ranges: Vec<_> = self.ranges.iter().map(|h| h.range.clone()).collect();
        RangeSet::new(ranges.clone()).unwrap_or_else(|_| RangeSet::union(ranges))
    }

    /// The bytes that a store keeps.
    pub fn encode(&self) -> Vec<u8> {
        // a struct of numbers, strings and lists: encoding cannot fail
        serde_json::to_vec(&Row::from(self)).unwrap_or_default()
    }

    /// Reads the bytes that a store kept. `store` names it in errors.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`], and [`StoreError::Corrupt`] for anything
    /// else that [`Meta::encode`] did not make.
    pub fn decode(store: &str, bytes: &[u8]) -> Result<Meta, StoreError> {
        let corrupt = |e: &dyn std::fmt::Display| StoreError::Corrupt(format!("meta row: {e}"));
        let SchemaOnly { schema } = serde_json::from_slice(bytes).map_err(|e| corrupt(&e))?;
        if schema > SCHEMA_VERSION {
            return Err(StoreError::NewerSchema {
                store: store.to_owned(),
                found: schema,
                supported: SCHEMA_VERSION,
            });
        }
        let row: Row = serde_json::from_slice(bytes).map_err(|e| corrupt(&e))?;
        row.try_into().map_err(|e: String| corrupt(&e))
    }
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

type Triple = (u64, u64, u64);

/// [`Meta`] as JSON has it.
#[derive(Serialize, Deserialize)]
struct Row {
    schema: u32,
    space: Option<String>,
    floor: u64,
    next_write: u64,
    attempted: u64,
    active: u64,
    horizon: u64,
    newest_commit: Option<Triple>,
    era: u64,
    ranges: Vec<RangeRow>,
    snapshot: Option<(Triple, String)>,
    last_synced_ms: Option<u64>,
    limits: Option<Vec<(String, u64)>>,
}

#[derive(Serialize, Deserialize)]
struct RangeRow {
    start: String,
    end: Option<String>,
    cursor: Option<Triple>,
    /// era, epoch, sequence
    confirmed: Option<Triple>,
}

fn triple(c: Cursor) -> Triple {
    (c.point.epoch.0, c.point.sequence, c.tag)
}

fn cursor((epoch, sequence, tag): Triple) -> Cursor {
    Cursor {
        point: Point {
            epoch: Epoch(epoch),
            sequence,
        },
        tag,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [a, b] => Some((digit(*a)? << 4) | digit(*b)?),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{text:?} is not hexadecimal"))
}

impl From<&Meta> for Row {
    fn from(m: &Meta) -> Row {
        Row {
            schema: SCHEMA_VERSION,
            space: m.space.clone(),
            floor: m.floor.0,
            next_write: m.next_write,
            attempted: m.attempted,
            active: m.active,
            horizon: m.horizon.0,
            newest_commit: m.newest_commit.map(triple),
            era: m.era,
            ranges: m
                .ranges
                .iter()
                .map(|h| RangeRow {
                    start: hex(h.range.start()),
                    end: h.range.end().map(hex),
                    cursor: h.cursor.map(triple),
                    confirmed: h
                        .confirmed
                        .map(|c| (c.era, c.point.epoch.0, c.point.sequence)),
                })
                .collect(),
            snapshot: m
                .snapshot
                .as_ref()
                .map(|s| (triple(s.cursor), hex(&s.after))),
            last_synced_ms: m.last_synced_ms,
            limits: m.limits.map(|l| {
                l.entries()
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            }),
        }
    }
}

impl TryFrom<Row> for Meta {
    type Error = String;

    fn try_from(r: Row) -> Result<Meta, String> {
        let ranges = r
            .ranges
            .into_iter()
            .map(|h| {
                let end = h.end.as_deref().map(unhex).transpose()?;
                Ok(HeldRange {
                    range: KeyRange::new(&unhex(&h.start)?, end.as_deref())
                        .map_err(|e| e.to_string())?,
                    cursor: h.cursor.map(cursor),
                    confirmed: h.confirmed.map(|(era, epoch, sequence)| Confirmed {
                        era,
                        point: Point {
                            epoch: Epoch(epoch),
                            sequence,
                        },
                    }),
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        RangeSet::new(ranges.iter().map(|h| h.range.clone()).collect())
            .map_err(|e| e.to_string())?;
        Ok(Meta {
            space: r.space,
            floor: Time(r.floor),
            next_write: r.next_write,
            attempted: r.attempted,
            active: r.active,
            horizon: Time(r.horizon),
            newest_commit: r.newest_commit.map(cursor),
            era: r.era,
            ranges,
            snapshot: r
                .snapshot
                .map(|(c, after)| {
                    Ok::<_, String>(SnapshotProgress {
                        cursor: cursor(c),
                        after: unhex(&after)?,
                    })
                })
                .transpose()?,
            last_synced_ms: r.last_synced_ms,
            limits: r.limits.as_deref().map(limits),
        })
    }
}

/// Limits by name; one that the row does not have keeps its floor.
fn limits(entries: &[(String, u64)]) -> Limits {
    let get = |name: &str| {
        entries
            .iter()
            .find(|(n, _)| n == name)
            .map_or(0, |(_, value)| *value)
    };
    Limits::from_wire(&gosync_proto::wire::Limits {
        max_message_bytes: get("max_message_bytes"),
        max_value_bytes: get("max_value_bytes"),
        max_push_records: get("max_push_records"),
        max_ranges: get("max_ranges"),
        max_reconcile_entries: get("max_reconcile_entries"),
        max_response_bytes: get("max_response_bytes"),
        max_clock_skew_ms: get("max_clock_skew_ms"),
        max_streams_per_connection: get("max_streams_per_connection"),
        max_space_records: get("max_space_records"),
        max_space_bytes: get("max_space_bytes"),
        heartbeat_interval_ms: get("heartbeat_interval_ms"),
        watchdog_ms: get("watchdog_ms"),
        max_stream_lifetime_ms: get("max_stream_lifetime_ms"),
        max_calls_per_second: get("max_calls_per_second"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Meta {
        let c = |n| cursor((u64::MAX, n, 3));
        Meta {
            space: Some("team-1".into()),
            floor: Time(u64::MAX),
            next_write: 7,
            attempted: 6,
            active: u64::MAX - 1,
            horizon: Time(9),
            newest_commit: Some(c(12)),
            era: 4,
            ranges: vec![
                HeldRange {
                    range: KeyRange::new(b"\x00a", Some(b"b\xff")).unwrap(),
                    cursor: Some(c(11)),
                    confirmed: Some(Confirmed {
                        era: 3,
                        point: c(10).point,
                    }),
                },
                HeldRange {
                    range: KeyRange::new(b"c", None).unwrap(),
                    cursor: None,
                    confirmed: None,
                },
            ],
            snapshot: Some(SnapshotProgress {
                cursor: c(5),
                after: vec![0, 1, 255],
            }),
            last_synced_ms: Some(1),
            limits: Some(Limits::default()),
        }
    }

    #[test]
    fn the_meta_row_survives_its_encoding() {
        for meta in [full(), Meta::default()] {
            assert_eq!(Meta::decode("s", &meta.encode()).unwrap(), meta);
        }
    }

    #[test]
    fn a_newer_schema_is_refused_whatever_else_the_row_holds() {
        let newer = format!(r#"{{"schema": {}, "news": []}}"#, SCHEMA_VERSION + 1);
        let e = Meta::decode("s", newer.as_bytes()).unwrap_err();
        assert!(
            matches!(e, StoreError::NewerSchema { found, .. } if found == SCHEMA_VERSION + 1),
            "{e:?}"
        );
    }

    #[test]
    fn a_row_that_is_no_meta_row_is_a_typed_error() {
        for bad in [&b""[..], b"{}", b"[1]", br#"{"schema":1}"#] {
            assert!(matches!(
                Meta::decode("s", bad),
                Err(StoreError::Corrupt(_))
            ));
        }
    }
}
