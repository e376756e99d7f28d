//! The table of mutants as a file keeps it: written after a run, read back by
//! whoever runs only some, or asks what no mutant guards yet.

use super::{Fate, Row, Side};
use crate::client;
use crate::schema::driver::Mutant;
use crate::server;
use crate::suite::{Check, requirement};
use std::collections::BTreeSet;

const CHECKS: &str = "Checks of the suite that fail for none of these";
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
    /// Whether `failed` holds all: older tables tell the first one only.
    whole: bool,
}

impl From<&Row> for Line {
    fn from(row: &Row) -> Line {
        Line {
            name: row.mutant.name.clone(),
            about: row.mutant.about.clone(),
            breaks: row.mutant.breaks.clone(),
            fate: row.fate.to_string(),
            failed: row.failed.clone(),
            whole: true,
        }
    }
}

impl Line {
    /// From "| `name` | about | breaks | fate | checks |".
    fn parse(text: &str) -> Option<Line> {
        let cells: Vec<&str> = text.trim().split(" | ").map(str::trim).collect();
        let (name, rest) = cells.split_first()?;
        let name = name.strip_prefix("| `")?.strip_suffix('`')?;
        let (about, breaks, fate) = (rest.first()?, rest.get(1)?, rest.get(2)?);
        let list = |cell: &str| -> Vec<String> {
            let names = cell.trim_end_matches('|').split(',').map(str::trim);
            names.filter(|n| !n.is_empty()).map(str::to_owned).collect()
        };
        let fate = fate.trim_end_matches('|').trim();
        let failed: BTreeSet<String> = match rest.get(3) {
            Some(cell) => list(cell).into_iter().collect(),
            None => fate
                .strip_prefix("caught by ")
                .into_iter()
                .map(str::to_owned)
                .collect(),
        };
        Some(Line {
            name: name.to_owned(),
            about: (*about).to_owned(),
            breaks: list(breaks),
            fate: fate.to_owned(),
            failed,
            whole: rest.len() > 3,
        })
    }
}

/// The table of one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    lines: Vec<Line>,
    /// The checks that failed for none when the file was written.
    left: Option<BTreeSet<String>>,
}

impl Table {
    /// From a file: the part under the side's heading, or all of it where
    /// there are no headings.
    pub fn read(side: Side, text: &str) -> Table {
        let (start, end) = section(side, text).unwrap_or((0, text.len()));
        let part = &text[start..end];
        let left = part.split_once(CHECKS).map(|(_, list)| {
            let names = list.lines().filter_map(|l| l.strip_prefix("- `"));
            names.map(|n| n.trim_end_matches('`').to_owned()).collect()
        });
        Table {
            lines: part.lines().filter_map(Line::parse).collect(),
            left,
        }
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
        Table {
            lines,
            left: self.left,
        }
    }

    /// The file with this table in it: in the side's part, or as all of it.
    pub fn write_into(&self, side: Side, text: &str) -> String {
        match section(side, text) {
            Some((start, end)) => {
                let more = if end < text.len() { "\n" } else { "" };
                let table = self.markdown(side);
                format!("{}\n{table}{more}{}", &text[..start], &text[end..])
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
            let checks = match line.whole {
                true => format!(" {} |", failed.join(", ")),
                false => String::new(),
            };
            let breaks = line.breaks.join(", ");
            out.push_str(&format!(
                "| `{name}` | {about} | {breaks} | {fate} |{checks}\n"
            ));
        }
        out.push_str(&self.missing(side).markdown());
        out
    }

    /// What none of the mutants guards.
    pub fn missing(&self, side: Side) -> Missing {
        let failed = |name: &String| self.lines.iter().any(|l| l.failed.contains(name));
        let broken = |id: &str| self.lines.iter().any(|l| l.breaks.iter().any(|b| b == id));
        let declared = declared(side);
        let checks = declared
            .iter()
            .flat_map(|(case, checks)| checks.iter().map(move |c| format!("{case} {}", c.name)));
        let cited: BTreeSet<&str> = declared
            .iter()
            .flat_map(|(_, checks)| *checks)
            .flat_map(|c| c.cites)
            .copied()
            .collect();
        let partial = self.lines.iter().filter(|l| !l.whole).count();
        // what rows do not tell, the list of the run that they are of does
        let left = self.left.as_ref().filter(|_| partial > 0);
        let fell = |name: &String| left.is_some_and(|l| !l.contains(name));
        Missing {
            checks: checks.filter(|name| !failed(name) && !fell(name)).collect(),
            requirements: cited
                .into_iter()
                .filter(|id| binds(side, id) && !broken(id))
                .collect(),
            partial,
        }
    }
}

/// What no mutant guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Checks that fail for none: "case check".
    pub checks: Vec<String>,
    /// What a MUST binds this side to, a check cites, and none breaks.
    pub requirements: Vec<&'static str>,
    /// Rows that tell only the first check that fails.
    pub partial: usize,
}

