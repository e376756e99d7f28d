//! The cases of server mode, by area.

mod auth;
mod clock;
mod conflict;
mod hello;
mod history;
mod malformed;
mod push;
mod ranges;
mod reconcile;
mod session;
mod snapshot;
mod tombstone;
mod watch;

use super::Cx;
use crate::suite::Case;

/// All of them, in the order of the specification.
pub fn all() -> Vec<&'static Case<Cx>> {
    let areas: [&'static [Case<Cx>]; 12] = [
        hello::CASES,
        ranges::CASES,
        reconcile::CASES,
        push::CASES,
        conflict::CASES,
        tombstone::CASES,
        clock::CASES,
        watch::CASES,
        snapshot::CASES,
        malformed::CASES,
        auth::CASES,
        history::CASES,
    ];
    areas.into_iter().flatten().collect()
}
