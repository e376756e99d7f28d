//! A transaction of one space on a connection: the reading half, which the
//! writer shares.

use super::error::failed;
use super::schema::SEQUENCE_BITS;
use crate::store::{
    Damage, Kept, KeyDigest, ReadTx, Result, SpaceState, SpaceStatus, StoreError, Stored, intact,
};
use gosync_proto::history::{Ancestry, Cursor, Epoch, Point, Position};
use gosync_proto::version::ReplicaId;
use gosync_proto::{Digest, Key, KeyRange, RangeSet, SpaceId, Time, Version, mutant};
use rusqlite::{Connection, OptionalExtension, Row, Rows};
use std::ops::{ControlFlow, Deref};

/// Above every key, for ranges without an end.
const INFINITY: [u8; Key::MAX_BYTES + 2] = [0xff; Key::MAX_BYTES + 2];

/// One space within the transaction that is open on `conn`.
pub struct Session<C> {
    pub(super) conn: C,
    pub(super) name: SpaceId,
    pub(super) id: Option<i64>,
    pub(super) state: SpaceState,
    damage: Vec<Damage>,
}

impl<C: Deref<Target = Connection>> Session<C> {
    /// Finds the space. A transaction must be open on `conn`; this read fixes
    /// its snapshot.
    pub fn open(conn: C, space: &SpaceId) -> Result<Session<C>> {
        let name = match mutant!(OneSpace) {
            false => space.clone(),
            true => SpaceId::new("all").map_err(|_| StoreError::Misuse("no space"))?,
        };
        let epoch = present_epoch(&conn)?;
        let found = conn
            .prepare_cached(
                "SELECT id, status, head, tag, horizon, compacted_through, newest_time, clock_ms,
                        records, bytes, damaged, generation
                 FROM spaces WHERE name = ?1",
            )
            .and_then(|mut s| {
                s.query_row([name.as_str()], |row| {
                    let n = |i| row.get::<_, i64>(i).map(|n| n as u64);
                    let state = SpaceState {
                        status: match row.get_ref(1)?.as_str()? {
                            "ACTIVE" => SpaceStatus::Active,
                            _ => SpaceStatus::Retired,
                        },
                        position: Position {
                            head: Cursor {
                                point: Point {
                                    epoch,
                                    sequence: n(2)?,
                                },
                                tag: n(3)?,
                            },
                            horizon: Time(n(4)?),
                        },
                        compacted_through: n(5)?,
                        newest_time: Time(n(6)?),
                        clock_ms: n(7)?,
                        records: n(8)?,
                        bytes: n(9)?,
                        damaged: n(10)?,
                        generation: n(11)?,
                    };
                    Ok((row.get(0)?, state))
                })
                .optional()
            })
            .map_err(failed)?;
        let (id, state) = match found {
            Some((id, state)) => (Some(id), state),
            None => (None, SpaceState::absent(epoch)),
        };
        Ok(Session {
            conn,
            name,
            id,
            state,
            damage: Vec::new(),
        })
    }

    /// Reads whole rows (see `select`) whose key is `wanted` and hands on
    /// those that are intact.
    fn visit_records(
        &mut self,
        sql: &str,
        params: impl rusqlite::Params,
        wanted: &dyn Fn(&[u8]) -> bool,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()> {
        let Session { conn, damage, .. } = self;
        let mut statement = conn.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let key = row.get_ref(1).map_err(failed)?;
            if !key.as_blob().is_ok_and(wanted) {
                continue;
            }
            match read_row(row).map_err(failed)? {
                Ok(stored) => {
                    if visit(stored).is_break() {
                        break;
                    }
                }
                Err(found) => note(damage, found),
            }
        }
        Ok(())
    }
}

/// A query for whole rows, with the columns that [`read_row`] reads.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, key, flags, time, replica, digest, value FROM records ",
            $rest
        )
    };
}

fn note(damage: &mut Vec<Damage>, found: Damage) {
    if !damage.contains(&found) {
        damage.push(found);
    }
}

/// A row of `select`, checked.
pub(super) fn read_row(row: &Row<'_>) -> rusqlite::Result<std::result::Result<Stored, Damage>> {
    Ok(intact(
        sequence_of(row.get(0)?),
        row.get_ref(1)?.as_blob()?,
        row.get::<_, i64>(2)?,
        version(row.get(3)?, row.get(4)?),
        row.get_ref(5)?.as_blob()?,
        row.get_ref(6)?.as_blob()?,
    ))
}

