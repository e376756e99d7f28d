//! The writing half of a transaction of one space. Runs on the writer's
//! thread only, inside the transaction that its group of callers shares.

use super::error::failed;
use super::read::{Session, read_row, row_id, version};
use crate::store::{
    Applied, Compaction, Damage, Result, SpaceStatus, StoreError, WriteTx, answers_for,
};
use gosync_proto::history::{Cursor, Epoch, Point};
use gosync_proto::{Time, Version, mutant};
use rusqlite::{Connection, OptionalExtension, Statement};

impl Session<&Connection> {
    /// The space's row id; creates the row for a new space.
    fn ensure_space(&mut self) -> Result<i64> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        self.conn
            .execute(
                "INSERT INTO spaces (name, status, head, tag, horizon, compacted_through,
                   newest_time, clock_ms, records, bytes, damaged, generation)
                 VALUES (?1, 'ACTIVE', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
                [self.name.as_str()],
            )
            .map_err(failed)?;
        let id = self.conn.last_insert_rowid();
        self.id = Some(id);
        self.state.status = SpaceStatus::Active;
        if mutant!(HorizonFromTheStart) {
            self.state.position.horizon = Time(1);
        }
        Ok(id)
    }

    /// Writes the state back to the space's row.
    fn save_state(&mut self) -> Result<()> {
        let s = &self.state;
        let status = match s.status {
            SpaceStatus::Active => "ACTIVE",
            SpaceStatus::Retired => "RETIRED",
            SpaceStatus::Absent => return Err(StoreError::Misuse("saved a space that is absent")),
        };
        self.conn
            .prepare_cached(
                "UPDATE spaces SET status = ?2, head = ?3, tag = ?4, horizon = ?5,
                   compacted_through = ?6, newest_time = ?7, clock_ms = ?8, records = ?9,
                   bytes = ?10, damaged = ?11, generation = ?12
                 WHERE id = ?1",
            )
            .and_then(|mut statement| {
                statement.execute((
                    self.id,
                    status,
                    s.head() as i64,
                    s.position.head.tag as i64,
                    s.position.horizon.0 as i64,
                    s.compacted_through as i64,
                    s.newest_time.0 as i64,
                    s.clock_ms as i64,
                    s.records as i64,
                    s.bytes as i64,
                    s.damaged as i64,
                    s.generation as i64,
                ))
            })
            .map_err(failed)?;
        Ok(())
    }
}

