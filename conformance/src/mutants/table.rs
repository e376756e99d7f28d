//! The table of mutants as a file keeps it: written after a run, read back by
//! whoever runs only some, or asks what no mutant guards yet.

use super::{Fate, Row, Side};
use crate::client;
use crate::schema::driver::Mutant;
use crate::server;
use crate::suite::{Check, requirement};
use std::collections::{BTreeMap, BTreeSet};

const COLUMNS: &str = "| mutant | what it does wrong | breaks | fate | checks that fail |
|---|---|---|---|---|
";

/// A row as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    name: String,
    about: String,
    breaks: Vec<String>,
    fate: String,
    failed: BTreeSet<String>,
}

impl From<&Row> for Line {
    fn from(row: &Row) -> Line {
        Line {
            name: row.mutant.name.clone(),
            about: row.mutant.about.clone(),
            breaks: row.mutant.breaks.clone(),
            fate: row.fate.to_string(),
            failed: row.failed.clone(),
        }
    }
}

impl Line {
    /// From "| `name` | about | breaks | fate | checks |".
    fn parse(text: &str) -> Option<Line> {
        let cells: Vec<&str> = text.trim().split(" | ").map(str::trim).collect();
        let (name, rest) = cells.split_first()?;
        let name = name.strip_prefix("| `")?.strip_suffix('`')?;
        let [about, breaks, fate, failed] = rest else {
            return None;
        };
        let list = |cell: &str| -> Vec<String> {
            let names = cell.trim_end_matches('|').split(',').map(str::trim);
            names.filter(|n| !n.is_empty()).map(str::to_owned).collect()
        };
        Some(Line {
            name: name.to_owned(),
            about: (*about).to_owned(),
            breaks: list(breaks),
            fate: (*fate).to_owned(),
            failed: list(failed).into_iter().collect(),
        })
    }

    /// As [`Row::good`].
    fn good(&self) -> bool {
        match self.breaks.is_empty() {
            true => self.fate == Fate::Survived.to_string(),
            false => {
                let mut names = self.failed.iter();
                names.any(|by| self.fate == Fate::Caught(by.clone()).to_string())
            }
        }
    }
}

/// The table of one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    lines: Vec<Line>,
}

impl Table {
    /// From a file: the part under the side's heading, or all of it where
    /// there are no headings.
    pub fn read(side: Side, text: &str) -> Table {
        let (start, end) = section(side, text).unwrap_or((0, text.len()));
        Table {
            lines: text[start..end].lines().filter_map(Line::parse).collect(),
        }
    }

    /// Whether a file is one for the side's table: has its heading, or is a
    /// table and nothing else.
    pub fn has_place(side: Side, text: &str) -> bool {
        section(side, text).is_some() || text.starts_with(COLUMNS)
    }

    /// With the results of a run, for those and in the order that the adapter
    /// lists.
    pub fn with(mut self, listed: &[Mutant], rows: &[Row]) -> Table {
        let mut lines = Vec::new();
        for mutant in listed {
            let row = rows.iter().find(|r| r.mutant.name == mutant.name);
            let old = self.lines.iter().position(|l| l.name == mutant.name);
            let old = old.map(|i| self.lines.remove(i));
            lines.extend(row.map(Line::from).or(old));
        }
        Table { lines }
    }

    /// What this is not, as the table of these mutants: a sentence for each that
    /// has no row, or one of another mutant of its name; for each row of none;
    /// and for each whose fate is not what it must be.
    pub fn complaints(&self, listed: &[Mutant]) -> Vec<String> {
        let row = |m: &Mutant| self.lines.iter().find(|l| l.name == m.name);
        let of_list = listed.iter().filter_map(|m| match row(m) {
            None => Some(format!("{} has no row", m.name)),
            Some(l) if (&l.about, &l.breaks) != (&m.about, &m.breaks) => {
                Some(format!("{} was another one when it ran", m.name))
            }
            Some(l) if !l.good() => Some(format!("{}: {}", l.name, l.fate)),
            Some(_) => None,
        });
        let is_listed = |l: &Line| listed.iter().any(|m| m.name == l.name);
        let gone = self.lines.iter().filter(|l| !is_listed(l));
        let gone = gone.map(|l| format!("{} is no more", l.name));
        of_list.chain(gone).collect()
    }

    /// The file with this table in it: in the side's part, or as all of it.
    pub fn write_into(&self, side: Side, text: &str) -> String {
        match section(side, text) {
            Some((start, end)) => {
                let table = self.markdown(side);
                format!("{}\n{table}{}", &text[..start], &text[end..])
            }
            None => self.markdown(side),
        }
    }

