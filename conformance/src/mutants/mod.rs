//! Runs the deliberately broken variants that an adapter lists. Knows none of
//! their code: only names, and which requirements they break.

mod table;

pub use table::{Missing, Table};

use crate::client::{self, Launch};
use crate::net::Wire;
use crate::process::Format;
use crate::schema::driver::Mutant;
use crate::server::{self, Adapter};
use crate::suite::{RunResult, Verdict, requirement};
use std::collections::BTreeSet;
use std::time::Duration;

/// Patience with one command of a client that is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an adapter wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A control adapter of a server.
    Server,
    /// A driver of a client.
    Client,
}

impl Side {
    /// Whether a requirement obliges this side: a server, a replica, or a
    /// peer, which is either; others say what they bind by the cases that cite
    /// them.
    pub fn is_bound_by(self, id: &str) -> bool {
        let other = match self {
            Side::Server => "A replica",
            Side::Client => "A server",
        };
        requirement(id).is_some_and(|r| !r.text.starts_with(other))
    }

    /// Of what a mutant breaks, the rules by whose checks it is to be caught on
    /// this side. What both sides compute breaks rules of either; where it
    /// breaks only such as bind the other side, a check that cites them will do.
    fn rules(self, breaks: &[String]) -> Vec<&str> {
        let all = breaks.iter().map(String::as_str);
        let bound: Vec<&str> = all.clone().filter(|id| self.is_bound_by(id)).collect();
        match bound.is_empty() {
            true => all.collect(),
            false => bound,
        }
    }
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Checks that cite what it breaks failed, or were non-strict where it is
    /// a recommendation; the first of them: "case check".
    Caught(String),
    /// Likewise, but no check that failed cites the named ones.
    CaughtInPart(String, Vec<String>),
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
    /// The checks that failed: "case check"; of a monitor "case monitor ID".
    pub failed: BTreeSet<String>,
}

impl Row {
    /// Whether it is as it must be: each requirement that it breaks cited by a
    /// check that failed, or, where nothing is broken, survived.
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
            plan.choice.seed = seed;
            plan.mutant.clone_from(&mutant.name);
            plan.choice.requirements.clone_from(&mutant.breaks);
            plan.choice.wires = vec![Wire::Grpc];
            match server::run(&plan, |_| {}).await {
                // a rule of gRPC-web
                Ok(run) if run.cases.iter().all(|c| c.verdict == Verdict::NotRun) => {
                    plan.choice.wires = vec![Wire::GrpcWeb];
                    server::run(&plan, |_| {}).await
                }
                result => result,
            }
        }
        Side::Client => {
            let mut plan = client::Plan::new(driver(command, format));
            plan.choice.seed = seed;
            plan.mutant.clone_from(&mutant.name);
            plan.choice.requirements.clone_from(&mutant.breaks);
            plan.choice.wires.truncate(1);
            // most of them fail by waiting for what does not come
            plan.choice.patience = PATIENCE;
            plan.choice.jobs *= 2;
            client::run(&plan, |_| {}).await
        }
    };
    let breaks = side.rules(&mutant.breaks);
    let (fate, failed) = match result {
        Err(problem) => (Fate::Inconclusive(problem), BTreeSet::new()),
        Ok(run) => {
            let failures = failures(&run);
            let names = failures.iter().map(|f| f.name.clone()).collect();
            (fate(&run, &failures, &breaks), names)
        }
    };
    Row {
        mutant,
        fate,
        failed,
    }
}

/// Each Nth mutant of a list, from the Kth on: the list in N shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which one, from 0 on.
    pub of: usize,
    /// How many there are.
    pub all: usize,
}

impl Share {
    /// Everything.
    pub const WHOLE: Share = Share { of: 0, all: 1 };

    /// What of a list belongs to it.
    pub fn take<T>(self, list: Vec<T>) -> Vec<T> {
        list.into_iter().skip(self.of).step_by(self.all).collect()
    }
}

impl std::str::FromStr for Share {
    type Err = String;

