//! `mutants`: what the library finds, in words and exit codes.

use super::output::say;
use super::{MutantsOptions, NOT_CONFORMANT, Outcome, Problem, SideName, seed};
use futures::StreamExt;
use gosync_conformance::mutants::{self, Side, Table};
use gosync_conformance::suite::glob;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

/// Runs them, or says what none guards.
pub async fn run(options: MutantsOptions) -> Outcome {
    let side = match options.side {
        SideName::Server => Side::Server,
        SideName::Client => Side::Client,
    };
    let file = options.table.as_deref();
    let old = match file {
        Some(file) => read_table(side, file)?,
        None => None,
    };
    let Some(exec) = options.exec.filter(|_| !options.missing) else {
        return match old {
            Some(text) => missing(&Table::read(side, &text).missing(side)),
            None => Err(Problem::Usage("--missing: there is no --table FILE".into())),
        };
    };
    if let Some(file) = file {
        see_that_it_is_writable(file)?;
    }
    let old = old.unwrap_or_default();
    let format = options.format.into();
    let listed = mutants::list(side, &exec, format)
        .await
        .map_err(Problem::Fault)?;
    let strange = |p: &&String| !listed.iter().any(|m| glob(p, &m.name));
    if let Some(pattern) = options.only.iter().find(strange) {
        return Err(Problem::Usage(format!(
            "--only {pattern:?}: the adapter lists no such mutant; mutants are in test builds only"
        )));
    }
    let named: Vec<_> = listed
        .iter()
        .filter(|m| options.only.is_empty() || options.only.iter().any(|p| glob(p, &m.name)))
        .cloned()
        .collect();
    let among = named.len();
    let chosen = options.share.take(named);
    if chosen.is_empty() {
        return Err(Problem::Usage(match among {
            0 => "the adapter lists no mutants; they are in test builds only".into(),
            n => format!("no mutant is in this --share of {n}"),
        }));
    }
    let seed = seed(options.seed);
    let (mut bad, total) = (0, chosen.len());
    let mut over = Vec::new();
    let mut rows = futures::stream::iter(chosen)
        .map(|mutant| mutants::run(side, &exec, format, seed, mutant))
        .buffered(options.jobs);
    while let Some(row) = rows.next().await {
        let mark = if row.good() { "ok  " } else { "BAD " };
        bad += usize::from(!row.good());
        say!(
            "{mark} {:<34} {:<20} {}",
            row.mutant.name,
            row.mutant.breaks.join(","),
            row.fate
        )?;
        over.push(row);
    }
    let table = Table::read(side, &old).with(&listed, &over);
    // a part of them leaves most without one
    let mut code = ExitCode::SUCCESS;
    if over.len() == listed.len() {
        code = missing(&table.missing(side))?;
    }
    if let Some(file) = file {
        fs::write(file, table.write_into(side, &old))
            .map_err(|e| Problem::Fault(format!("{} cannot be written: {e}", file.display())))?;
    }
    say!(
        "{} of {total} mutants are as they must be   (seed {seed})",
        total - bad
    )?;
    match bad {
        0 => Ok(code),
        _ => Ok(ExitCode::from(NOT_CONFORMANT)),
    }
}

/// The file with the table, if there is one. What holds something else is
/// neither judged nor overwritten.
fn read_table(side: Side, file: &Path) -> Result<Option<String>, Problem> {
    match fs::read_to_string(file) {
        Ok(text) if Table::has_place(side, &text) => Ok(Some(text)),
        Ok(_) => Err(wrong(file, "it holds no table of this side's mutants")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(wrong(file, &format!("it cannot be read: {e}"))),
    }
}

/// Before the mutants run, which takes long.
fn see_that_it_is_writable(file: &Path) -> Result<(), Problem> {
    match OpenOptions::new().append(true).open(file) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let folder = file.parent().filter(|p| !p.as_os_str().is_empty());
            match folder.is_none_or(Path::is_dir) {
                true => Ok(()),
                false => Err(wrong(file, "its folder is not there")),
            }
        }
        Err(e) => Err(wrong(file, &format!("it cannot be written: {e}"))),
    }
}

fn wrong(file: &Path, why: &str) -> Problem {
    Problem::Usage(format!("--table {}: {why}", file.display()))
}

/// Says what no mutant guards.
fn missing(missing: &mutants::Missing) -> Outcome {
    for id in &missing.requirements {
        say!("no mutant fails a check for {id}")?;
    }
    for name in &missing.checks {
        say!("no mutant fails {name}")?;
    }
    say!(
        "{} requirements and {} checks without a mutant",
        missing.requirements.len(),
        missing.checks.len()
    )?;
    match missing.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(NOT_CONFORMANT)),
    }
}