impl Missing {
    fn markdown(&self) -> String {
        let mut out = String::new();
        if self.partial > 0 {
            out.push_str(&format!(
                "\n{} rows are of an older run and tell only the first check that fails: checks that fail for these alone may stand below.\n",
                self.partial
            ));
        }
        let list = |out: &mut String, title: &str, names: &[String]| {
            out.push_str(&format!("\n{title}: {}.\n\n", names.len()));
            for name in names {
                out.push_str(&format!("- `{name}`\n"));
            }
        };
        let ids: Vec<String> = self.requirements.iter().map(|s| (*s).to_owned()).collect();
        list(&mut out, "Requirements that none of these breaks", &ids);
        list(&mut out, CHECKS, &self.checks);
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

/// Whether a requirement obliges this side: a server, a replica, or a peer,
/// which is either; others say what they bind by the cases that cite them.
fn binds(side: Side, id: &str) -> bool {
    let other = match side {
        Side::Server => "A replica",
        Side::Client => "A server",
    };
    requirement(id).is_some_and(|r| r.text.contains("MUST") && !r.text.starts_with(other))
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
    fn a_requirement_that_no_mutant_breaks_is_told_for_the_side_that_it_binds() {
        let rows = [row("m", &["PUSH-010"], &["push/one applied"])];
        let with = Table::default().with(&listed(&rows), &rows);
        let left = |table: &Table, side| table.missing(side).requirements;
        let nothing = Table::default();
        assert!(left(&nothing, Side::Server).contains(&"PUSH-010"));
        assert!(!left(&nothing, Side::Client).contains(&"PUSH-010"));
        assert!(!left(&with, Side::Server).contains(&"PUSH-010"));
        for side in [Side::Server, Side::Client] {
            assert!(left(&nothing, side).contains(&"MODEL-018"), "a peer's");
        }
    }

    #[test]
    fn a_part_of_the_mutants_goes_into_the_table_of_all() {
        let text = "# Mutants\n\nWords.\n\n## Server\n\nold\n\n## Client\n\n| `c` | C. | A-001 | caught by x y |\n";
        let rows = [
            row("a", &["PUSH-010"], &["push/one applied", "push/one there"]),
            row("b", &["PUSH-001", "PUSH-002"], &["push/empty accepted"]),
        ];
        let both = Table::default().with(&listed(&rows), &rows);
        let text = both.write_into(Side::Server, text);
        assert_eq!(Table::read(Side::Server, &text).lines, both.lines);
        let client = Table::read(Side::Client, &text);
        assert_eq!(client.missing(Side::Client).partial, 1);
        assert!(client.lines[0].failed.contains("x y"));
        // what the run of such rows left is known by its list
        let left = format!("{text}\n{CHECKS}: 1.\n\n- `sync/first offers-1`\n");
        let left = Table::read(Side::Client, &left).missing(Side::Client);
        assert_eq!(left.checks, ["sync/first offers-1"]);
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
    }
}