fn bytes<'a>(row: &'a Row<'_>, i: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(row.get_ref(i)?.as_blob()?)
}

/// Columns id, flags, time, replica, size, digest behind the key.
fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept {
        sequence: sequence_of(row.get(1)?),
        tombstone: row.get::<_, i64>(2)? != 0,
        version: version(row.get(3)?, row.get(4)?),
        size: row.get::<_, i64>(5)? as u64,
        digest: Digest::try_from(row.get_ref(6)?.as_blob()?).unwrap_or_default(),
    })
}

pub(super) fn version(time: i64, replica: i64) -> Version {
    Version {
        time: Time(time as u64),
        replica: ReplicaId(replica as u64),
    }
}

fn sequence_of(id: i64) -> u64 {
    (id & ((1 << SEQUENCE_BITS) - 1)) as u64
}

/// The row id of a record. Sequences and space ids beyond the bits that they
/// have would need 10^12 records or 8 million spaces.
pub(super) fn row_id(space: i64, sequence: u64) -> Result<i64> {
    if sequence >= 1 << SEQUENCE_BITS || space >= 1 << (63 - SEQUENCE_BITS) {
        return Err(StoreError::Misuse(
            "the database ran out of record or space numbers",
        ));
    }
    Ok(space << SEQUENCE_BITS | sequence as i64)
}

/// The present epoch.
pub(super) fn present_epoch(conn: &Connection) -> Result<Epoch> {
    conn.prepare_cached("SELECT epoch FROM epochs ORDER BY ordinal DESC LIMIT 1")
        .and_then(|mut s| s.query_row([], |row| row.get::<_, i64>(0)))
        .map(|e| Epoch(e as u64))
        .map_err(failed)
}

/// Visits rows of (key, digest, size, time, flags, id).
fn visit_digests(
    mut rows: Rows<'_>,
    visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
) -> Result<()> {
    while let Some(row) = rows.next().map_err(failed)? {
        let entry = (|| {
            Ok(KeyDigest {
                key: row.get_ref(0)?.as_blob()?,
                // a digest of another length matches nothing; the scans that
                // read the value report the row
                digest: Digest::try_from(row.get_ref(1)?.as_blob()?).unwrap_or_default(),
                size: row.get::<_, i64>(2)? as u64,
                time: Time(row.get::<_, i64>(3)? as u64),
                tombstone: row.get::<_, i64>(4)? != 0,
                sequence: sequence_of(row.get(5)?),
            })
        })()
        .map_err(failed)?;
        if visit(entry).is_break() {
            break;
        }
    }
    Ok(())
}

impl<C: Deref<Target = Connection>> ReadTx for Session<C> {
    fn state(&mut self) -> Result<SpaceState> {
        Ok(self.state)
    }