impl WriteTx for Session<&Connection> {
    fn commit(&mut self, records: &[Applied], tag: u64, now_ms: u64) -> Result<Cursor> {
        if records.is_empty() {
            return Ok(self.state.position.head);
        }
        if self.state.status == SpaceStatus::Retired {
            return Err(StoreError::Misuse("a commit to a retired space"));
        }
        let space = self.ensure_space()?;
        let mut state = self.state;
        let mut sequence = state.head() + u64::from(mutant!(SequenceGap));
        let conn = self.conn;
        let mut insert = conn
            .prepare_cached(
                "INSERT INTO records
                   (id, space, key, flags, time, replica, size, digest, arrived_ms, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )
            .map_err(failed)?;
        let mut delete = conn.prepare_cached(DELETE).map_err(failed)?;
        for applied in records {
            let record = &applied.record;
            let size = record.size() as u64;
            sequence += match mutant!(GapsInCommit) {
                false => 1,
                true => 2,
            };
            if let Some(old) = &applied.replaces {
                delete_row(&mut delete, row_id(space, old.sequence)?)?;
                state.records -= 1;
                state.bytes = state.bytes.saturating_sub(old.size);
            }
            insert
                .execute((
                    row_id(space, sequence)?,
                    space,
                    record.key.as_bytes(),
                    record.content.flags(),
                    record.version.time.0 as i64,
                    record.version.replica.0 as i64,
                    size as i64,
                    &applied.digest.0[..],
                    now_ms as i64,
                    record.content.value(),
                ))
                .map_err(failed)?;
            state.records += 1;
            state.bytes += size;
            state.newest_time = state.newest_time.max(record.version.time);
            if state.damaged > 0 {
                let key = record.key.as_bytes();
                let aside = set_aside(conn, space, key)?;
                let newest = state.newest_time;
                if aside.is_some_and(|v| answers_for(record.version, v, newest)) {
                    conn.prepare_cached("DELETE FROM damaged WHERE space = ?1 AND key = ?2")
                        .and_then(|mut s| s.execute((space, key)))
                        .map_err(failed)?;
                    state.damaged = state.damaged.saturating_sub(1);
                }
            }
        }
        conn.prepare_cached(
            "INSERT INTO commits (space, sequence, tag, clock_ms) VALUES (?1, ?2, ?3, ?4)",
        )
        .and_then(|mut s| s.execute((space, sequence as i64, tag as i64, now_ms as i64)))
        .map_err(failed)?;
        state.clock_ms = state.clock_ms.max(now_ms);
        state.position.head = Cursor {
            point: Point {
                epoch: state.position.head.point.epoch,
                sequence,
            },
            tag,
        };
        self.state = state;
        self.save_state()?;
        Ok(state.position.head)
    }

    fn quarantine(&mut self, damage: &[Damage], now_ms: u64) -> Result<usize> {
        let Some(space) = self.id else {
            return Ok(0);
        };
        let mut moved = 0;
        for found in damage {
            let row = row_id(space, found.sequence)?;
            let standing = self
                .conn
                .prepare_cached(
                    "SELECT id, key, flags, time, replica, digest, value, size
                     FROM records WHERE id = ?1",
                )
                .and_then(|mut s| {
                    s.query_row([row], |r| {
                        let kept = version(r.get(3)?, r.get(4)?);
                        Ok((read_row(r)?.is_err(), kept, r.get::<_, i64>(7)?))
                    })
                    .optional()
                })
                .map_err(failed)?;
            let Some((true, kept, size)) = standing else {
                continue;
            };
            let aside = set_aside(self.conn, space, &found.key)?;
            if aside.is_none_or(|v| answers_for(kept, v, self.state.newest_time)) {
                self.conn
                    .execute(
                        "INSERT OR REPLACE INTO damaged
                           (space, key, sequence, found_ms, flags, time, replica, digest, value)
                         SELECT space, key, sequence, ?2, flags, time, replica, digest, value
                         FROM records WHERE id = ?1",
                        (row, now_ms as i64),
                    )
                    .map_err(failed)?;
            }
            let mut delete = self.conn.prepare_cached(DELETE).map_err(failed)?;
            delete_row(&mut delete, row)?;
            let state = &mut self.state;
            state.records = state.records.saturating_sub(1);
            state.bytes = state.bytes.saturating_sub(size as u64);
            moved += 1;
        }
        if moved > 0 {
            self.state.damaged = self
                .conn
                .query_row(
                    "SELECT count(*) FROM damaged WHERE space = ?1",
                    [space],
                    |row| row.get::<_, i64>(0),
                )
                .map_err(failed)? as u64;
            self.state.generation += 1;
            self.save_state()?;
        }
        Ok(moved)
    }

    fn tombstone_times(
        &mut self,
        below: Time,
        arrived_until_ms: u64,
    ) -> Result<Option<(Time, Time)>> {
        self.conn
            .prepare_cached(
                "SELECT min(time), max(time) FROM records INDEXED BY tombstones
                 WHERE space = ?1 AND flags = 1 AND time < ?2 AND arrived_ms <= ?3",
            )
            .and_then(|mut s| {
                s.query_row((self.id, below.0 as i64, latest(arrived_until_ms)), |row| {
                    Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
                })
            })
            .map(|(low, high)| Some((Time(low? as u64), Time(high? as u64))))
            .map_err(failed)
    }

    fn compact(&mut self, step: Compaction) -> Result<usize> {
        let Some(space) = self.id else {
            return Ok(0);
        };
        let rows = self
            .conn
            .prepare_cached(match mutant!(PutsCompacted) {
                false => {
                    "SELECT sequence, size FROM records INDEXED BY tombstones
                     WHERE space = ?1 AND flags = 1 AND time < ?2 AND arrived_ms <= ?3 LIMIT ?4"
                }
                true => {
                    "SELECT sequence, size FROM records
                     WHERE space = ?1 AND time < ?2 AND arrived_ms <= ?3 LIMIT ?4"
                }
            })
            .and_then(|mut s| {
                s.query_map(
                    (
                        space,
                        step.horizon.0 as i64,
                        latest(step.arrived_until_ms),
                        step.limit as i64,
                    ),
                    |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)),
                )?
                .collect::<rusqlite::Result<Vec<_>>>()
            })
            .map_err(failed)?;
        let rows = match mutant!(HorizonWithoutEffect) {
            false => rows,
            true => Vec::new(),
        };
        let mut delete = self.conn.prepare_cached(DELETE).map_err(failed)?;
        for (sequence, size) in &rows {
            delete_row(&mut delete, row_id(space, *sequence)?)?;
            let state = &mut self.state;
            if !mutant!(CompactionForgotten) {
                state.compacted_through = state.compacted_through.max(*sequence);
            }
            state.records = state.records.saturating_sub(1);
            state.bytes = state.bytes.saturating_sub(*size);
        }
        let state = &mut self.state;
        state.position.horizon = match state.position.horizon {
            Time::ZERO => step.horizon,
            before if mutant!(HorizonFalls) => Time(before.0 - 1),
            before => before.max(step.horizon),
        };
        if mutant!(HorizonNotStored) {
            state.position.horizon = Time::ZERO;
        }
        self.save_state()?;
        Ok(rows.len())
    }

    fn recount(&mut self) -> Result<()> {
        let Some(space) = self.id else { return Ok(()) };
        let count = |sql: &str| {
            self.conn
                .query_row(sql, [space], |row| row.get::<_, i64>(0))
                .map(|n| n as u64)
                .map_err(failed)
        };
        let records = count("SELECT count(*) FROM records WHERE space = ?1")?;
        let bytes = count("SELECT coalesce(sum(size), 0) FROM records WHERE space = ?1")?;
        let damaged = count("SELECT count(*) FROM damaged WHERE space = ?1")?;
        self.state.records = records;
        self.state.bytes = bytes;
        self.state.damaged = damaged;
        self.save_state()
    }

    fn retire(&mut self, now_ms: u64) -> Result<()> {
        let space = self.ensure_space()?;
        for sql in [
            "DELETE FROM records WHERE space = ?1",
            "DELETE FROM damaged WHERE space = ?1",
        ] {
            self.conn.execute(sql, [space]).map_err(failed)?;
        }
        let state = &mut self.state;
        state.status = SpaceStatus::Retired;
        state.records = 0;
        state.bytes = 0;
        state.damaged = 0;
        state.generation += 1;
        state.clock_ms = state.clock_ms.max(now_ms);
        self.save_state()
    }
}

