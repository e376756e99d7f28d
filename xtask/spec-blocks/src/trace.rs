//! Every requirement is guarded by a check of the suite, or it is said why not; and whoever rewords one sees the
//! checks that rest on it. Knows what the suite's cases cite, and nothing of how they run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use gosync_conformance::suite::{Check, requirements, text_hash};
use gosync_conformance::{client, server};
use serde::Deserialize;

const COVERAGE: &str = "conformance/coverage.toml";
const LOCK: &str = "conformance/requirements.lock";
const LOCK_HEAD: &str = "# The text of each requirement as the checks that cite it were written or looked at again: its hash.\n\
                         # `cargo xtask generate spec` renews this file, and names the checks to look at.\n";

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

/// A numbered sentence, and what binds through it.
struct Rule {
    id: String,
    text: String,
    /// Of the sentence, and of the section's tables where it speaks of one.
    hash: String,
}

impl Rule {
    fn new(id: &str, text: &str, page: &str) -> Rule {
        let tables = if text.contains("table") {
            tables_around(page, id)
        } else {
            String::new()
        };
        Rule {
            id: id.to_owned(),
            text: text.to_owned(),
            hash: text_hash(&format!("{text} {tables}")),
        }
    }
}

/// The rows of the tables in the section of a page in which the requirement stands.
fn tables_around(page: &str, id: &str) -> String {
    let sections = page.split("\n## ");
    let mark = format!("**[{id}]**");
    let rows = sections
        .filter(|section| section.contains(&mark))
        .flat_map(str::lines)
        .filter(|line| line.starts_with('|'));
    rows.collect::<Vec<_>>().join("\n")
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
            let page = pages.get(r.chapter).map_or("", String::as_str);
            facts.rules.push(Rule::new(r.id, r.text, page));
        }
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

    fn lock(&self) -> String {
        let lines = self
            .rules
            .iter()
            .map(|rule| format!("{} {}\n", rule.id, rule.hash));
        LOCK_HEAD.to_owned() + &lines.collect::<String>()
    }

    /// One sentence for each requirement that is not what the lock file holds, with the checks to look at.
    fn reworded(&self, lock: &str) -> Vec<String> {
        let kept: BTreeMap<&str, &str> = lock
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(' '))
            .collect();
        let now: BTreeSet<&str> = self.rules.iter().map(|rule| rule.id.as_str()).collect();
        let mut found: Vec<String> = self
            .rules
            .iter()
            .filter_map(|Rule { id, hash, .. }| match kept.get(id.as_str()) {
                Some(kept) if kept == hash => None,
                Some(_) => Some(format!("{id} was reworded: look at {}", self.citing(id))),
                None => Some(format!("{id} is new")),
            })
            .collect();
        let gone = kept.keys().filter(|id| !now.contains(**id));
        found.extend(gone.map(|id| format!("{id} is gone: look at {}", self.citing(id))));
        found
    }

    fn citing(&self, id: &str) -> String {
        let checks: Vec<String> = SIDES
            .iter()
            .flat_map(|side| {
                let name = side.name();
                self.checks(id, *side)
                    .iter()
                    .map(move |check| format!("{name} {check}"))
            })
            .collect();
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

/// What does not hold, one sentence each.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let facts = Facts::read(root)?;
    let coverage = toml::from_str(&read(root, COVERAGE)?)
        .with_context(|| format!("{COVERAGE} is not understood"))?;
    let vector_exists = |file: &str| root.join("spec/vectors").join(file).is_file();
    let mut found = facts.uncovered(&coverage, vector_exists);
    let reworded = facts.reworded(&read(root, LOCK).unwrap_or_default());
    if !reworded.is_empty() {
        found.extend(reworded);
        found.push("look at these checks, then run `cargo xtask generate spec`".to_owned());
    }
    Ok(found)
}

/// Renews the lock file, takes what is guarded out of the exceptions, and says which checks to look at.
pub fn renew(root: &Path) -> Result<()> {
    let facts = Facts::read(root)?;
    for change in facts.reworded(&read(root, LOCK).unwrap_or_default()) {
        println!("{change}");
    }
    write(root, LOCK, &facts.lock())?;
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
                .map(|(id, text)| Rule::new(id, text, ""))
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
        after.rules[0] = Rule::new("A-001", "A server MUST not a.", "");
        after.rules.remove(1);
        assert_eq!(before.reworded(&before.lock()), [""; 0]);
        assert_eq!(
            after.reworded(&before.lock()),
            [
                "A-001 was reworded: look at server x/y (z)",
                "B-002 is gone: look at nothing, no check cites it"
            ]
        );
        assert_eq!(before.reworded(&after.lock())[1], "B-002 is new");
    }

    #[test]
    fn a_row_of_the_table_that_a_requirement_speaks_of_belongs_to_it() {
        let page = "## 1\n| x | y |\n\n## 2\n**[A-001]** A server MUST follow this table.\n| a | b |\n\n## 3\n";
        let hash = |text: &str, page: &str| Rule::new("A-001", text, page).hash;
        let (speaks, silent) = ("A server MUST follow this table.", "A server MUST follow.");
        assert_ne!(
            hash(speaks, page),
            hash(speaks, &page.replace("| b", "| c"))
        );
        assert_eq!(
            hash(speaks, page),
            hash(speaks, &page.replace("| y", "| z"))
        );
        assert_eq!(
            hash(silent, page),
            hash(silent, &page.replace("| b", "| c"))
        );
    }
}