    fn ancestry(&mut self) -> Result<Ancestry> {
        // as an outer join it would be compiled anew for each space that asks
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT epoch, coalesce((SELECT sequence FROM restore_points
                                         WHERE space = ?1 AND ordinal = epochs.ordinal), 0)
                 FROM epochs ORDER BY ordinal",
            )
            .map_err(failed)?;
        let mut points = statement
            .query_map([self.id], |row| {
                Ok(Point {
                    epoch: Epoch(row.get::<_, i64>(0)? as u64),
                    sequence: row.get::<_, i64>(1)? as u64,
                })
            })
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(failed)?;
        let present = points
            .pop()
            .ok_or(StoreError::Misuse("a database without an epoch"))?;
        Ok(Ancestry {
            epoch: present.epoch,
            restore_points: points,
        })
    }

    fn tag_at(&mut self, sequence: u64) -> Result<Option<u64>> {
        self.conn
            .prepare_cached("SELECT tag FROM commits WHERE space = ?1 AND sequence = ?2")
            .and_then(|mut s| {
                s.query_row((self.id, sequence as i64), |row| row.get::<_, i64>(0))
                    .optional()
            })
            .map(|tag| tag.map(|t| t as u64))
            .map_err(failed)
    }

    fn commit_until(&mut self, sequence: u64) -> Result<Option<Cursor>> {
        let epoch = self.state.position.head.point.epoch;
        self.conn
            .prepare_cached(
                "SELECT sequence, tag FROM commits WHERE space = ?1 AND sequence <= ?2
                 ORDER BY sequence DESC LIMIT 1",
            )
            .and_then(|mut s| {
                s.query_row((self.id, sequence as i64), |row| {
                    Ok(Cursor {
                        point: Point {
                            epoch,
                            sequence: row.get::<_, i64>(0)? as u64,
                        },
                        tag: row.get::<_, i64>(1)? as u64,
                    })
                })
                .optional()
            })
            .map_err(failed)
    }

    fn lookup(&mut self, keys: &[&Key]) -> Result<Vec<Option<Kept>>> {
        /// Rows under other keys that are passed before the next key is looked
        /// up.
        const STEPS: usize = 2;
        let Some(id) = self.id else {
            return Ok(vec![None; keys.len()]);
        };
        let mut places: Vec<usize> = (0..keys.len()).collect();
        places.sort_unstable_by_key(|place| keys[*place]);
        let mut found = vec![None; keys.len()];
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT key, id, flags, time, replica, size, digest
                 FROM records INDEXED BY records_by_key
                 WHERE space = ?1 AND key >= ?2 ORDER BY key",
            )
            .map_err(failed)?;
        let mut places = places.into_iter().peekable();
        // keys that follow each other closely are met by walking on
        'look: while let Some(first) = places.peek() {
            let mut rows = statement
                .query((id, keys[*first].as_bytes()))
                .map_err(failed)?;
            let mut passed = 0;
            while let Some(row) = rows.next().map_err(failed)? {
                let here = bytes(row, 0).map_err(failed)?;
                passed += 1;
                while let Some(place) = places.next_if(|p| keys[*p].as_bytes() <= here) {
                    if keys[place].as_bytes() == here {
                        found[place] = Some(kept(row).map_err(failed)?);
                        passed = 0;
                    }
                }
                if places.peek().is_none() {
                    return Ok(found);
                }
                if passed > STEPS {
                    continue 'look;
                }
            }
            return Ok(found);
        }
        Ok(found)
    }

    fn get(&mut self, key: &Key) -> Result<Option<Stored>> {
        let mut found = None;
        let sql = select!("INDEXED BY records_by_key WHERE space = ?1 AND key = ?2");
        self.visit_records(sql, (self.id, key.as_bytes()), &|_| true, &mut |stored| {
            found = Some(stored);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn scan(
        &mut self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()> {
        let sql = select!(
            "INDEXED BY records_by_key
             WHERE space = ?1 AND key >= ?2 AND key < ?3 ORDER BY key"
        );
        let start = match after {
            Some(after) if after >= range.start() => [after, &[0]].concat(),
            _ => range.start().to_vec(),
        };
        self.visit_records(
            sql,
            (self.id, start, range.end().unwrap_or(&INFINITY)),
            &|_| true,
            visit,
        )
    }

    fn digests(
        &mut self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT key, digest, size, time, flags, id FROM records INDEXED BY records_by_key
                 WHERE space = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
            )
            .map_err(failed)?;
        let rows = statement
            .query((self.id, range.start(), range.end().unwrap_or(&INFINITY)))
            .map_err(failed)?;
        visit_digests(rows, visit)
    }

    fn changes(
        &mut self,
        sequence: u64,
        ranges: &RangeSet,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(id) = self.id else { return Ok(()) };
        let sql = select!("WHERE id > ?1 AND id <= ?2 ORDER BY id");
        let span = (row_id(id, sequence)?, row_id(id, self.state.head())?);
        self.visit_records(sql, span, &|key| ranges.contains(key), visit)
    }

    fn changed_digests(
        &mut self,
        sequence: u64,
        visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(id) = self.id else { return Ok(()) };
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT key, digest, size, time, flags, id FROM records
                 WHERE id > ?1 AND id <= ?2 ORDER BY id",
            )
            .map_err(failed)?;
        let rows = statement
            .query((row_id(id, sequence)?, row_id(id, self.state.head())?))
            .map_err(failed)?;
        visit_digests(rows, visit)
    }

    fn quarantined(&mut self, range: &KeyRange, limit: usize) -> Result<Vec<Vec<u8>>> {
        if self.state.damaged == 0 {
            return Ok(Vec::new());
        }
        self.conn
            .prepare_cached(
                "SELECT key FROM damaged WHERE space = ?1 AND key >= ?2 AND key < ?3
                 ORDER BY key LIMIT ?4",
            )
            .and_then(|mut s| {
                s.query_map(
                    (
                        self.id,
                        range.start(),
                        range.end().unwrap_or(&INFINITY),
                        limit as i64,
                    ),
                    |row| row.get(0),
                )?
                .collect()
            })
            .map_err(failed)
    }

    fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }
}
