//! Every id that a check cites is a requirement of the specification.

use gosync_conformance::suite::{Check, requirement, requirements};
use gosync_conformance::{client, server};

fn checks() -> Vec<(&'static str, &'static Check)> {
    let server = server::cases::all()
        .into_iter()
        .flat_map(|c| c.checks.iter().map(|k| (c.name, k)));
    let client = client::cases::all()
        .into_iter()
        .flat_map(|c| c.checks.iter().map(|k| (c.name, k)));
    server.chain(client).collect()
}

#[test]
fn every_cited_id_stands_in_the_specification() {
    let unknown: Vec<String> = checks()
        .iter()
        .flat_map(|(case, check)| check.cites.iter().map(move |id| (case, check.name, id)))
        .filter(|(_, _, id)| requirement(id).is_none())
        .map(|(case, check, id)| format!("{case} {check}: {id}"))
        .collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn requirement_ids_are_unique() {
    let mut ids: Vec<&str> = requirements().map(|r| r.id).collect();
    assert!(ids.len() > 100);
    ids.sort_unstable();
    let before = ids.len();
    ids.dedup();
    assert_eq!(before, ids.len());
}

#[test]
fn there_are_at_least_two_hundred_cases() {
    let cases = server::cases::all().len() + client::cases::all().len();
    assert!(cases >= 200, "{cases}");
}