/// A bound on times as the database compares them: no clock reads more.
fn latest(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// The version of what is in quarantine under a key.
fn set_aside(conn: &Connection, space: i64, key: &[u8]) -> Result<Option<Version>> {
    conn.prepare_cached("SELECT time, replica FROM damaged WHERE space = ?1 AND key = ?2")
        .and_then(|mut s| {
            s.query_row((space, key), |r| Ok(version(r.get(0)?, r.get(1)?)))
                .optional()
        })
        .map_err(failed)
}

const DELETE: &str = "DELETE FROM records WHERE id = ?1";

fn delete_row(delete: &mut Statement<'_>, row: i64) -> Result<()> {
    match delete.execute([row]).map_err(failed)? {
        1 => Ok(()),
        _ => Err(StoreError::Corrupt(
            "an index names a record that the table does not have".into(),
        )),
    }
}

/// Notes every space's head as the restore point of the present epoch, then
/// begins the next one. Runs in a transaction of the caller.
pub(super) fn begin_epoch(conn: &Connection, epoch: Epoch, now_ms: u64) -> Result<()> {
    if mutant!(RestoreKeepsEpoch) {
        return Ok(());
    }
    conn.execute(
        match mutant!(RestorePointsForgotten) {
            false => {
                "INSERT INTO restore_points (space, ordinal, sequence)
                 SELECT id, (SELECT max(ordinal) FROM epochs), head FROM spaces WHERE head > 0"
            }
            true => {
                "INSERT INTO restore_points (space, ordinal, sequence)
                 SELECT id, (SELECT max(ordinal) FROM epochs), 0 FROM spaces WHERE head > 0"
            }
        },
        [],
    )
    .map_err(failed)?;
    conn.execute(
        "INSERT INTO epochs (epoch, began_ms) VALUES (?1, ?2)",
        (epoch.0 as i64, now_ms as i64),
    )
    .map_err(failed)?;
    Ok(())
}
