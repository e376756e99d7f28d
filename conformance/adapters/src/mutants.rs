//! The deliberate errors of the reference implementations, as the suite's
//! protocols name them. Knows neither what they do nor who catches them.

use anyhow::{Result, ensure};
use gosync_conformance::schema::driver::Mutant;
use gosync_proto::mutant::{ALL, Side, UNSEEN, find, set_process};

fn is_of(side: Side, of: Side) -> bool {
    of == side || of == Side::Both
}

/// What an adapter of this side offers: those that the protocol can show.
pub fn list(side: Side) -> Vec<Mutant> {
    ALL.iter()
        .filter(|e| is_of(side, e.side))
        .filter(|e| UNSEEN.iter().all(|(m, _)| *m != e.mutant))
        .map(|e| Mutant {
            name: e.name.to_owned(),
            about: e.about.to_owned(),
            breaks: e.breaks.iter().map(|id| (*id).to_owned()).collect(),
        })
        .collect()
}

/// That there is such a mutant of this side; the empty name is none at all.
///
/// # Errors
/// A sentence.
pub fn check(name: &str, side: Side) -> Result<()> {
    let known = name.is_empty() || find(name).is_some_and(|e| is_of(side, e.side));
    ensure!(known, "there is no mutant {name:?}");
    Ok(())
}

/// Makes this process that mutant, until it ends.
///
/// # Errors
/// As [`check`].
pub fn become_one(name: &str, side: Side) -> Result<()> {
    check(name, side)?;
    set_process(find(name).map(|e| e.mutant));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_conformance::mutants::{self, Table};

    /// What `cargo xtask mutants --write` wrote last.
    const COMMITTED: &str = include_str!("../../MUTANTS.md");

    #[test]
    fn the_committed_tables_are_of_these_mutants_and_leave_no_rule_unguarded() {
        for (side, of) in [
            (mutants::Side::Server, Side::Server),
            (mutants::Side::Client, Side::Client),
        ] {
            let table = Table::read(side, COMMITTED);
            assert_eq!(table.complaints(&list(of)), [""; 0], "{side:?}");
            let missing = table.missing(side);
            assert!(missing.is_empty(), "{side:?}: {missing:?}");
        }
    }
}
