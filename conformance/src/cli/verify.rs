//! `report verify`: what the library finds, in words and exit codes.

use super::{INCONCLUSIVE, USAGE};
use gosync_conformance::report::verify::{self, Unjudged};
use gosync_conformance::suite::{Declaration, RunResult};
use gosync_conformance::{client, report, server};
use std::path::PathBuf;
use std::process::ExitCode;

/// Judges each file; the worst counts.
pub fn reports(files: &[PathBuf]) -> ExitCode {
    let mut worst = 0;
    for file in files {
        let name = file.display();
        let code = match std::fs::read_to_string(file) {
            Err(e) => {
                eprintln!("{name}: cannot be read: {e}");
                USAGE
            }
            Ok(text) => match verify::read(&text) {
                Err(Unjudged::Unreadable(why)) => {
                    eprintln!("{name}: {why}");
                    USAGE
                }
                Err(Unjudged::Foreign(why)) => {
                    eprintln!("{name}: {why}");
                    INCONCLUSIVE
                }
                Ok(run) => verify_run(&name.to_string(), &run),
            },
        };
        worst = worst.max(code);
    }
    ExitCode::from(worst)
}

fn verify_run(name: &str, run: &RunResult) -> u8 {
    let declared: Vec<Declaration> = match run.mode.as_str() {
        "server" => server::cases::all()
            .iter()
            .map(|c| c.declaration())
            .collect(),
        "client" => client::cases::all()
            .iter()
            .map(|c| c.declaration())
            .collect(),
        other => {
            eprintln!("{name}: no report: there is no mode {other:?}");
            return USAGE;
        }
    };
    let found = verify::contradictions(run, &declared);
    for contradiction in &found {
        eprintln!("{name}: {contradiction}");
    }
    if !found.is_empty() {
        println!("{name}: NOT a report that this suite would have written");
        return 1;
    }
    print!("{name}: {}", report::summary(run));
    if report::earns_badge(run) {
        println!("{name}: whole, consistent, conformant");
        0
    } else {
        println!("{name}: consistent, but no whole run in which every case ran and none failed");
        1
    }
}
