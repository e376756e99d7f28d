//! Every requirement is guarded by a check of the suite, or it is said why not; and whoever rewords one sees the
//! checks that rest on it. Knows what the suite's cases cite, and nothing of how they run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use gosync_conformance::suite::{Check, requirements};
use gosync_conformance::{client, server};
use serde::Deserialize;

use crate::book::{Book, Rule};

const COVERAGE: &str = "conformance/coverage.toml";
const LOCK: &str = "conformance/requirements.lock";
const LOCK_HEAD: &str = "# The text of each requirement, and of what it points at, as the checks that cite it were written or looked at\n\
                         # again: its hash; below it, these checks. A number that was withdrawn is never given again.\n\
                         # `cargo xtask generate spec` renews this file, and names the checks to look at.\n";
/// In the place of the hash, once the requirement is gone.
const WITHDRAWN: &str = "withdrawn";

/// Who is bound by a requirement, and whose cases guard it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Server,
    Client,
}

const SIDES: [Side; 2] = [Side::Server, Side::Client];

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Server => "server",
            Side::Client => "client",
        }
    }
}

/// `coverage.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Coverage {
    vectors: BTreeMap<String, String>,
    untestable: BySide<BTreeMap<String, String>>,
    gaps: BySide<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct BySide<T> {
    server: T,
    client: T,
}

impl<T> BySide<T> {
    fn of(&self, side: Side) -> &T {
        match side {
            Side::Server => &self.server,
            Side::Client => &self.client,
        }
    }
}

/// The specification's rules, and for each id and side the checks that cite it.
struct Facts {
    rules: Vec<Rule>,
    checks: BTreeMap<(String, Side), Vec<String>>,
}

impl Facts {
    /// What the specification and the suite say now.
    fn read(root: &Path) -> Result<Facts> {
        let mut facts = Facts {
            rules: Vec::new(),
            checks: BTreeMap::new(),
        };
        let mut pages: BTreeMap<&str, String> = BTreeMap::new();
        for r in requirements() {
            if !pages.contains_key(r.chapter) {
                let page = read(root, &format!("spec/{}", r.chapter))?;
                pages.insert(r.chapter, page);
            }
        }
        let book = Book::new(pages.values().map(String::as_str));
        facts
            .rules
            .extend(requirements().map(|r| Rule::new(r.id, r.text, &book)));
        for case in server::cases::all() {
            facts.cite(Side::Server, case.name, case.checks);
        }
        for case in client::cases::all() {
            facts.cite(Side::Client, case.name, case.checks);
        }
        Ok(facts)
    }

    fn cite(&mut self, side: Side, case: &str, checks: &[Check]) {
        for check in checks {
            for id in check.cites {
                let of = self.checks.entry(((*id).to_owned(), side)).or_default();
                of.push(format!("{case} ({})", check.name));
            }
        }
    }

    fn checks(&self, id: &str, side: Side) -> &[String] {
        self.checks
            .get(&(id.to_owned(), side))
            .map_or(&[], Vec::as_slice)
    }

