//! The simulation is tested itself: the implementations are made wrong on
//! purpose, one rule at a time, and the runs must notice. Knows the list of
//! mutants, and nothing of what they do.

use crate::campaign::world_of;
use crate::run::{Options, run};
use crate::world::World;
use anyhow::{Context as _, bail};
use gosync_proto::mutant::{self, Entry};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The mutants that the runs notice. The rest of the list is about single
/// answers, limits, manners and tokens, which the conformance suite judges.
pub const NOTICED: &[&str] = &[
    "ack-before-durable",
    "ack-without-storing",
    "always-equal",
    "beaten-writes-stay",
    "behind-accepted",
    "behind-refuses-all",
    "checkpoint-believed",
    "checkpoint-of-empty",
    "clock-forgotten",
    "compaction-forgotten",
    "compaction-ignored",
    "cursor-before-records",
    "cursor-first",
    "damage-offered",
    "damage-served",
    "doubt-untold",
    "epoch-ignored",
    "horizon-from-now",
    "lacking-untold",
    "last-arrival-wins",
    "last-position-adopted",
    "lineage-ignored",
    "missing-dropped",
    "missing-offered",
    "offer-restamped",
    "old-fields-shown",
    "old-tombstones-in-tree",
    "old-tombstones-kept",
    "old-versions-refused",
    "old-writes-kept",
    "points-not-confirmed",
    "position-before-push",
    "present-clock-told",
    "push-moves-cursor",
    "records-held-back",
    "replaced-ignored",
    "restamp-reorders",
    "restore-point-ignored",
    "retry-restamped",
    "sent-is-accepted",
    "server-always-wins",
    "silence-borne",
    "skew-unchecked",
    "smaller-hash-wins",
    "snapshot-after-inclusive",
    "snapshot-last-position",
    "snapshot-omits",
    "snapshot-without-tombstones",
    "tie-by-arrival",
    "tombstone-loses-tie",
    "tombstones-out-of-tree",
    "tree-not-updated",
    "verdict-not-awaited",
    "verify-looks-at-nothing",
    "watch-cursor-in-commit",
    "watch-omits",
    "watch-without-tombstones",
    "winner-left-out",
    "young-tombstones-compacted",
];

/// What came of a hunt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hunt {
    /// Noticed.
    Found {
        /// The run in which it was; runs begin with seed 0.
        seed: u64,
        /// Where.
        world: &'static str,
        /// What was noticed.
        violation: String,
    },
    /// Not noticed in so many runs.
    Survived(u64),
}

/// Runs seeds of the worlds in turn until a mutant is noticed.
///
/// # Errors
/// What belongs to this machine, not to a run.
pub fn hunt(entry: &Entry, worlds: &[&'static World], seeds: u64) -> anyhow::Result<Hunt> {
    let options = Options {
        mutant: Some(entry.mutant),
        ..Options::default()
    };
    for seed in 0..seeds {
        let world = world_of(worlds, seed);
        let outcome = run(world, seed, &options)?;
        if let Some(violation) = outcome.violations.into_iter().next() {
            return Ok(Hunt::Found {
                seed,
                world: world.name,
                violation,
            });
        }
    }
    Ok(Hunt::Survived(seeds))
}

/// Hunts these mutants on so many threads. `tell` hears of each result as it
/// comes.
///
/// # Errors
/// What belongs to this machine, not to a run.
pub fn hunt_all<'e>(
    entries: &[&'e Entry],
    worlds: &[&'static World],
    seeds: u64,
    jobs: usize,
    tell: &(dyn Fn(&'e Entry, &Hunt) + Sync),
) -> anyhow::Result<Vec<(&'e Entry, Hunt)>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || -> anyhow::Result<()> {
            while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = hunt(entry, worlds, seeds)?;
                tell(entry, &result);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((*entry, result));
            }
            Ok(())
        };
        let all: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        all.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread broke down"),
        })
    })?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The rows of the list with these names.
///
/// # Errors
/// There is no mutant of such a name.
pub fn entries(names: &[impl AsRef<str>]) -> anyhow::Result<Vec<&'static Entry>> {
    let find = |name: &str| {
        let entry = mutant::find(name);
        entry.with_context(|| format!("there is no mutant {name:?}"))
    };
    names.iter().map(|name| find(name.as_ref())).collect()
}

/// Where the table stands in a document.
const MARKS: [&str; 2] = ["<!-- mutants -->\n", "<!-- end of mutants -->\n"];

/// The results as a table, those that are noticed first before the others.
pub fn table(results: &[(&Entry, Hunt)]) -> String {
    let mut rows: Vec<(u64, &str, String)> = results
        .iter()
        .map(|(entry, result)| {
            let (seeds, noticed) = match result {
                Hunt::Found { seed, world, .. } => (seed + 1, format!("{} | `{world}`", seed + 1)),
                Hunt::Survived(seeds) => (u64::MAX, format!("not in {seeds} | ")),
            };
            let row = format!("| `{}` | {} | {noticed} |\n", entry.name, entry.about);
            (seeds, entry.name, row)
        })
        .collect();
    rows.sort();
    let head = "| Mutant | What is wrong | Noticed after seeds | World |\n|---|---|--:|---|\n";
    let rows = rows.into_iter().map(|(_, _, row)| row);
    std::iter::once(head.to_owned()).chain(rows).collect()
}

/// A document with another table between its marks.
///
/// # Errors
/// The marks are not there.
pub fn with_table(document: &str, table: &str) -> anyhow::Result<String> {
    let [begin, end] = MARKS;
    let parts = document.split_once(begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    let (before, after) = parts.context("the marks around the table of mutants are not there")?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_that_is_to_be_noticed_is_in_the_list() {
        assert_eq!(entries(NOTICED).unwrap().len(), NOTICED.len());
    }

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let entries = entries(&["no-op", "tie-by-arrival"]).unwrap();
        let found = Hunt::Found {
            seed: 1,
            world: "calm",
            violation: "v".into(),
        };
        let table = table(&[(entries[0], Hunt::Survived(9)), (entries[1], found)]);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert!(rows[0].starts_with("| `tie-by-arrival` |") && rows[0].ends_with("| 2 | `calm` |"));
        assert!(rows[1].contains("| not in 9 |"));
        let document = format!("a\n{}old\n{}b\n", MARKS[0], MARKS[1]);
        let renewed = with_table(&document, &table).unwrap();
        assert_eq!(renewed, document.replace("old\n", &table));
        assert!(with_table("a", &table).is_err());
    }
}