    /// The rows, and what is missing.
    pub fn markdown(&self, side: Side) -> String {
        let mut out = String::from(COLUMNS);
        for line in &self.lines {
            let Line {
                name, about, fate, ..
            } = line;
            let failed: Vec<&str> = line.failed.iter().map(String::as_str).collect();
            let (breaks, failed) = (line.breaks.join(", "), failed.join(", "));
            out.push_str(&format!(
                "| `{name}` | {about} | {breaks} | {fate} | {failed} |\n"
            ));
        }
        out.push_str(&self.missing(side).markdown());
        out
    }

    /// What none of the mutants guards.
    pub fn missing(&self, side: Side) -> Missing {
        let declared = declared(side);
        let cites: BTreeMap<String, &[&str]> = declared
            .iter()
            .flat_map(|(case, checks)| checks.iter().map(move |c| (case, c)))
            // the others are about the driver: crude ones guard them
            .filter(|(_, c)| !c.cites.is_empty())
            .map(|(case, c)| (format!("{case} {}", c.name), c.cites))
            .collect();
        let failed: BTreeSet<&String> = self.lines.iter().flat_map(|l| &l.failed).collect();
        let names = |failed: &String, id: &str| {
            let check = cites.get(failed).is_some_and(|c| c.contains(&id));
            check || failed.ends_with(&format!(" monitor {id}"))
        };
        let guarded = |id: &str| {
            let mut lines = self.lines.iter();
            lines.any(|l| l.breaks.iter().any(|b| b == id) && l.failed.iter().any(|f| names(f, id)))
        };
        let cited: BTreeSet<&str> = cites.values().copied().flatten().copied().collect();
        let binds = |id: &str| {
            let advice = requirement(id).is_none_or(|r| r.is_advice());
            !advice && side.is_bound_by(id)
        };
        Missing {
            requirements: cited
                .into_iter()
                .filter(|id| binds(id) && !guarded(id))
                .map(str::to_owned)
                .collect(),
            checks: cites
                .into_keys()
                .filter(|name| !failed.contains(name))
                .collect(),
        }
    }
}

/// What no mutant guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Checks that fail for none: "case check".
    pub checks: Vec<String>,
    /// What a MUST binds this side to and a check cites, and what no check
    /// that cites it fails for although a mutant breaks it.
    pub requirements: Vec<String>,
}

impl Missing {
    /// Whether every rule and every check has its mutant.
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty() && self.requirements.is_empty()
    }

    fn markdown(&self) -> String {
        let mut out = String::new();
        let mut list = |title: &str, names: &[String]| {
            out.push_str(&format!("\n{title}: {}.\n", names.len()));
            for (i, name) in names.iter().enumerate() {
                let gap = if i == 0 { "\n" } else { "" };
                out.push_str(&format!("{gap}- `{name}`\n"));
            }
        };
        list(
            "Requirements that none of these breaks under the eyes of a check that cites them",
            &self.requirements,
        );
        list(
            "Checks of the suite that fail for none of these",
            &self.checks,
        );
        out
    }
}

fn declared(side: Side) -> Vec<(&'static str, &'static [Check])> {
    match side {
        Side::Server => {
            let cases = server::cases::all();
            cases.into_iter().map(|c| (c.name, c.checks)).collect()
        }
        Side::Client => {
            let cases = client::cases::all();
            cases.into_iter().map(|c| (c.name, c.checks)).collect()
        }
    }
}

