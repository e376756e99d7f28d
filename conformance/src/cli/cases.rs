//! `list` and `explain`: what cases there are.

use super::{Selection, usage};
use gosync_conformance::suite::{Case, Kind, glob, only_advice, requirement};
use gosync_conformance::{client, server};
use std::process::ExitCode;

/// Lists what is selected.
pub fn list(selection: &Selection) -> ExitCode {
    let choice = selection.choice(0, 1);
    let mut found = 0;
    for case in server::cases::all() {
        if choice.selects(case) {
            found += 1;
            line("server", case);
        }
    }
    for case in client::cases::all() {
        if choice.selects(case) {
            found += 1;
            line("client", case);
        }
    }
    if found == 0 {
        return usage("no case is selected");
    }
    println!("{found} cases");
    ExitCode::SUCCESS
}

fn line<C>(mode: &str, case: &Case<C>) {
    println!(
        "{mode:<7} {:<34} {:<9} {}",
        case.name,
        case.profile.name(),
        case.about
    );
}

/// Says what the matching cases do.
pub fn explain(pattern: &str) -> ExitCode {
    let mut found = false;
    for case in server::cases::all() {
        if glob(pattern, case.name) {
            found = true;
            explain_case("server", case);
        }
    }
    for case in client::cases::all() {
        if glob(pattern, case.name) {
            found = true;
            explain_case("client", case);
        }
    }
    if found {
        ExitCode::SUCCESS
    } else {
        usage(&format!(
            "no case is called {pattern:?}; `gosync-conformance list` shows all"
        ))
    }
}

fn explain_case<C>(mode: &str, case: &Case<C>) {
    println!("{}   ({mode}, profile {})", case.name, case.profile.name());
    println!("  {}", case.about);
    if !case.needs.is_empty() {
        let needs: Vec<&str> = case.needs.iter().map(|n| n.name()).collect();
        println!("  needs: {}", needs.join(", "));
    }
    for check in case.checks {
        println!("\n  {}: {}", check.name, check.expects);
        if let Kind::Negative { twin } = check.kind {
            println!("      counts only when {twin:?} passes too");
        }
        if only_advice(check.cites.iter().copied()) {
            println!("      only recommended: departing from it is non-strict, and no failure");
        }
        for id in check.cites {
            match requirement(id) {
                Some(r) => println!("      [{id}] {} ({})", r.text, r.chapter),
                None => println!("      [{id}]"),
            }
        }
    }
    println!();
}