    /// The sides that a requirement binds.
    fn sides(text: &str) -> &'static [Side] {
        if text.starts_with("A server ") {
            &SIDES[..1]
        } else if text.starts_with("A replica ") {
            &SIDES[1..]
        } else {
            &SIDES
        }
    }

    /// The lock file that follows `old`.
    fn lock(&self, old: &str) -> String {
        let mut text = LOCK_HEAD.to_owned();
        for rule in &self.rules {
            text += &format!("{} {}\n", rule.id, rule.hash);
            for check in self.citing(&rule.id) {
                text += &format!("  {check}\n");
            }
        }
        let gone = locked(old).into_keys().filter(|id| !self.has(id));
        text + &gone
            .map(|id| format!("{id} {WITHDRAWN}\n"))
            .collect::<String>()
    }

    fn has(&self, id: &str) -> bool {
        self.rules.iter().any(|rule| rule.id == id)
    }

    /// One sentence for each requirement that is not what the lock file holds, or is not guarded as it says, with the
    /// checks to look at.
    fn moved(&self, lock: &str) -> Vec<String> {
        let kept = locked(lock);
        let mut found = Vec::new();
        for Rule { id, hash, .. } in &self.rules {
            let Some((was, checks)) = kept.get(id.as_str()) else {
                found.push(format!("{id} is new"));
                continue;
            };
            if *was == WITHDRAWN {
                found.push(format!(
                    "{id} was withdrawn: give the requirement a number that none has had"
                ));
            } else if was != hash {
                let these = self.named(id);
                found.push(format!(
                    "{id}, or what it points at, was reworded: look at {these}"
                ));
            }
            let now = self.citing(id);
            let now: BTreeSet<&str> = now.iter().map(String::as_str).collect();
            found.extend(
                checks
                    .difference(&now)
                    .map(|check| format!("{id} lost the check {check}")),
            );
            found.extend(
                now.difference(checks)
                    .map(|check| format!("{id} is cited by {check} now")),
            );
        }
        let gone = kept
            .iter()
            .filter(|(id, (was, _))| *was != WITHDRAWN && !self.has(id));
        found.extend(gone.map(|(id, _)| format!("{id} is gone: look at {}", self.named(id))));
        found
    }

    /// The checks that cite it, of both sides.
    fn citing(&self, id: &str) -> Vec<String> {
        let of = |side: &Side| {
            let checks = self.checks(id, *side).iter();
            let name = side.name();
            checks.map(move |check| format!("{name} {check}"))
        };
        SIDES.iter().flat_map(of).collect()
    }

    fn named(&self, id: &str) -> String {
        let checks = self.citing(id);
        if checks.is_empty() {
            "nothing, no check cites it".to_owned()
        } else {
            checks.join(", ")
        }
    }

    /// What is wrong with the list of exceptions.
    fn uncovered(&self, coverage: &Coverage, vector_exists: impl Fn(&str) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        let mut bound: BTreeSet<(&str, Side)> = BTreeSet::new();
        for Rule { id, text, .. } in &self.rules {
            for side in Facts::sides(text) {
                bound.insert((id, *side));
                let excused = coverage.vectors.contains_key(id)
                    || coverage.untestable.of(*side).contains_key(id)
                    || coverage.gaps.of(*side).contains(id);
                let permits = text.split_whitespace().any(|word| word == "MAY");
                if self.checks(id, *side).is_empty() && !excused && !permits {
                    let side = side.name();
                    found.push(format!(
                        "{id} has no {side} check, and {COVERAGE} does not say why"
                    ));
                }
            }
        }
        for side in SIDES {
            let excused = coverage.untestable.of(side).keys();
            for id in excused.chain(coverage.gaps.of(side)) {
                let name = side.name();
                if !bound.contains(&(id.as_str(), side)) {
                    found.push(format!("{COVERAGE}: {id} does not bind a {name}"));
                } else if !self.checks(id, side).is_empty() {
                    found.push(format!(
                        "{COVERAGE}: {id} has a {name} check now; run `cargo xtask generate spec`"
                    ));
                }
            }
        }
        for (id, files) in &coverage.vectors {
            let known = SIDES.iter().any(|side| bound.contains(&(id, *side)));
            if !known {
                found.push(format!("{COVERAGE}: {id} is no requirement"));
            }
            for file in files.split_whitespace().filter(|file| !vector_exists(file)) {
                found.push(format!("{COVERAGE}: {id} names {file}, which is no vector"));
            }
        }
        found
    }

    /// `coverage.toml` without the lines of requirements that have a check meanwhile.
    fn pruned(&self, coverage: &str) -> String {
        let mut side = None;
        let mut out = String::new();
        for line in coverage.lines() {
            let word = line.trim();
            match word {
                "[untestable.server]" | "server = [" => side = Some(Side::Server),
                "[untestable.client]" | "client = [" => side = Some(Side::Client),
                _ if word.starts_with('[') || word == "]" => side = None,
                _ => {}
            }
            let id = word.trim_matches(['"', ',']);
            let id = id.split_once(' ').map_or(id, |(id, _)| id);
            if side.is_none_or(|side| self.checks(id, side).is_empty()) {
                out += line;
                out.push('\n');
            }
        }
        out
    }
}

