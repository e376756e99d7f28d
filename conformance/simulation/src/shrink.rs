//! Looks for the least part of a failing run that still fails in the same way:
//! a shorter time, fewer devices, fewer faults. Knows nothing of what they do.

use crate::run::{Options, Outcome, Part, run};
use crate::world::World;
use std::collections::BTreeSet;

/// At most so many runs are tried.
const TRIES: u32 = 300;

/// Takes away from a failing run whatever does not stop it from failing. The
/// outcome is that of the part in the options that are returned.
///
/// # Errors
/// What belongs to this machine, not to a run.
pub fn shrink(
    world: &'static World,
    failed: Outcome,
    options: &Options,
) -> anyhow::Result<(Options, Outcome)> {
    let mut search = Search {
        world,
        kinds: failed.violations.iter().map(|v| kind(v)).collect(),
        tries: TRIES,
        options: Options {
            print: false,
            ..options.clone()
        },
        outcome: failed,
    };
    search.seconds()?;
    search.devices()?;
    search.faults()?;
    search.devices()?;
    search.seconds()?;
    Ok((search.options, search.outcome))
}

/// A violation without what differs from run to run: numbers, keys, states.
fn kind(violation: &str) -> String {
    violation
        .split_whitespace()
        .take_while(|word| !word.contains(['{', '=', '@']))
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit() || c == '\\'))
        .take(8)
        .collect::<Vec<_>>()
        .join(" ")
}

struct Search {
    world: &'static World,
    /// What the run is known to fail with.
    kinds: BTreeSet<String>,
    tries: u32,
    /// The least so far, and what came of it.
    options: Options,
    outcome: Outcome,
}

impl Search {
    /// Whether this part fails in the same way: then it is the least so far.
    fn fails(&mut self, part: Part) -> anyhow::Result<bool> {
        if self.tries == 0 {
            return Ok(false);
        }
        self.tries -= 1;
        let options = Options {
            part,
            ..self.options.clone()
        };
        let seed = self.outcome.seed;
        let outcome = run(self.world, seed, &options)?;
        let same = outcome
            .violations
            .iter()
            .any(|v| self.kinds.contains(&kind(v)));
        if same {
            self.options = options;
            self.outcome = outcome;
        }
        Ok(same)
    }

    fn part(&self) -> Part {
        self.options.part.clone()
    }

    /// The shortest time, by halves.
    fn seconds(&mut self) -> anyhow::Result<()> {
        let (mut low, mut high) = (0, self.outcome.seconds);
        while low < high && self.tries > 0 {
            let middle = low + (high - low) / 2;
            let part = Part {
                seconds: Some(middle),
                ..self.part()
            };
            match self.fails(part)? {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(())
    }

    /// Without this device, without that one.
    fn devices(&mut self) -> anyhow::Result<()> {
        let all: BTreeSet<u64> = (0..self.outcome.devices).collect();
        for index in all.clone() {
            let mut left = self.part().devices.unwrap_or_else(|| all.clone());
            if left.remove(&index) {
                let part = Part {
                    devices: Some(left),
                    ..self.part()
                };
                self.fails(part)?;
            }
        }
        Ok(())
    }

    /// Without this half of the faults, without that quarter, and so on.
    fn faults(&mut self) -> anyhow::Result<()> {
        let all: BTreeSet<u64> = (0..self.outcome.faults).collect();
        let mut left: Vec<u64> = all.into_iter().collect();
        let mut size = left.len();
        while size > 0 && self.tries > 0 {
            let mut at = 0;
            while at < left.len() {
                let mut fewer = left.clone();
                fewer.drain(at..left.len().min(at + size));
                let part = Part {
                    faults: Some(fewer.iter().copied().collect()),
                    ..self.part()
                };
                match self.fails(part)? {
                    true => left = fewer,
                    false => at += size,
                }
            }
            size = match size {
                1 => 0,
                n => n.div_ceil(2),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world;
    use gosync_proto::mutant;

    #[test]
    fn what_differs_from_run_to_run_is_no_part_of_the_kind_of_a_violation() {
        let [a, b] = [
            "device 3 and the server differ at k007, and both believe that they are equal",
            "device 11 and the server differ at doc\\0d1, and both believe that they are equal",
        ];
        assert_eq!(kind(a), kind(b));
        assert_ne!(kind(a), kind("device 3 does not verify: None"));
    }

    #[test]
    fn the_least_part_of_a_failing_run_fails_in_the_same_way() {
        let world = world::find("lost-server").unwrap();
        let options = Options {
            mutant: mutant::find("epoch-ignored").map(|entry| entry.mutant),
            ..Options::default()
        };
        let whole = (0..20)
            .map(|seed| run(world, seed, &options).unwrap())
            .find(|outcome| !outcome.violations.is_empty())
            .expect("a mutant that most seeds notice");
        let (least, outcome) = shrink(world, whole.clone(), &options).unwrap();
        let kinds =
            |o: &Outcome| -> BTreeSet<String> { o.violations.iter().map(|v| kind(v)).collect() };
        assert!(!kinds(&outcome).is_disjoint(&kinds(&whole)));
        let faults = least.part.faults.clone().expect("some fault matters not");
        assert!(
            (faults.len() as u64) < whole.faults,
            "{faults:?} of {}",
            whole.faults
        );
        // and the line that is shown replays just this
        let again = run(world, whole.seed, &least).unwrap();
        assert_eq!(again.hash, outcome.hash);
    }
}
