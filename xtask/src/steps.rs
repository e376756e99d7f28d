//! A table of named steps, run one after the other: each is timed, all are run even when one fails, and the last
//! line counts them. `check` and `test` are such tables.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser};

/// One row of a table.
pub struct Step {
    /// What the user calls it.
    pub name: &'static str,
    /// What it proves, in half a sentence.
    pub about: &'static str,
    /// Gets what it needs from `setup`, then does it.
    pub run: fn() -> Result<()>,
}

/// Accepts the names of a table, and lists them with their meaning in `--help`.
pub fn names(table: &'static [Step]) -> PossibleValuesParser {
    table
        .iter()
        .map(|step| PossibleValue::new(step.name).help(step.about))
        .collect::<Vec<_>>()
        .into()
}

/// Runs the steps of `table` that are named in `only`, in the table's order; all of them when it is empty.
///
/// An error, after the last step, when one failed.
pub fn run(table: &[Step], only: &[String]) -> Result<()> {
    let (mut passed, mut failed) = (0, 0);
    for step in table
        .iter()
        .filter(|step| only.is_empty() || only.iter().any(|name| name == step.name))
    {
        eprintln!("\n== {}: {}", step.name, step.about);
        let start = Instant::now();
        let result = (step.run)();
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                passed += 1;
                eprintln!("ok     {} ({seconds:.1} s)", step.name);
            }
            Err(error) => {
                failed += 1;
                eprintln!("FAILED {} ({seconds:.1} s): {error:#}", step.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("{failed} of {} steps failed", passed + failed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Step] = &[
        Step {
            name: "good",
            about: "passes",
            run: || Ok(()),
        },
        Step {
            name: "bad",
            about: "fails",
            run: || bail!("broken"),
        },
        Step {
            name: "late",
            about: "comes after a failure",
            run: || bail!("reached"),
        },
    ];

    #[test]
    fn a_failed_step_fails_the_run_after_the_others_have_run() {
        assert_eq!(
            run(TABLE, &[]).unwrap_err().to_string(),
            "2 of 3 steps failed"
        );
    }

    #[test]
    fn only_the_named_steps_run() {
        assert!(run(TABLE, &["good".to_owned()]).is_ok());
        assert!(run(TABLE, &["good".to_owned(), "bad".to_owned()]).is_err());
    }
}
