//! Results as reports show them.

use super::case::{Check, Kind};
use super::exchange::Exchange;
use super::requirements::{fingerprint, only_advice};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a check or a case came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As the specification says.
    Passed,
    /// Could not run here: something that it needs is missing.
    NotRun,
    /// As every `MUST` says, and not as a `SHOULD` does. A check is so when it
    /// cites nothing stronger; it stands in the way of no claim.
    NonStrict,
    /// Nothing can be said; no pass.
    #[default]
    Inconclusive,
    /// The specification is broken.
    Failed,
}

impl Verdict {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::NotRun => "not run",
            Verdict::NonStrict => "non-strict",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Failed => "failed",
        }
    }
}

/// A check.
#[derive(Clone, Debug, Serialize, Deserialize, Default)]
pub struct CheckResult {
    /// Within the case.
    pub name: String,
    /// Whether it is a negative check.
    pub negative: bool,
    /// Requirement ids.
    pub cites: Vec<String>,
    /// In one sentence.
    pub expects: String,
    /// How it came out.
    pub verdict: Verdict,
    /// The value or event expected.
    pub expected: String,
    /// What came instead, or also.
    pub got: String,
}

impl CheckResult {
    /// Of which nothing is known but the declaration.
    pub fn declared(check: &Check) -> CheckResult {
        CheckResult {
            name: check.name.to_owned(),
            negative: matches!(check.kind, Kind::Negative { .. }),
            cites: check.cites.iter().map(|c| (*c).to_owned()).collect(),
            expects: check.expects.to_owned(),
            ..CheckResult::default()
        }
    }

    /// What it is called when what it expects does not come.
    pub fn failure(&self) -> Verdict {
        if only_advice(self.cites.iter().map(String::as_str)) {
            Verdict::NonStrict
        } else {
            Verdict::Failed
        }
    }

    /// Whether what it expects did not come, binding or not.
    pub fn missed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed | Verdict::NonStrict)
    }
}

/// A case over one transport.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaseResult {
    /// "push/repeated".
    pub name: String,
    /// "grpc".
    pub wire: String,
    /// "core".
    pub profile: String,
    /// The scenario.
    pub about: String,
    /// The worst of the checks and monitors.
    pub verdict: Verdict,
    /// Why it did not run, or ended early.
    pub reason: String,
    /// It failed, as a baseline says: it counts as not run.
    #[serde(default)]
    pub known: bool,
    /// In the order of declaration.
    pub checks: Vec<CheckResult>,
    /// What monitors saw.
    pub violations: Vec<String>,
    /// Remarks.
    pub notes: Vec<String>,
    /// What went over the wire, and what a driver was told. Where all was well,
    /// the beginning of it.
    pub exchanges: Vec<Exchange>,
    /// How long it took.
    pub took: Duration,
}

impl CaseResult {
    /// What seemed to pass shows nothing: the client did nothing, or nothing was
    /// tried on it.
    pub fn worth_nothing(&mut self, why: &str) {
        for check in &mut self.checks {
            if check.verdict == Verdict::Passed {
                check.verdict = Verdict::Inconclusive;
                check.got = format!("{} (worth nothing: {why})", check.got);
            }
        }
    }

    /// What checks and monitors come to. Without a check nothing can be said.
    pub fn conclusion(&self) -> Verdict {
        if !self.violations.is_empty() {
            return Verdict::Failed;
        }
        let worst = self.checks.iter().map(|c| c.verdict).max();
        worst.unwrap_or(Verdict::Inconclusive)
    }
}

/// Which suite made a result, so that another one knows whether it can read
/// and judge it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Of this notation: [`Provenance::FORMAT`].
    pub format: u32,
    /// The suite's version.
    pub suite: String,
    /// Of the text of every requirement that the suite embeds.
    pub requirements: String,
}

impl Provenance {
    /// Rises when a report changes so that an older suite would misread it.
    pub const FORMAT: u32 = 2;

    /// This suite's.
    pub fn own() -> Provenance {
        Provenance {
            format: Provenance::FORMAT,
            suite: env!("CARGO_PKG_VERSION").to_owned(),
            requirements: fingerprint(),
        }
    }
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// By which suite.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// "server" or "client".
    pub mode: String,
    /// Who was judged.
    pub subject: String,
    /// The options that name it on the command line.
    pub target: String,
    /// Replays the randomness.
    pub seed: u64,
    /// Whether filters or a baseline took part: no badge then.
    pub filtered: bool,
    /// All cases.
    pub cases: Vec<CaseResult>,
    /// Of the whole run.
    pub took: Duration,
}

impl RunResult {
    /// How many cases came out so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|c| c.verdict == verdict).count()
    }

    /// Whether a baseline excused a failure.
    pub fn excuses(&self) -> bool {
        self.cases.iter().any(|c| c.known)
    }

    /// The exit code: 0 conformant, 1 not, 2 nothing selected, 3
    /// inconclusive.
    pub fn exit_code(&self) -> u8 {
        if (self.cases.iter()).all(|c| c.verdict == Verdict::NotRun && !c.known) {
            2
        } else if self.count(Verdict::Failed) > 0 {
            1
        } else if self.count(Verdict::Inconclusive) > 0 {
            3
        } else {
            0
        }
    }
}

/// An option and its value, so that a shell takes it for one word.
pub fn option(name: &str, value: &str) -> String {
    format!("{name} '{}'", value.replace('\'', r"'\''"))
}

/// The option that chooses a mutant; nothing for the implementation as it is.
pub fn mutant_option(mutant: &str) -> String {
    if mutant.is_empty() {
        String::new()
    } else {
        option(" --mutant", mutant)
    }
}

/// The option that chooses the patience; nothing for the usual one.
pub fn patience_option(patience: Duration, usual: Duration) -> String {
    match patience == usual {
        true => String::new(),
        false => format!(" --timeout {}", patience.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::{option, patience_option};
    use std::time::Duration;

    #[test]
    fn patience_is_told_where_it_is_not_the_usual_one() {
        let usual = Duration::from_secs(10);
        assert_eq!(patience_option(usual, usual), "");
        let more = Duration::from_millis(2_500);
        assert_eq!(patience_option(more, usual), " --timeout 2500");
    }

    #[test]
    fn an_option_is_one_word_for_a_shell() {
        let quoted = option("--exec", "node 'a b'");
        assert_eq!(quoted, r"--exec 'node '\''a b'\'''");
    }
}
