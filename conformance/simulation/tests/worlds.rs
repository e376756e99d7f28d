//! Runs of every world that are part of the tests.

use gosync_simulation::run::{Options, run};
use gosync_simulation::world::{BY_NAME, WORLDS, find};

/// A run that cannot be repeated explains nothing.
#[test]
fn equal_seeds_give_equal_traces() {
    for world in WORLDS.iter().chain(BY_NAME) {
        let [first, second] = [0, 1].map(|_| run(world, 0, &Options::default()).unwrap().hash);
        assert_eq!(first, second, "{}", world.name);
    }
}

/// Regression: a replica that wrote much before it ever synced reconciles
/// instead of taking a snapshot, and what came counted as healed.
#[test]
fn a_first_sync_by_reconciliation_is_no_healing() {
    let outcome = run(find("flaky").unwrap(), 1697, &Options::default()).unwrap();
    assert_eq!(outcome.violations, [""; 0]);
}

/// Regression: a device with a slow clock gave up a lost call in the minute in
/// which nothing may happen any more.
#[test]
fn a_slow_clock_may_take_longer_to_give_up_a_lost_call() {
    let outcome = run(find("flaky").unwrap(), 451, &Options::default()).unwrap();
    assert_eq!(outcome.violations, [""; 0]);
}

/// Regressions, found once disks failed: a snapshot went on after keys that could
/// not be stored, and a count of what waits that could not be made was not made
/// again.
#[test]
fn a_disk_that_fails_for_a_while_costs_nothing() {
    for (world, seed) in [("partial", 139), ("spaces", 875)] {
        let outcome = run(find(world).unwrap(), seed, &Options::default()).unwrap();
        assert_eq!(outcome.violations, [""; 0], "{world} {seed}");
    }
}

/// Regressions: what was healed was not told where the store failed at the end of
/// the session; and a request that was on its way while the server was wiped
/// counted as what its author thinks now.
#[test]
fn whoever_brings_a_deleted_record_back_knows_it() {
    for (world, seed) in [
        ("two-acts", 2932),
        ("lost-server", 4147),
        ("lost-sqlite", 2379),
    ] {
        let outcome = run(find(world).unwrap(), seed, &Options::default()).unwrap();
        assert_eq!(outcome.violations, [""; 0], "{world} {seed}");
    }
}

/// Regressions: an older tombstone came to where a record was damaged on the
/// server, which then asked for the record no more; once the tombstone was
/// compacted, the replicas that had the record took it for deleted.
#[test]
fn what_was_damaged_is_not_lost_where_an_older_deletion_came_to_its_place() {
    for seed in [37637, 40913] {
        let outcome = run(find("everything").unwrap(), seed, &Options::default()).unwrap();
        assert_eq!(outcome.violations, [""; 0], "{seed}");
    }
}

/// Regression: a deletion that nobody was told of, and that was compacted before
/// anybody looked, was no reason for the ledger why a put is gone.
#[test]
fn a_deletion_is_believed_although_its_push_and_its_compaction_ended_in_errors() {
    let outcome = run(find("everything").unwrap(), 269, &Options::default()).unwrap();
    assert_eq!(outcome.violations, [""; 0]);
}