/// Of each requirement of a lock file: its hash, and the checks that cite it.
fn locked(lock: &str) -> BTreeMap<&str, (&str, BTreeSet<&str>)> {
    let mut all: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    let mut last = "";
    for line in lock.lines().filter(|line| !line.starts_with('#')) {
        if let Some(check) = line.strip_prefix("  ") {
            all.entry(last).or_default().1.insert(check);
        } else if let Some((id, hash)) = line.split_once(' ') {
            last = id;
            all.entry(id).or_default().0 = hash;
        }
    }
    all
}

/// What does not hold, one sentence each.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let facts = Facts::read(root)?;
    let coverage = toml::from_str(&read(root, COVERAGE)?)
        .with_context(|| format!("{COVERAGE} is not understood"))?;
    let vector_exists = |file: &str| root.join("spec/vectors").join(file).is_file();
    let mut found = facts.uncovered(&coverage, vector_exists);
    let moved = facts.moved(&read(root, LOCK).unwrap_or_default());
    if !moved.is_empty() {
        found.extend(moved);
        found.push("look at these, then run `cargo xtask generate spec`".to_owned());
    }
    Ok(found)
}

/// Renews the lock file, takes what is guarded out of the exceptions, and says which checks to look at.
pub fn renew(root: &Path) -> Result<()> {
    let facts = Facts::read(root)?;
    let lock = read(root, LOCK).unwrap_or_default();
    let moved = facts.moved(&lock);
    for change in &moved {
        println!("{change}");
    }
    if !moved.is_empty() {
        println!(
            "changes in {LOCK}: {}; look at the checks above before you commit it",
            moved.len()
        );
    }
    let given_again = |rule: &&Rule| {
        locked(&lock)
            .get(rule.id.as_str())
            .is_some_and(|l| l.0 == WITHDRAWN)
    };
    if let Some(rule) = facts.rules.iter().find(given_again) {
        bail!(
            "{} was withdrawn once, and {LOCK} keeps its number",
            rule.id
        );
    }
    write(root, LOCK, &facts.lock(&lock))?;
    let coverage = read(root, COVERAGE)?;
    write(root, COVERAGE, &facts.pruned(&coverage))
}

/// A page that says of each requirement what guards it.
pub fn page(root: &Path) -> Result<String> {
    let facts = Facts::read(root)?;
    let coverage: Coverage = toml::from_str(&read(root, COVERAGE)?)?;
    let mut out = String::from(
        "# Requirements and checks\n\n\
         What guards each requirement, on the side that it binds: checks of the conformance suite as *case (check)*, \
         vectors, or the reason why nothing outside can tell. A *gap* still waits for its check.\n\n\
         | Requirement | Server | Client |\n|---|---|---|\n",
    );
    for rule in &facts.rules {
        let guard = |side: Side| {
            if !Facts::sides(&rule.text).contains(&side) {
                return String::new();
            }
            let mut by = facts.checks(&rule.id, side).to_vec();
            by.extend(coverage.vectors.get(&rule.id).cloned());
            if !by.is_empty() {
                return by.join(", ");
            }
            match coverage.untestable.of(side).get(&rule.id) {
                Some(reason) => format!("not testable: {reason}"),
                None if coverage.gaps.of(side).contains(&rule.id) => "*gap*".to_owned(),
                None => "permission: nothing to check".to_owned(),
            }
        };
        let (server, client) = (guard(Side::Server), guard(Side::Client));
        out += &format!("| {} | {server} | {client} |\n", rule.id);
    }
    Ok(out)
}

fn read(root: &Path, file: &str) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
}

