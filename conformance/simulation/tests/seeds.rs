//! Some seeds of every world, and that a seed repeats itself.

use gosync_simulation::run::run;
use gosync_simulation::world::{WORLDS, find};

#[test]
fn the_first_seeds_of_every_world_end_equal_and_lose_nothing() {
    for world in WORLDS {
        for seed in 0..4 {
            let outcome = run(world, seed, false).unwrap();
            assert!(
                outcome.violations.is_empty(),
                "world {}, seed {seed}: {:#?}\nreplay: cargo xtask simulate --world {} --from {seed} --seeds 1 --trace",
                world.name,
                outcome.violations,
                world.name
            );
            assert!(outcome.writes > 0, "nobody wrote anything");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    for world in ["flaky", "lost-server"] {
        let world = find(world).unwrap();
        let hash = |seed| run(world, seed, false).unwrap().hash;
        assert_eq!(hash(7), hash(7));
        assert_ne!(hash(7), hash(8));
    }
}
