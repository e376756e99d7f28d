//! Runs the deliberately broken variants that an adapter lists. Knows none of
//! their code: only names, and which requirements they break.

use crate::client::{self, Launch};
use crate::process::Format;
use crate::schema::driver::Mutant;
use crate::server::{self, Adapter};
use crate::suite::{RunResult, Verdict};

/// What an adapter wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A control adapter of a server.
    Server,
    /// A driver of a client.
    Client,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A check that cites a broken requirement failed: "case check".
    Caught(String),
    /// Only checks that cite others failed.
    CaughtElsewhere(String),
    /// Nothing failed.
    Survived,
    /// The run itself did not work.
    Inconclusive(String),
}

/// A mutant and its fate.
#[derive(Clone, Debug)]
pub struct Row {
    /// From the adapter's list.
    pub mutant: Mutant,
    /// What became of it.
    pub fate: Fate,
}

impl Row {
    /// Whether it is as it must be: caught by a check that names the broken
    /// requirement, or, where nothing is broken, survived.
    pub fn good(&self) -> bool {
        if self.mutant.breaks.is_empty() {
            self.fate == Fate::Survived
        } else {
            matches!(self.fate, Fate::Caught(_))
        }
    }
}

/// Asks the adapter for its mutants.
///
/// # Errors
/// A sentence when the adapter does not start.
pub async fn list(side: Side, command: &str, format: Format) -> Result<Vec<Mutant>, String> {
    match side {
        Side::Server => Ok(Adapter::start(command, format)
            .await?
            .info()
            .mutants
            .clone()),
        Side::Client => {
            let driver = client::Driver::start(&driver(command, format), "").await?;
            let mutants = driver.info().mutants.clone();
            driver.kill().await;
            Ok(mutants)
        }
    }
}

fn driver(command: &str, format: Format) -> Launch {
    Launch::Exec {
        command: command.to_owned(),
        format,
    }
}

/// Runs one mutant: the cases that guard what it breaks, or, where it breaks
/// nothing, all.
pub async fn run(side: Side, command: &str, format: Format, seed: u64, mutant: Mutant) -> Row {
    let result = match side {
        Side::Server => {
            let mut plan = server::Plan::new("");
            plan.url = None;
            plan.exec = Some(command.to_owned());
            plan.format = format;
            plan.seed = seed;
            plan.mutant.clone_from(&mutant.name);
            plan.requirements.clone_from(&mutant.breaks);
            plan.wires.truncate(1);
            server::run(&plan, |_| {}).await
        }
        Side::Client => {
            let mut plan = client::Plan::new(driver(command, format));
            plan.seed = seed;
            plan.mutant.clone_from(&mutant.name);
            plan.requirements.clone_from(&mutant.breaks);
            plan.wires.truncate(1);
            client::run(&plan, |_| {}).await
        }
    };
    let fate = match result {
        Err(problem) => Fate::Inconclusive(problem),
        Ok(run) => fate(&run, &mutant.breaks),
    };
    Row { mutant, fate }
}

fn fate(run: &RunResult, breaks: &[String]) -> Fate {
    let mut elsewhere = None;
    for case in &run.cases {
        for check in case.checks.iter().filter(|c| c.verdict == Verdict::Failed) {
            let name = format!("{} {}", case.name, check.name);
            if check.cites.iter().any(|id| breaks.contains(id)) {
                return Fate::Caught(name);
            }
            elsewhere.get_or_insert(name);
        }
        if let Some(violation) = case.violations.first() {
            let name = format!("{} monitor: {violation}", case.name);
            if breaks.iter().any(|id| violation.contains(id.as_str())) {
                return Fate::Caught(name);
            }
            elsewhere.get_or_insert(name);
        }
    }
    match elsewhere {
        Some(name) => Fate::CaughtElsewhere(name),
        None if run.count(Verdict::Inconclusive) > 0 => {
            Fate::Inconclusive("cases were inconclusive".into())
        }
        None if run.count(Verdict::Passed) == 0 => Fate::Inconclusive("no case ran".into()),
        None => Fate::Survived,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(breaks: &[&str], fate: Fate) -> Row {
        Row {
            mutant: Mutant {
                name: "m".into(),
                about: String::new(),
                breaks: breaks.iter().map(|b| (*b).to_owned()).collect(),
            },
            fate,
        }
    }

    #[test]
    fn a_mutant_must_be_caught_by_a_check_that_names_what_it_breaks() {
        assert!(row(&["A-001"], Fate::Caught("x".into())).good());
        assert!(!row(&["A-001"], Fate::CaughtElsewhere("x".into())).good());
        assert!(!row(&["A-001"], Fate::Survived).good());
    }

    #[test]
    fn a_mutant_that_breaks_nothing_must_survive() {
        assert!(row(&[], Fate::Survived).good());
        assert!(!row(&[], Fate::CaughtElsewhere("x".into())).good());
    }
}
