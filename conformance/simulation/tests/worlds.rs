//! Runs of every world that are part of the tests.

use gosync_simulation::run::{Options, run};
use gosync_simulation::world::WORLDS;

/// A run that cannot be repeated explains nothing.
#[test]
fn equal_seeds_give_equal_traces() {
    for world in WORLDS {
        let [first, second] = [0, 1].map(|_| run(world, 0, &Options::default()).unwrap().hash);
        assert_eq!(first, second, "{}", world.name);
    }
}
