//! The simulation is tested itself: the implementations are made wrong on
//! purpose, one rule at a time, and the runs must notice. Knows the list of
//! mutants, and nothing of what they do.

use crate::campaign::world_of;
use crate::run::{Options, run};
use crate::world::World;
use gosync_proto::mutant::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
        let violation = match catch_unwind(AssertUnwindSafe(|| run(world, seed, &options))) {
            Ok(outcome) => outcome?.violations.into_iter().next(),
            Err(_) => Some("it panicked".into()),
        };
        if let Some(violation) = violation {
            return Ok(Hunt::Found {
                seed,
                world: world.name,
                violation,
            });
        }
    }
    Ok(Hunt::Survived(seeds))
}
