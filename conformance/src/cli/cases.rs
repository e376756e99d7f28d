//! `list` and `explain`: what cases there are.

use super::output::say;
use super::{Outcome, Problem, Selection, declarations};
use gosync_conformance::suite::{Case, Choice, Kind, glob, only_advice, requirement};
use gosync_conformance::{client, server};
use std::process::ExitCode;
use std::time::Duration;

/// Lists what is selected.
pub fn list(selection: &Selection) -> Outcome {
    let server = declarations(&server::cases::all());
    let client = declarations(&client::cases::all());
    let among = [server, client].concat();
    let choice = selection.choice(&among, Choice::everything(Duration::ZERO, 1))?;
    let mut found = 0;
    for case in server::cases::all() {
        if choice.selects(case) {
            found += 1;
            line("server", case)?;
        }
    }
    for case in client::cases::all() {
        if choice.selects(case) {
            found += 1;
            line("client", case)?;
        }
    }
    say!("{found} cases")?;
    Ok(ExitCode::SUCCESS)
}

fn line<C>(mode: &str, case: &Case<C>) -> Result<(), Problem> {
    say!(
        "{mode:<7} {:<34} {:<9} {}",
        case.name,
        case.profile.name(),
        case.about
    )
}

/// Says what the matching cases do.
pub fn explain(pattern: &str) -> Outcome {
    let mut found = false;
    for case in server::cases::all() {
        if glob(pattern, case.name) {
            found = true;
            explain_case("server", case)?;
        }
    }
    for case in client::cases::all() {
        if glob(pattern, case.name) {
            found = true;
            explain_case("client", case)?;
        }
    }
    match found {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Problem::Usage(format!(
            "no case is called {pattern:?}; `gosync-conformance list` shows all"
        ))),
    }
}

fn explain_case<C>(mode: &str, case: &Case<C>) -> Result<(), Problem> {
    say!("{}   ({mode}, profile {})", case.name, case.profile.name())?;
    say!("  {}", case.about)?;
    if !case.needs.is_empty() {
        let needs: Vec<&str> = case.needs.iter().map(|n| n.name()).collect();
        say!("  needs: {}", needs.join(", "))?;
    }
    for check in case.checks {
        say!("\n  {}: {}", check.name, check.expects)?;
        if let Kind::Negative { twin } = check.kind {
            say!("      counts only when {twin:?} passes too")?;
        }
        if only_advice(check.cites.iter().copied()) {
            say!("      only recommended: departing from it is non-strict, and no failure")?;
        }
        for id in check.cites {
            match requirement(id) {
                Some(r) => say!("      [{id}] {} ({})", r.text, r.chapter)?,
                None => say!("      [{id}]")?,
            }
        }
    }
    say!("")
}
