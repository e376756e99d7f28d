//! Compaction: removing tombstones that have served their time, and moving the
//! horizon so that everybody agrees on what may be gone.
//!
//! The horizon is a time of versions, not of clocks: it follows the tombstones
//! that are to go, never passes the newest committed version, and moves by
//! bounded steps, so that a wrong clock cannot push it years ahead at once.

use crate::store::{Compaction, Result, SpaceStatus, Store};
use gosync_proto::{SpaceId, Time, mutant};
use std::time::Duration;

/// Tombstones removed in one transaction; pushes get their turn in between.
const BATCH: usize = 2_000;

/// How much to compact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactOptions {
    /// Tombstones stay at least so long after they arrived, milliseconds.
    pub retention_ms: u64,
    /// The horizon advances by at most so much, milliseconds.
    pub max_step_ms: u64,
    /// How far it is to advance.
    pub reach: Reach,
}

impl CompactOptions {
    /// Tombstones are kept for this long. What milliseconds cannot count is
    /// for ever.
    pub fn keeping(retention: Duration) -> CompactOptions {
        CompactOptions {
            retention_ms: u64::try_from(retention.as_millis()).unwrap_or(u64::MAX),
            ..CompactOptions::default()
        }
    }
}

/// How far the horizon is to advance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Just above the newest tombstone that can go. The less it moves, the
    /// fewer replicas have to reconcile.
    AsNeeded,
    /// To this time, as far as the other bounds permit.
    Until(Time),
}

impl Default for CompactOptions {
    /// Tombstones are kept for 90 days; 30 days of history a run.
    fn default() -> CompactOptions {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        CompactOptions {
            retention_ms: 90 * DAY_MS,
            max_step_ms: 30 * DAY_MS,
            reach: Reach::AsNeeded,
        }
    }
}

/// What a compaction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// Tombstones that are gone.
    pub removed: u64,
    /// The horizon before.
    pub from: Time,
    /// The horizon now.
    pub to: Time,
}

/// Compacts one space. The space is locked for each batch, not throughout.
///
/// # Errors
/// What the store says; batches done before stay done.
pub fn compact(
    store: &dyn Store,
    space: &SpaceId,
    now_ms: u64,
    options: CompactOptions,
) -> Result<Compacted> {
    let arrived_until_ms = match mutant!(YoungTombstonesCompacted) {
        false => now_ms.saturating_sub(options.retention_ms),
        true => now_ms,
    };
    let mut done: Option<Compacted> = None;
    loop {
        let target = done.map(|d| d.to);
        let step = store.write(space, move |tx| {
            let state = tx.state()?;
            let from = state.position.horizon;
            let nothing = Compacted {
                removed: 0,
                from,
                to: from,
            };
            if state.status != SpaceStatus::Active {
                return Ok(nothing);
            }
            let to = match target {
                Some(to) => to,
                None => {
                    let newest = match mutant!(HorizonFromNow) {
                        false => state.newest_time,
                        true => Time::from_millis(now_ms),
                    };
                    let old = tx.tombstone_times(newest, arrived_until_ms)?;
                    let base = match (from, old) {
                        (Time::ZERO, Some((oldest, _))) => oldest,
                        _ => from,
                    };
                    let most = newest.min(later(base, options.max_step_ms));
                    match options.reach {
                        Reach::Until(time) => time.min(most),
                        Reach::AsNeeded if mutant!(HorizonFromNow) => {
                            Time::from_millis(arrived_until_ms)
                        }
                        Reach::AsNeeded => tx
                            .tombstone_times(most, arrived_until_ms)?
                            .map_or(from, |(_, newest_old)| Time(newest_old.0 + 1)),
                    }
                    .max(from)
                }
            };
            let removed = tx.compact(Compaction {
                horizon: to,
                arrived_until_ms,
                limit: BATCH,
            })?;
            Ok(Compacted {
                removed: removed as u64,
                from,
                to,
            })
        })?;
        let total = match done {
            None => step,
            Some(before) => Compacted {
                removed: before.removed + step.removed,
                ..before
            },
        };
        done = Some(total);
        if step.removed < BATCH as u64 {
            return Ok(total);
        }
    }
}

fn later(time: Time, by_ms: u64) -> Time {
    Time(time.0.saturating_add(by_ms.min(u64::MAX >> 16) << 16))
}
