//! The cases of server mode, by area.

mod answers;
mod auth;
mod clock;
mod compaction;
mod conflict;
mod connection;
mod figures;
mod following;
mod hello;
mod history;
mod http;
mod malformed;
mod push;
mod ranges;
mod reconcile;
mod session;
mod sessions;
mod snapshot;
mod storage;
mod strangers;
mod tombstone;
mod watch;

use super::Cx;
use crate::suite::Case;

/// All of them, in the order of the specification.
pub fn all() -> Vec<&'static Case<Cx>> {
    let areas: [&'static [Case<Cx>]; 21] = [
        hello::CASES,
        ranges::CASES,
        reconcile::CASES,
        sessions::CASES,
        answers::CASES,
        push::CASES,
        conflict::CASES,
        tombstone::CASES,
        clock::CASES,
        watch::CASES,
        following::CASES,
        snapshot::CASES,
        malformed::CASES,
        auth::CASES,
        history::CASES,
        compaction::CASES,
        figures::CASES,
        http::CASES,
        connection::CASES,
        storage::CASES,
        strangers::CASES,
    ];
    areas.into_iter().flatten().collect()
}

/// Whether a case does little but wait, for half a minute and more: it begins
/// first, and takes no other's turn.
pub fn waits(case: &Case<Cx>) -> bool {
    case.name.starts_with("connection/")
}