fn write(root: &Path, file: &str, text: &str) -> Result<()> {
    fs::write(root.join(file), text).with_context(|| format!("cannot write {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter;

    const TOML: &str = "[vectors]\nC-003 = \"c.json\"\n[untestable.server]\n[untestable.client]\n\
                        B-002 = \"why\"\n[gaps]\nserver = [\n  \"A-001\",\n]\nclient = [\n]\n";

    fn facts(cited: &[(&str, Side)]) -> Facts {
        let texts = [
            ("A-001", "A server MUST a."),
            ("B-002", "A replica MUST b."),
            ("C-003", "A peer MUST c."),
            ("D-004", "A replica MAY d."),
        ];
        Facts {
            rules: texts
                .into_iter()
                .map(|(id, text)| Rule::new(id, text, &Book::new(iter::empty())))
                .collect(),
            checks: cited
                .iter()
                .map(|(id, side)| (((*id).to_owned(), *side), vec!["x/y (z)".to_owned()]))
                .collect(),
        }
    }

    fn uncovered(facts: &Facts, toml: &str) -> Vec<String> {
        facts.uncovered(&toml::from_str(toml).unwrap(), |file| file == "c.json")
    }

    #[test]
    fn each_requirement_is_guarded_on_each_side_or_excused() {
        assert_eq!(uncovered(&facts(&[]), TOML), [""; 0]);
        let none = TOML.replace("C-003 = \"c.json\"\n", "");
        assert_eq!(
            uncovered(&facts(&[("C-003", Side::Server)]), &none).len(),
            1
        );
    }

    #[test]
    fn an_exception_that_is_not_needed_or_not_known_is_named_and_pruned() {
        let guarded = facts(&[("A-001", Side::Server), ("B-002", Side::Client)]);
        assert_eq!(uncovered(&guarded, TOML).len(), 2);
        let pruned = guarded.pruned(TOML);
        assert_eq!(uncovered(&guarded, &pruned), [""; 0]);
        assert!(pruned.contains("C-003"));
        let wrong_side = TOML.replace("client = [\n", "client = [\n  \"A-001\",\n");
        assert!(uncovered(&facts(&[]), &wrong_side)[0].contains("does not bind a client"));
        let no_file = TOML.replace("c.json", "d.json");
        assert!(uncovered(&facts(&[]), &no_file)[0].contains("no vector"));
    }

    #[test]
    fn whoever_rewords_a_requirement_sees_the_checks() {
        let before = facts(&[("A-001", Side::Server)]);
        let mut after = facts(&[("A-001", Side::Server)]);
        after.rules[0] = Rule::new("A-001", "A server MUST not a.", &Book::new(iter::empty()));
        after.rules.remove(1);
        assert_eq!(before.moved(&before.lock("")), [""; 0]);
        assert_eq!(
            after.moved(&before.lock("")),
            [
                "A-001, or what it points at, was reworded: look at server x/y (z)",
                "B-002 is gone: look at nothing, no check cites it"
            ]
        );
        assert_eq!(before.moved(&after.lock(""))[1], "B-002 is new");
    }

    #[test]
    fn whoever_takes_a_check_away_or_cites_more_is_asked_to_look() {
        let (one, none) = (facts(&[("A-001", Side::Server)]), facts(&[]));
        assert_eq!(
            none.moved(&one.lock("")),
            ["A-001 lost the check server x/y (z)"]
        );
        assert_eq!(
            one.moved(&none.lock("")),
            ["A-001 is cited by server x/y (z) now"]
        );
    }

    #[test]
    fn a_withdrawn_number_is_kept_and_never_given_again() {
        let before = facts(&[]);
        let mut after = facts(&[]);
        after.rules.remove(1);
        let lock = after.lock(&before.lock(""));
        assert_eq!(after.moved(&lock), [""; 0]);
        assert_eq!(after.lock(&lock), lock);
        assert!(before.moved(&lock)[0].starts_with("B-002 was withdrawn"));
    }
}
