//! Many runs: seeds spread over worlds and threads, and what came of them, as a
//! summary that can be kept and gone on with. Knows nothing of what happens in
//! a run.

use crate::run::{Options, Outcome, run};
use crate::world::{self, World};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// So many runs of a campaign are carried out between two looks at its sums.
pub const CHUNK: u64 = 200;
/// So many failures are kept in full.
const FAILURES: usize = 50;

/// What came of the runs so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The first seed of the campaign.
    pub from: u64,
    /// The next seed to be run; all before it were.
    pub next: u64,
    /// World by world.
    pub worlds: BTreeMap<String, Sums>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// What was tried, the oldest first: a long campaign outlives builds.
    #[serde(default)]
    pub builds: Vec<Build>,
}

/// A build of client and server, and how many runs of a campaign tried it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The commit that it was made from.
    pub commit: String,
    /// Runs.
    pub seeds: u64,
}

/// What came of the runs of one world.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Runs.
    pub seeds: u64,
    /// Runs in which something happened that must not.
    pub failed: u64,
    /// Writes that users made.
    pub writes: u64,
    /// Virtual time.
    pub virtual_seconds: u64,
    /// The time that it took, summed over threads.
    pub seconds: f64,
    /// Virtual seconds for each second.
    pub times_real_time: u64,
}

/// A run in which something happened that must not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where.
    pub world: String,
    /// Which run.
    pub seed: u64,
    /// What happened.
    pub violations: Vec<String>,
}

/// A failure of a campaign cannot be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "seed {seed} failed in the world {world:?}, which there is no more; --list shows those that there are"
)]
pub struct NoSuchWorld {
    /// Where it failed.
    pub world: String,
    /// Which run.
    pub seed: u64,
}

impl Sums {
    fn add(&mut self, outcome: &Outcome, seconds: f64) {
        self.seeds += 1;
        self.failed += u64::from(!outcome.violations.is_empty());
        self.writes += outcome.writes;
        self.virtual_seconds += outcome.virtual_ms / 1_000;
        self.seconds += seconds;
        self.times_real_time = (self.virtual_seconds as f64 / self.seconds.max(1e-6)) as u64;
    }
}

impl Summary {
    /// Of a campaign that begins with this seed.
    pub fn new(from: u64) -> Summary {
        Summary {
            from,
            next: from,
            ..Summary::default()
        }
    }

    /// So many more runs were of this build.
    pub fn tried(&mut self, commit: &str, seeds: u64) {
        match self.builds.last_mut().filter(|b| b.commit == commit) {
            Some(build) => build.seeds += seeds,
            None => self.builds.push(Build {
                commit: commit.to_owned(),
                seeds,
            }),
        }
    }

    /// All worlds together.
    pub fn total(&self) -> Sums {
        let mut total = Sums::default();
        for sums in self.worlds.values() {
            total.seeds += sums.seeds;
            total.failed += sums.failed;
            total.writes += sums.writes;
            total.virtual_seconds += sums.virtual_seconds;
            total.seconds += sums.seconds;
        }
        total.times_real_time = (total.virtual_seconds as f64 / total.seconds.max(1e-6)) as u64;
        total
    }

    fn add(&mut self, world: &World, outcome: &Outcome, seconds: f64) {
        let sums = self.worlds.entry(world.name.to_owned()).or_default();
        sums.add(outcome, seconds);
        if !outcome.violations.is_empty() && self.failures.len() < FAILURES {
            self.failures.push(Failure {
                world: world.name.to_owned(),
                seed: outcome.seed,
                violations: outcome.violations.iter().take(3).cloned().collect(),
            });
            self.failures.sort_by_key(|f| f.seed);
        }
    }
}

/// The world of a seed: each in turn.
pub fn world_of(worlds: &[&'static World], seed: u64) -> &'static World {
    worlds[(seed % worlds.len() as u64) as usize]
}

/// Runs a seed twice: two that have another trace are a failure.
fn run_twice(world: &'static World, seed: u64, options: &Options) -> anyhow::Result<Outcome> {
    let mut outcome = run(world, seed, options)?;
    let again = run(world, seed, options)?;
    if again.hash != outcome.hash {
        let what = format!(
            "a second run has another trace: {} and {}",
            outcome.hash, again.hash
        );
        outcome.violations.push(what);
    }
    Ok(outcome)
}

/// How seeds are run.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Each of them.
    pub options: Options,
    /// Every so many of them twice, for the same trace.
    pub twice: Option<u64>,
    /// On so many threads, at least one.
    pub jobs: usize,
}

/// Hears of each run, and of all that are over; says whether to go on.
pub type Tell<'t> = dyn Fn(&'static World, &Outcome, &Summary) -> bool + Sync + 't;

