//! Runs of every world that are part of the tests.

use gosync_simulation::run::run;
use gosync_simulation::world::WORLDS;

/// A run that cannot be repeated explains nothing.
#[test]
fn equal_seeds_give_equal_traces() {
    for world in WORLDS {
        for seed in 0..2 {
            let first = run(world, seed, false).unwrap();
            let second = run(world, seed, false).unwrap();
            assert_eq!(first.hash, second.hash, "{} {seed}", world.name);
            assert_ne!(first.hash, run(world, seed + 1_000, false).unwrap().hash);
        }
    }
}
