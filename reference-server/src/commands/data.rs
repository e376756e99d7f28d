//! The commands that look after a database: backup, restore, compact, verify,
//! inspect. What they do is done in [`crate::maintenance`] and the store; here
//! it is told.

use super::Outcome;
use super::output::{Unwritten, note, remark, say};
use crate::cli::{DataCommand, DbArgs};
use crate::clock::{LAST_DATE_MS, WallClock};
use crate::config::Database;
use crate::maintenance::{self, CompactOptions, SpaceReport};
use crate::store::sqlite::{self, CopyProgress, SqliteStore};
use crate::store::{ReadTx, SpaceStatus, Store, StoreError};
use gosync_proto::history::Epoch;
use gosync_proto::merkle::Stream;
use gosync_proto::{KeyRange, SpaceId, Time};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// Runs one of them.
pub(super) fn run(command: DataCommand) -> Outcome {
    match command {
        DataCommand::Backup { db, to } => backup(&open(&db)?, &to),
        DataCommand::Restore {
            db,
            from,
            overwrite,
        } => restore(file(&db)?, &from, overwrite),
        DataCommand::Compact {
            db,
            space,
            retention,
        } => compact(&open(&db)?, space.as_deref(), retention),
        DataCommand::Verify { db, repair } => verify(&open(&db)?, repair),
        DataCommand::Inspect { db, space, limit } => inspect(&open(&db)?, space.as_deref(), limit),
    }
}

fn file(db: &DbArgs) -> Result<&PathBuf, String> {
    match &db.db {
        Database::Sqlite(path) => Ok(path),
        Database::Memory => Err("this command needs a database in a file: --db sqlite:PATH".into()),
    }
}

fn open(db: &DbArgs) -> Result<SqliteStore, Box<dyn std::error::Error>> {
    Ok(SqliteStore::open_existing(file(db)?)?)
}

/// The spaces that a command is about.
fn chosen(
    store: &dyn Store,
    only: Option<&str>,
) -> Result<Vec<SpaceId>, Box<dyn std::error::Error>> {
    let all = store.spaces()?;
    let Some(id) = only else {
        return Ok(all);
    };
    let id = SpaceId::new(id)?;
    if !all.contains(&id) {
        return Err(format!(
            "there is no space {id}; `gosync-server inspect` lists those there are"
        )
        .into());
    }
    Ok(vec![id])
}

/// Shows how a copy goes on, to people only.
fn progress() -> impl FnMut(CopyProgress) {
    let shown = std::io::stderr().is_terminal();
    move |p| {
        if shown {
            let end = if p.done == p.total { '\n' } else { '\r' };
            remark(format_args!("{} of {} pages{end}", p.done, p.total));
        }
    }
}

fn backup(store: &SqliteStore, to: &Path) -> Outcome {
    store.backup(to, &mut progress())?;
    say!(
        "{} is a complete copy of {}",
        to.display(),
        store.path().display()
    )?;
    Ok(ExitCode::SUCCESS)
}