/// Runs `count` seeds from `summary.next` on, and adds them up.
///
/// # Errors
/// What belongs to this machine, not to a run.
pub fn go_on(
    summary: &mut Summary,
    worlds: &[&'static World],
    way: &Way,
    count: u64,
    tell: &Tell<'_>,
) -> anyhow::Result<()> {
    let from = summary.next;
    let end = from.saturating_add(count);
    let nth = |n| {
        let seed = from.saturating_add(n);
        (seed < end).then(|| (world_of(worlds, seed), seed))
    };
    run_all(summary, &nth, way, tell)?;
    summary.next = end;
    Ok(())
}

/// Runs again what failed in a campaign once, whatever the build was, and adds
/// it up.
///
/// # Errors
/// [`NoSuchWorld`], before anything is run; and what belongs to this machine,
/// not to a run.
pub fn run_again(failures: &[Failure], way: &Way, tell: &Tell<'_>) -> anyhow::Result<Summary> {
    let find = |failure: &Failure| match world::find(&failure.world) {
        Some(world) => Ok((world, failure.seed)),
        None => Err(NoSuchWorld {
            world: failure.world.clone(),
            seed: failure.seed,
        }),
    };
    let runs: Vec<_> = failures.iter().map(find).collect::<Result<_, _>>()?;
    let nth = |n| usize::try_from(n).ok().and_then(|n| runs.get(n).copied());
    let mut summary = Summary::default();
    run_all(&mut summary, &nth, way, tell)?;
    Ok(summary)
}

/// Carries out one run after the other, until there is none more.
fn run_all(
    summary: &mut Summary,
    nth: &(dyn Fn(u64) -> Option<(&'static World, u64)> + Sync),
    way: &Way,
    tell: &Tell<'_>,
) -> anyhow::Result<()> {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let fault = Mutex::new(None);
    let sums = Mutex::new(summary.clone());
    std::thread::scope(|scope| {
        for _ in 0..way.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some((world, seed)) = nth(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let began = Instant::now();
                    let twice = way.twice.is_some_and(|every| seed.is_multiple_of(every));
                    let outcome = match twice {
                        true => run_twice(world, seed, &way.options),
                        false => run(world, seed, &way.options),
                    };
                    match outcome {
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            *locked(&fault) = Some(error);
                        }
                        Ok(outcome) => {
                            let mut sums = locked(&sums);
                            sums.add(world, &outcome, began.elapsed().as_secs_f64());
                            if !tell(world, &outcome, &sums) {
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = locked(&fault).take() {
        return Err(error);
    }
    *summary = locked(&sums).clone();
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_proto::mutant;

    #[test]
    fn a_campaign_goes_on_where_it_ended() {
        let worlds = [world::find("calm").unwrap()];
        let all = |_: &'static World, _: &Outcome, _: &Summary| true;
        let mut whole = Summary::new(3);
        let way = |jobs| Way {
            jobs,
            ..Way::default()
        };
        go_on(&mut whole, &worlds, &way(2), 2, &all).unwrap();
        let mut parts = Summary::new(3);
        for _ in 0..2 {
            go_on(&mut parts, &worlds, &way(1), 1, &all).unwrap();
            parts.tried("one", 1);
            let kept = serde_json::to_string(&parts).unwrap();
            parts = serde_json::from_str(&kept).unwrap();
        }
        let counted = |s: &Summary| (s.next, s.total().seeds, s.total().writes);
        assert_eq!(counted(&whole), counted(&parts));
        assert_eq!(whole.next, 5);
        parts.tried("other", 7);
        let builds = parts.builds.iter().map(|b| (&b.commit[..], b.seeds));
        assert_eq!(builds.collect::<Vec<_>>(), [("one", 2), ("other", 7)]);
    }

    #[test]
    fn what_fails_again_is_told_and_added_up() {
        let failures = ["calm", "flaky"].map(|world| Failure {
            world: world.into(),
            seed: 0,
            violations: vec![],
        });
        let mutant = mutant::find("sent-is-accepted").map(|entry| entry.mutant);
        let options = Options {
            mutant,
            ..Options::default()
        };
        let way = Way {
            options,
            ..Way::default()
        };
        let told = AtomicU64::new(0);
        let tell = |_: &'static World, outcome: &Outcome, _: &Summary| {
            let failed = u64::from(!outcome.violations.is_empty());
            told.fetch_add(failed, Ordering::Relaxed);
            true
        };
        let sums = run_again(&failures, &way, &tell).unwrap();
        assert_eq!((sums.total().seeds, sums.total().failed), (2, 2));
        assert_eq!(told.into_inner(), 2);
        assert_eq!(sums.failures[0].world, "calm");
    }
}