    /// "K/N", K from 0 on.
    fn from_str(text: &str) -> Result<Share, String> {
        let (of, all) = text.split_once('/').unwrap_or_default();
        match (of.parse(), all.parse()) {
            (Ok(of), Ok(all)) if of < all => Ok(Share { of, all }),
            _ => Err(format!(
                "{text:?} is no share; write K/N, K from 0 to N - 1"
            )),
        }
    }
}

/// A check that failed, or a monitor.
struct Failure {
    name: String,
    cites: Vec<String>,
}

fn failures(run: &RunResult) -> Vec<Failure> {
    let mut failures = Vec::new();
    for case in &run.cases {
        let missed = case.checks.iter().filter(|check| check.missed());
        failures.extend(missed.map(|check| Failure {
            name: format!("{} {}", case.name, check.name),
            cites: check.cites.clone(),
        }));
        let violations = case.violations.iter();
        failures.extend(violations.map(|text| {
            let id = text.strip_prefix('[').and_then(|t| t.split_once(']'));
            Failure {
                name: match id {
                    Some((id, _)) => format!("{} monitor {id}", case.name),
                    None => format!("{} monitor", case.name),
                },
                cites: id.into_iter().map(|i| i.0.to_owned()).collect(),
            }
        }));
    }
    failures
}

fn fate(run: &RunResult, failures: &[Failure], breaks: &[&str]) -> Fate {
    let cites = |f: &Failure, id: &str| f.cites.iter().any(|cited| cited == id);
    let own = |f: &&Failure| breaks.iter().any(|id| cites(f, id));
    if let Some(first) = failures.iter().find(own) {
        let uncited = breaks
            .iter()
            .filter(|id| !failures.iter().any(|f| cites(f, id)));
        let uncited: Vec<String> = uncited.map(|id| (*id).to_owned()).collect();
        return match uncited.is_empty() {
            true => Fate::Caught(first.name.clone()),
            false => Fate::CaughtInPart(first.name.clone(), uncited),
        };
    }
    match failures.first() {
        Some(other) => Fate::CaughtElsewhere(other.name.clone()),
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
            failed: BTreeSet::new(),
        }
    }

    /// Regression: `largest-value-refused` and `unwritten-space-stops` break what
    /// binds servers only, and could not be caught on the client's side.
    #[test]
    fn a_mutant_that_breaks_only_the_other_sides_rules_is_caught_by_the_checks_that_cite_them() {
        let broken = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let foreign = broken(&["LIMIT-002"]);
        assert_eq!(Side::Client.rules(&foreign), ["LIMIT-002"]);
        let mixed = broken(&["LIMIT-002", "LIMIT-008"]);
        assert_eq!(Side::Client.rules(&mixed), ["LIMIT-008"]);
        assert_eq!(Side::Server.rules(&mixed), ["LIMIT-002"]);
        assert_eq!(Side::Client.rules(&[]), [""; 0]);
    }

    #[test]
    fn the_shares_of_a_list_are_the_list() {
        let list: Vec<u32> = (0..10).collect();
        let mut all: Vec<u32> = (0..3)
            .flat_map(|of| Share { of, all: 3 }.take(list.clone()))
            .collect();
        assert_eq!(Share { of: 1, all: 3 }.take(list.clone()), [1, 4, 7]);
        all.sort_unstable();
        assert_eq!(all, list);
        assert_eq!("2/3".parse(), Ok(Share { of: 2, all: 3 }));
        for bad in ["3/3", "1", "/", "0/0", "-1/2", "a/b"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mutant_must_be_caught_by_a_check_that_names_what_it_breaks() {
        assert!(row(&["A-001"], Fate::Caught("x".into())).good());
        let part = Fate::CaughtInPart("x".into(), vec!["A-001".into()]);
        assert!(!row(&["A-001"], part).good());
        assert!(!row(&["A-001"], Fate::CaughtElsewhere("x".into())).good());
        assert!(!row(&["A-001"], Fate::Survived).good());
    }

    #[test]
    fn a_mutant_that_breaks_nothing_must_survive() {
        assert!(row(&[], Fate::Survived).good());
        assert!(!row(&[], Fate::CaughtElsewhere("x".into())).good());
    }
}