fn restore(to: &Path, from: &Path, overwrite: bool) -> Outcome {
    if to.exists() && !overwrite {
        let to = to.display();
        return Err(format!(
            "{to} exists; keep a copy of it, then add --overwrite to replace what it holds"
        )
        .into());
    }
    let mut epoch = [0; 8];
    getrandom::fill(&mut epoch)
        .map_err(|e| format!("the system gave no randomness for a new epoch: {e}"))?;
    let restored = sqlite::restore(
        from,
        to,
        overwrite,
        Epoch(u64::from_ne_bytes(epoch)),
        WallClock::system().now_ms(),
        &mut progress(),
    )?;
    say!(
        "{} holds the backup as epoch {:016x} (it was {:016x})",
        to.display(),
        restored.new_epoch.0,
        restored.old_epoch.0
    )?;
    for (space, sequence) in &restored.spaces {
        say!("{space}: history kept up to {sequence}")?;
    }
    let retention_ms = CompactOptions::default().retention_ms;
    let age_ms = restored
        .newest_commit_ms
        .map_or(0, |ms| WallClock::system().now_ms().saturating_sub(ms));
    if age_ms > retention_ms {
        note!(
            "warning: the newest commit of this backup is {} days old, older than tombstones are kept: \
             what was deleted since may come back from devices that still hold it",
            age_ms / (24 * 60 * 60 * 1000)
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn compact(store: &SqliteStore, only: Option<&str>, retention: Duration) -> Outcome {
    let options = CompactOptions::keeping(retention);
    for space in chosen(store, only)? {
        let done = maintenance::compact(store, &space, WallClock::system().now_ms(), options)?;
        say!(
            "{space}: {} tombstones removed, horizon {}",
            done.removed,
            moved(done.from, done.to)
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn moved(from: Time, to: Time) -> String {
    if from == to {
        format!("stays at {}", shown_time(to))
    } else {
        format!("moved from {} to {}", shown_time(from), shown_time(to))
    }
}

fn shown_time(time: Time) -> String {
    if time == Time::ZERO {
        return "the beginning".into();
    }
    let ms = time.millis();
    if ms > LAST_DATE_MS {
        return format!("{ms} ms after 1970");
    }
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

fn verify(store: &SqliteStore, repair: bool) -> Outcome {
    let mut problems = store.check_file()?;
    for problem in &problems {
        say!("file: {problem}")?;
    }
    if repair && !problems.is_empty() {
        store.rebuild_indexes()?;
        say!("file: indexes made anew")?;
        problems = store.check_file()?;
    }
    let mut sound = problems.is_empty();
    for space in store.spaces()? {
        let mut report = maintenance::verify(store, &space)?;
        describe(&report)?;
        if repair && !report.sound() {
            let aside = maintenance::repair(store, &report, WallClock::system().now_ms())?;
            say!(
                "{space}: {aside} damaged records set aside; replicas that hold them will be asked"
            )?;
            report = maintenance::verify(store, &space)?;
            describe(&report)?;
        }
        sound &= report.sound();
    }
    if sound {
        say!("everything is as it must be")?;
        return Ok(ExitCode::SUCCESS);
    }
    say!(
        "{}",
        if repair {
            "some of it could not be mended: restore a backup"
        } else {
            "something is damaged: stop the server and run verify --repair"
        }
    )?;
    Ok(ExitCode::FAILURE)
}

fn describe(report: &SpaceReport) -> Result<(), Unwritten> {
    let SpaceReport { space, state, .. } = report;
    say!(
        "{space}: {} records, {} bytes, fingerprint {}{}",
        state.records,
        state.bytes,
        report.computed.fingerprint.to_hex(),
        if report.sound() { ", sound" } else { "" }
    )?;
    for damage in &report.damage {
        say!(
            "{space}: the record under {} (sequence {}) does not match its digest",
            damage.key.escape_ascii(),
            damage.sequence
        )?;
    }
    if let Some((records, bytes)) = report.totals {
        say!("{space}: counted {records} records and {bytes} bytes")?;
    }
    for problem in &report.history {
        say!("{space}: {problem}")?;
    }
    if report.computed != report.kept {
        say!(
            "{space}: the kept digests make the fingerprint {}",
            report.kept.fingerprint.to_hex()
        )?;
    }
    if report.answered != report.computed && report.damage.is_empty() {
        say!(
            "{space}: a server answers {} records and the fingerprint {}",
            report.answered.count,
            report.answered.fingerprint.to_hex()
        )?;
    }
    if state.damaged > 0 {
        say!(
            "{space}: {} records are set aside, waiting for a replica",
            state.damaged
        )?;
    }
    Ok(())
}

fn inspect(store: &SqliteStore, only: Option<&str>, limit: usize) -> Outcome {
    say!("epoch {:016x}", store.epoch()?.0)?;
    for space in chosen(store, only)? {
        let mut tx = store.read(&space)?;
        let state = tx.state()?;
        let status = match state.status {
            SpaceStatus::Absent => "absent",
            SpaceStatus::Active => "active",
            SpaceStatus::Retired => "retired",
        };
        say!("space {space} ({status})")?;
        say!("  records      {} ({} bytes)", state.records, state.bytes)?;
        say!("  head         {}", state.head())?;
        say!("  horizon      {}", shown_time(state.position.horizon))?;
        say!("  set aside    {}", state.damaged)?;
        for point in tx.ancestry()?.restore_points {
            say!(
                "  restored at  {} of epoch {:016x}",
                point.sequence,
                point.epoch.0
            )?;
        }
        say!("  fingerprint  {}", fingerprint(&mut *tx)?)?;
        if only.is_some() {
            list(&mut *tx, limit)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// From the kept digests; `verify` hashes the bytes.
fn fingerprint(tx: &mut dyn ReadTx) -> Result<String, StoreError> {
    let horizon = tx.state()?.position.horizon;
    let mut stream = Stream::new();
    let mut ordered = true;
    tx.digests(&KeyRange::all(), &mut |d| {
        if d.counts_at(horizon) {
            ordered &= stream.push(d.key, d.digest).is_ok();
        }
        ControlFlow::Continue(())
    })?;
    Ok(if ordered {
        stream.finish().fingerprint.to_hex()
    } else {
        "none: keys are out of order; run verify".into()
    })
}

fn list(tx: &mut dyn ReadTx, limit: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut left = limit;
    let mut told = Ok(());
    tx.scan(&KeyRange::all(), None, &mut |stored| {
        if left == 0 {
            told = say!("  …");
            return ControlFlow::Break(());
        }
        left -= 1;
        let record = &stored.record;
        let what = if record.is_tombstone() {
            "deleted".to_owned()
        } else {
            format!("{} bytes", record.content.value().len())
        };
        told = say!(
            "  {:>8}  {}  {}  {what}",
            stored.sequence,
            shown_time(record.version.time),
            record.key
        );
        match told {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    Ok(told?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_of_a_clock_can_be_shown() {
        let shown = |ms: u64| shown_time(Time::from_millis(ms));
        assert_eq!(shown(LAST_DATE_MS), "9999-12-31T23:59:59.999Z");
        assert_eq!(shown(LAST_DATE_MS + 1), "253402300800000 ms after 1970");
        assert_eq!(shown((1 << 48) - 1), "281474976710655 ms after 1970");
    }
}
