//! The SQLite stores of the server and of the client on a disk that loses its
//! power at each single change, or fails at each single operation. Knows what
//! a store promises: what it acknowledged is there, what it did not is there
//! wholly or not at all, and it opens again whatever happened. `replica` has
//! the same of a whole client over a store in memory.

mod client;
mod replica;
mod server;

use gosync_faulty_disk::{Crash, Disk, Fault, Image};
use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Once;

/// A store, and a fixed list of things that are done to it.
trait Subject {
    type Store;
    type Error: Debug;

    /// How many things.
    const STEPS: usize;

    fn open(disk: &Disk) -> Result<Self::Store, Self::Error>;

    /// Does one of them.
    fn step(store: &mut Self::Store, step: usize) -> Result<(), Self::Error>;

    /// Whether a step that fails may have been done all the same: it changed
    /// a name, and could not make that durable.
    fn in_doubt(step: usize) -> bool;

    /// Everything that the store holds, as text.
    fn content(store: &mut Self::Store) -> Result<String, Self::Error>;

    /// Whether the store said that it writes no more until it is opened anew.
    fn stopped(store: &Self::Store) -> bool;

    /// Whether it does so after a failed sync.
    const STOPS: bool;

    /// What an older version would have left, while the store is closed halfway.
    fn age(_disk: &Disk) {}
}

fn disk(image: Image) -> Disk {
    static ONCE: Once = Once::new();
    ONCE.call_once(gosync_faulty_disk::use_by_default);
    Disk::new(image)
}

/// A whole run: the store is closed and opened again halfway, so that its log
/// is folded in, and an older one is brought to the present version.
struct Run {
    disk: Disk,
    /// The content before each step, and after the last.
    contents: Vec<String>,
    /// How many changes the disk had seen when a step was acknowledged.
    acknowledged: Vec<usize>,
}

impl Run {
    fn new<S: Subject>() -> Run {
        let disk = disk(Image::default());
        let mut store = S::open(&disk).unwrap();
        let mut contents = vec![S::content(&mut store).unwrap()];
        let mut acknowledged = vec![disk.changes()];
        for step in 0..S::STEPS {
            if step == S::STEPS / 2 {
                close(store, &disk);
                age::<S>(&disk);
                store = S::open(&disk).unwrap();
            }
            S::step(&mut store, step).unwrap();
            acknowledged.push(disk.changes());
            contents.push(S::content(&mut store).unwrap());
        }
        drop(store);
        disk.wait_until_closed();
        Run {
            disk,
            contents,
            acknowledged,
        }
    }

    /// How many steps were acknowledged before the disk had seen more than so
    /// many changes; `None` before the store was there.
    fn steps_before(&self, changes: usize) -> Option<usize> {
        self.acknowledged
            .partition_point(|at| *at <= changes)
            .checked_sub(1)
    }

    /// Checks that the store holds what it held after `steps`, or after one
    /// step more; returns which.
    fn check<S: Subject>(&self, steps: usize, store: &mut S::Store, told: &str) -> usize {
        let content = S::content(store).unwrap_or_else(|e| panic!("{told}: {e:?}"));
        let next = self.contents.get(steps + 1);
        if content == self.contents[steps] {
            steps
        } else if next == Some(&content) {
            steps + 1
        } else {
            panic!(
                "{told}: after {steps} steps the store holds\n{content}\nand not\n{}\nor\n{next:?}",
                self.contents[steps]
            );
        }
    }
}

/// What a crash leaves of what was not synced: nothing, all, or some of it.
const WAYS: [Crash; 4] = [Crash::Lost, Crash::Kept, Crash::Torn(1), Crash::Torn(2)];

/// At each change of the disk the power goes, and once more at each change that
/// the next opening makes, in each of the ways.
fn survives_a_crash_at_each_change<S: Subject>() {
    let run = Run::new::<S>();
    let recording = run.disk.recording();
    let mut crashes = 0;
    let mut again = 0;
    let mut seen = Seen::default();
    recording.crashes(&WAYS, |at, way, image| {
        crashes += 1;
        let steps = run.steps_before(at).unwrap_or(0);
        if !seen.is_new(&image, steps) {
            return;
        }
        let told = format!("crash at change {at} of {}, {way:?}", recording.len());
        let after = disk(image);
        let mut store = S::open(&after).unwrap_or_else(|e| panic!("{told}: {e:?}"));
        let opened = after.recording();
        let held = run.check::<S>(steps, &mut store, &told);
        // and it can be gone on with
        if held < S::STEPS {
            S::step(&mut store, held).unwrap_or_else(|e| panic!("{told}, step {held}: {e:?}"));
            assert_eq!(
                S::content(&mut store).unwrap(),
                run.contents[held + 1],
                "{told}"
            );
        }
        drop(store);
        after.wait_until_closed();
        opened.crashes(&WAYS, |at, way, image| {
            again += 1;
            if !seen.is_new(&image, steps) {
                return;
            }
            let told = format!("{told}, then at change {at} of the next opening, {way:?}");
            let after = disk(image);
            let mut store = S::open(&after).unwrap_or_else(|e| panic!("{told}: {e:?}"));
            run.check::<S>(steps, &mut store, &told);
            drop(store);
            after.wait_until_closed();
        });
    });
    assert_eq!(crashes, (recording.len() + 1) * WAYS.len());
    assert!(
        crashes > 400,
        "only {crashes} crashes: a store that hardly writes"
    );
    let openings = seen.0.len();
    println!("{crashes} crashes, {again} more while opening, {openings} of them unlike");
    assert!(again > crashes, "openings that hardly write");
}

