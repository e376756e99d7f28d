//! `report verify`: what the library finds, in words and exit codes.

use super::output::{note, say, tell};
use super::{INCONCLUSIVE, NOT_CONFORMANT, Outcome, Problem, USAGE, declarations};
use gosync_conformance::report::verify::{self, Unjudged};
use gosync_conformance::suite::{Declaration, RunResult};
use gosync_conformance::{client, report, server};
use std::path::PathBuf;
use std::process::ExitCode;

/// Judges each file; the worst counts.
pub fn reports(files: &[PathBuf]) -> Outcome {
    let mut worst = 0;
    for file in files {
        let name = file.display();
        let code = match std::fs::read_to_string(file) {
            Err(e) => {
                note!("{name}: cannot be read: {e}");
                USAGE
            }
            Ok(text) => match verify::read(&text) {
                Err(Unjudged::Unreadable(why)) => {
                    note!("{name}: {why}");
                    USAGE
                }
                Err(Unjudged::Foreign(why)) => {
                    note!("{name}: {why}");
                    INCONCLUSIVE
                }
                Ok(run) => verify_run(&name.to_string(), &run)?,
            },
        };
        worst = worst.max(code);
    }
    Ok(ExitCode::from(worst))
}

fn verify_run(name: &str, run: &RunResult) -> Result<u8, Problem> {
    let declared: Vec<Declaration> = match run.mode.as_str() {
        "server" => declarations(&server::cases::all()),
        "client" => declarations(&client::cases::all()),
        other => {
            note!("{name}: no report: there is no mode {other:?}");
            return Ok(USAGE);
        }
    };
    let found = verify::contradictions(run, &declared);
    for contradiction in &found {
        note!("{name}: {contradiction}");
    }
    if !found.is_empty() {
        say!("{name}: NOT a report that this suite would have written")?;
        return Ok(NOT_CONFORMANT);
    }
    tell(format_args!("{name}: {}", report::summary(run)))?;
    if report::earns_badge(run) {
        say!("{name}: whole, consistent, conformant")?;
        Ok(0)
    } else {
        say!("{name}: consistent, but no whole run in which every case ran and none failed")?;
        Ok(NOT_CONFORMANT)
    }
}
