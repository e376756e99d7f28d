//! The SQLite stores of the server and of the client on a disk that loses its
//! power at each single change, or fails at each single operation. Knows what
//! a store promises: what it acknowledged is there, what it did not is there
//! wholly or not at all, and it opens again whatever happened.

mod client;
mod server;

use gosync_faulty_disk::{Crash, Disk, Fault, Image};
use std::fmt::Debug;
use std::path::Path;
use std::sync::Once;

/// A store, and a fixed list of things that are done to it.
trait Subject {
    type Store;
    type Error: Debug;

    /// How many things.
    const STEPS: usize;

    fn open(path: &Path) -> Result<Self::Store, Self::Error>;

    /// Does one of them.
    fn step(store: &Self::Store, step: usize) -> Result<(), Self::Error>;

    /// Everything that the store holds, as text.
    fn content(store: &Self::Store) -> Result<String, Self::Error>;

    /// Whether the store said that it writes no more until it is opened anew.
    fn stopped(store: &Self::Store) -> bool;

    /// Whether it does so after a failed sync.
    const STOPS: bool;
}

fn disk(image: Image) -> Disk {
    static ONCE: Once = Once::new();
    ONCE.call_once(gosync_faulty_disk::use_by_default);
    Disk::new(image)
}

fn open<S: Subject>(disk: &Disk) -> Result<S::Store, S::Error> {
    S::open(&disk.path("db"))
}

/// A whole run: the store is closed and opened again halfway, so that its log
/// is folded in.
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
        let mut store = open::<S>(&disk).unwrap();
        let mut contents = vec![S::content(&store).unwrap()];
        let mut acknowledged = vec![disk.changes()];
        for step in 0..S::STEPS {
            if step == S::STEPS / 2 {
                drop(store);
                disk.wait_until_closed();
                store = open::<S>(&disk).unwrap();
            }
            S::step(&store, step).unwrap();
            acknowledged.push(disk.changes());
            contents.push(S::content(&store).unwrap());
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
    fn check<S: Subject>(&self, steps: usize, store: &S::Store, told: &str) -> usize {
        let content = S::content(store).unwrap();
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

/// At each change of the disk the power goes, and once more at each change that
/// the next opening makes.
fn survives_a_crash_at_each_change<S: Subject>() {
    let run = Run::new::<S>();
    let recording = run.disk.recording();
    let mut crashes = 0;
    let ways = [Crash::Lost, Crash::Kept, Crash::Torn(1), Crash::Torn(2)];
    recording.crashes(&ways, |at, way, image| {
        crashes += 1;
        let told = format!("crash at change {at} of {}, {way:?}", recording.len());
        let steps = run.steps_before(at).unwrap_or(0);
        let after = disk(image);
        let store = open::<S>(&after).unwrap_or_else(|e| panic!("{told}: {e:?}"));
        let held = run.check::<S>(steps, &store, &told);
        let opened = after.recording();
        // and it can be gone on with
        if held < S::STEPS {
            S::step(&store, held).unwrap_or_else(|e| panic!("{told}, step {held}: {e:?}"));
            assert_eq!(
                S::content(&store).unwrap(),
                run.contents[held + 1],
                "{told}"
            );
        }
        drop(store);
        after.wait_until_closed();
        opened.crashes(&[Crash::Lost], |again, _, image| {
            let told = format!("{told}, then at change {again} of the next opening");
            let after = disk(image);
            let store = open::<S>(&after).unwrap_or_else(|e| panic!("{told}: {e:?}"));
            run.check::<S>(held.min(steps), &store, &told);
            drop(store);
            after.wait_until_closed();
        });
    });
    assert_eq!(crashes, (recording.len() + 1) * ways.len());
    assert!(
        crashes > 400,
        "only {crashes} crashes: a store that hardly writes"
    );
}

/// Each operation of the disk fails once, in each of the ways. What was refused
/// changed nothing that is acknowledged, and either works when it is tried
/// again or never again until the store is opened anew.
fn survives_a_failure_of_each_operation<S: Subject>() {
    let run = Run::new::<S>();
    for fault in [Fault::Io, Fault::Full, Fault::Sync] {
        let operations = run.disk.operations(fault);
        assert!(operations > 0, "{fault:?} is never met");
        let stopped = (0..operations)
            .filter(|at| one_failure::<S>(&run, fault, *at))
            .count();
        assert_eq!(stopped > 0, S::STOPS && fault != Fault::Full, "{fault:?}");
    }
}

/// Returns whether the store stopped.
fn one_failure<S: Subject>(run: &Run, fault: Fault, at: u64) -> bool {
    let mut stopped = false;
    let told = format!("{fault:?} at operation {at}");
    let disk = disk(Image::default());
    disk.fail(fault, at);
    let mut acknowledged = 0;
    if let Ok(store) = open::<S>(&disk) {
        while acknowledged < S::STEPS {
            if S::step(&store, acknowledged).is_ok() {
                acknowledged += 1;
                continue;
            }
            assert!(
                disk.failures() > 0,
                "{told}: step {acknowledged} failed by itself"
            );
            disk.mend();
            if S::stopped(&store) {
                S::step(&store, acknowledged).expect_err(&told);
                stopped = true;
                break;
            }
            // nothing of it is there, so that it can be tried again
            let content = S::content(&store).unwrap_or_else(|e| panic!("{told}: {e:?}"));
            assert_eq!(content, run.contents[acknowledged], "{told}");
            S::step(&store, acknowledged).unwrap_or_else(|e| panic!("{told}, again: {e:?}"));
            acknowledged += 1;
        }
        // a failed sync that was taken for granted shows now
        let after = self::disk(disk.crash(Crash::Lost));
        let crashed = open::<S>(&after).unwrap_or_else(|e| panic!("{told}: {e:?}"));
        run.check::<S>(acknowledged, &crashed, &format!("{told}, then a crash"));
        drop(crashed);
        after.wait_until_closed();
        drop(store);
    }
    disk.mend();
    disk.wait_until_closed();
    let store = open::<S>(&disk).unwrap_or_else(|e| panic!("{told}, opened again: {e:?}"));
    run.check::<S>(acknowledged, &store, &format!("{told}, opened again"));
    drop(store);
    disk.wait_until_closed();
    stopped
}