/// Where the side's part of a file begins, after its heading, and ends.
fn section(side: Side, text: &str) -> Option<(usize, usize)> {
    let heading = match side {
        Side::Server => "\n## Server\n",
        Side::Client => "\n## Client\n",
    };
    let start = text.find(heading)? + heading.len();
    let end = text[start..]
        .find("\n## ")
        .map_or(text.len(), |i| start + i);
    Some((start, end))
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fate::Caught(by) => write!(f, "caught by {by}"),
            Fate::CaughtInPart(by, uncited) => {
                let uncited = uncited.join(" ");
                write!(f, "caught by {by}; no check that fails cites {uncited}")
            }
            Fate::CaughtElsewhere(by) => write!(f, "caught, but not by its own check: {by}"),
            Fate::Survived => f.write_str("survived"),
            Fate::Inconclusive(why) => write!(f, "inconclusive: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, breaks: &[&str], failed: &[&str]) -> Row {
        Row {
            mutant: Mutant {
                name: name.into(),
                about: "Is wrong, in one rule.".into(),
                breaks: breaks.iter().map(|b| (*b).to_owned()).collect(),
            },
            fate: Fate::Caught(failed[0].to_owned()),
            failed: failed.iter().map(|f| (*f).to_owned()).collect(),
        }
    }

    fn listed(rows: &[Row]) -> Vec<Mutant> {
        rows.iter().map(|r| r.mutant.clone()).collect()
    }

    #[test]
    fn a_check_that_no_mutant_fails_is_told() {
        let nothing = Table::default().missing(Side::Server).checks;
        let rows = [row("m", &["PUSH-010"], &[&nothing[0], &nothing[2]])];
        let left = Table::default().with(&listed(&rows), &rows);
        let left = left.missing(Side::Server).checks;
        assert_eq!(left[0], nothing[1]);
        assert_eq!(left[1..], nothing[3..]);
    }

    #[test]
    fn a_check_that_is_about_the_driver_needs_no_mutant_of_the_client() {
        let checks = Table::default().missing(Side::Client).checks;
        assert!(!checks.iter().any(|c| c.starts_with("driver/")));
    }

    #[test]
    fn a_requirement_that_no_mutant_breaks_is_told_for_the_side_that_it_binds() {
        let rows = [row("m", &["PUSH-010"], &["push/one applied"])];
        let with = Table::default().with(&listed(&rows), &rows);
        let left = |table: &Table, side| table.missing(side).requirements;
        let tells = |table: &Table, side, id: &str| left(table, side).iter().any(|r| r == id);
        let nothing = Table::default();
        assert!(tells(&nothing, Side::Server, "PUSH-010"));
        assert!(!tells(&nothing, Side::Client, "PUSH-010"));
        assert!(!tells(&with, Side::Server, "PUSH-010"));
        for side in [Side::Server, Side::Client] {
            assert!(tells(&nothing, side, "MODEL-018"), "a peer's");
        }
    }

    #[test]
    fn a_requirement_that_is_broken_while_only_checks_of_others_fail_is_told() {
        let rows = [row("m", &["PUSH-010"], &["push/empty accepted"])];
        let with = Table::default().with(&listed(&rows), &rows);
        let left = with.missing(Side::Server).requirements;
        assert!(left.contains(&"PUSH-010".to_owned()));
    }

    #[test]
    fn what_a_monitor_names_is_guarded() {
        let rows = [row("m", &["HELLO-006"], &["sync/first monitor HELLO-006"])];
        let with = Table::default().with(&listed(&rows), &rows);
        let left = with.missing(Side::Client).requirements;
        assert!(!left.contains(&"HELLO-006".to_owned()));
    }

    #[test]
    fn a_table_of_other_mutants_or_of_one_that_got_away_is_told() {
        let rows = [
            row("a", &["PUSH-010"], &["push/one applied", "push/one there"]),
            row("b", &["PUSH-001"], &["push/empty accepted"]),
        ];
        let mut all = listed(&rows);
        let table = Table::default().with(&all, &rows);
        let table = Table::read(Side::Server, &table.markdown(Side::Server));
        assert_eq!(table.complaints(&all), [""; 0]);
        assert_eq!(table.complaints(&all[1..]), ["a is no more"]);
        all[1].breaks.push("PUSH-002".into());
        assert_eq!(table.complaints(&all), ["b was another one when it ran"]);
        all[1].name = "c".into();
        let without = ["c has no row", "b is no more"];
        assert_eq!(table.complaints(&all), without);
        for (fate, told) in [
            (Fate::Survived, "a: survived"),
            (
                Fate::CaughtInPart("push/one there".into(), vec!["PUSH-010".into()]),
                "a: caught by push/one there; no check that fails cites PUSH-010",
            ),
        ] {
            let mut bad = rows[0].clone();
            bad.fate = fate;
            let bad = Table::default().with(&listed(&rows[..1]), &[bad]);
            assert_eq!(bad.complaints(&listed(&rows[..1])), [told]);
        }
    }

    #[test]
    fn a_part_of_the_mutants_goes_into_the_table_of_all() {
        let text = "# Mutants\n\nWords.\n\n## Server\n\nold\n\n## Client\n\n| `c` | C. | A-001 | caught by x y | x y |\n";
        let rows = [
            row("a", &["PUSH-010"], &["push/one applied", "push/one there"]),
            row("b", &["PUSH-001", "PUSH-002"], &["push/empty accepted"]),
        ];
        let both = Table::default().with(&listed(&rows), &rows);
        let text = both.write_into(Side::Server, text);
        assert_eq!(Table::read(Side::Server, &text), both);
        let client = Table::read(Side::Client, &text);
        assert!(client.lines[0].failed.contains("x y"));
        // one of them anew, and one that is no more
        let again = [row("b", &["PUSH-001"], &["push/batch there"])];
        let now = Table::read(Side::Server, &text).with(&listed(&rows), &again);
        assert_eq!(now.lines[0], both.lines[0]);
        assert_eq!(now.lines[1].breaks, ["PUSH-001"]);
        let now = now.with(&listed(&rows[1..]), &[]);
        assert_eq!(now.lines.len(), 1);
        let text = now.write_into(Side::Server, &text);
        assert_eq!(Table::read(Side::Client, &text), client);
        assert!(text.starts_with("# Mutants\n\nWords.\n\n## Server\n\n| mutant"));
        assert!(text.contains("\n\n## Client\n\n"));
        assert!(!text.contains("\n\n\n"));
    }
}