/// What was opened after a crash already. Crashes that leave the same bytes,
/// and after which the same must be there, end alike.
#[derive(Default)]
struct Seen(HashSet<(u64, usize)>, RandomState);

impl Seen {
    fn is_new(&mut self, image: &Image, steps: usize) -> bool {
        self.0.insert((self.1.hash_one(image), steps))
    }
}

/// Each operation of the disk fails once, in each of the ways, those of the
/// opening halfway included. What was refused
/// changed nothing that is acknowledged, and either works when it is tried
/// again or never again until the store is opened anew.
fn survives_a_failure_of_each_operation<S: Subject>() {
    let run = Run::new::<S>();
    for fault in [Fault::Io, Fault::Full, Fault::Sync] {
        let operations = (0..TRIES).map(|_| operations::<S>(fault)).max();
        let operations = operations.unwrap_or(0);
        assert!(operations > 0, "{fault:?} is never met");
        println!("{operations} operations that can fail as {fault:?}");
        let stopped = (0..operations)
            .filter(|at| {
                let outcome = (0..TRIES).find_map(|_| one_failure::<S>(&run, fault, *at));
                outcome.unwrap_or_else(|| panic!("{fault:?} at operation {at} was never met"))
            })
            .count();
        assert_eq!(stopped > 0, S::STOPS && fault != Fault::Full, "{fault:?}");
    }
}

/// A store with several connections closes them on threads of their own, and
/// the last tidies up: how many operations that takes is not always the same.
const TRIES: usize = 20;

/// How many there are when nothing fails.
fn operations<S: Subject>(fault: Fault) -> u64 {
    let disk = disk(Image::default());
    let mut store = S::open(&disk).unwrap();
    let mut aging = 0;
    for step in 0..S::STEPS {
        if step == S::STEPS / 2 {
            close(store, &disk);
            let before = disk.operations(fault);
            age::<S>(&disk);
            aging = disk.operations(fault) - before;
            store = S::open(&disk).unwrap();
        }
        S::step(&mut store, step).unwrap();
    }
    close(store, &disk);
    disk.operations(fault) - aging
}

fn close<T>(store: T, disk: &Disk) {
    drop(store);
    disk.wait_until_closed();
}

/// What an older version left is no work of the store: nothing fails.
fn age<S: Subject>(disk: &Disk) {
    disk.without_faults(|| {
        S::age(disk);
        disk.wait_until_closed();
    });
}

/// Returns whether the store stopped; `None` when it did fewer operations.
fn one_failure<S: Subject>(run: &Run, fault: Fault, at: u64) -> Option<bool> {
    let mut stopped = false;
    let told = format!("{fault:?} at operation {at}");
    let disk = disk(Image::default());
    disk.fail(fault, at);
    let mut acknowledged = 0;
    if let Ok(mut store) = S::open(&disk) {
        while acknowledged < S::STEPS {
            if acknowledged == S::STEPS / 2 {
                close(store, &disk);
                age::<S>(&disk);
                store = S::open(&disk).unwrap_or_else(|e| {
                    assert!(disk.failures() > 0, "{told}: not opened by itself: {e:?}");
                    // whatever the failed opening left, and whatever of it is durable
                    holds::<S>(run, acknowledged, disk.crash(Crash::Lost), &told);
                    disk.mend();
                    S::open(&disk).unwrap_or_else(|e| panic!("{told}, opened again: {e:?}"))
                });
            }
            if S::step(&mut store, acknowledged).is_ok() {
                acknowledged += 1;
                continue;
            }
            assert!(
                disk.failures() > 0,
                "{told}: step {acknowledged} failed by itself"
            );
            // what is left of it on the disk may show after a crash, wholly or not
            for way in [Crash::Kept, Crash::Torn(at)] {
                let told = format!("{told}, {way:?}");
                holds::<S>(run, acknowledged, disk.crash(way), &told);
            }
            disk.mend();
            if S::stopped(&store) {
                S::step(&mut store, acknowledged).expect_err(&told);
                stopped = true;
                break;
            }
            // nothing of it is there, so that it can be tried again
            let held = run.check::<S>(acknowledged, &mut store, &told);
            assert!(
                held == acknowledged || S::in_doubt(acknowledged),
                "{told}: step {acknowledged} failed and was done"
            );
            S::step(&mut store, acknowledged).unwrap_or_else(|e| panic!("{told}, again: {e:?}"));
            acknowledged += 1;
        }
        // a failed sync that was taken for granted shows now
        holds::<S>(run, acknowledged, disk.crash(Crash::Lost), &told);
        drop(store);
    }
    disk.wait_until_closed();
    if disk.failures() == 0 {
        return None;
    }
    disk.mend();
    let mut store = S::open(&disk).unwrap_or_else(|e| panic!("{told}, opened again: {e:?}"));
    run.check::<S>(acknowledged, &mut store, &format!("{told}, opened again"));
    close(store, &disk);
    Some(stopped)
}

/// What a crash left opens, and holds what it must.
fn holds<S: Subject>(run: &Run, acknowledged: usize, left: Image, told: &str) {
    let after = disk(left);
    let told = format!("{told}, then a crash");
    let mut crashed = S::open(&after).unwrap_or_else(|e| panic!("{told}: {e:?}"));
    run.check::<S>(acknowledged, &mut crashed, &told);
    close(crashed, &after);
}
