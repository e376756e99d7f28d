//! The cases of client mode, by area.

mod acks;
mod auth;
mod behind;
mod bounds;
mod clock;
mod crashes;
mod descents;
mod documents;
mod doubts;
mod driver;
mod ends;
mod faults;
mod history;
mod liars;
mod manners;
mod openings;
mod pushes;
mod reconcile;
mod sessions;
mod snapshots;
mod standing;
mod streams;
mod sync;
mod tools;
mod verdicts;
mod watch;
mod writes;

use super::context::{Cx, Replica};
use crate::client::driver::Outcome;
use crate::oracle::Record;
use crate::schema::driver::sync_error::Kind;
use crate::suite::{Case, Stop};

/// All of them.
pub fn all() -> Vec<&'static Case<Cx>> {
    let areas: [&'static [Case<Cx>]; 26] = [
        driver::CASES,
        sync::CASES,
        watch::CASES,
        history::CASES,
        clock::CASES,
        auth::CASES,
        acks::CASES,
        faults::CASES,
        liars::CASES,
        writes::CASES,
        streams::CASES,
        ends::CASES,
        reconcile::CASES,
        doubts::CASES,
        documents::CASES,
        pushes::CASES,
        standing::CASES,
        descents::CASES,
        bounds::CASES,
        crashes::CASES,
        behind::CASES,
        manners::CASES,
        openings::CASES,
        sessions::CASES,
        snapshots::CASES,
        verdicts::CASES,
    ];
    areas.into_iter().flatten().collect()
}

/// A version time in the past: `ms` milliseconds after a moment in 2023.
fn time(ms: u64) -> u64 {
    (1_700_000_000_000 + ms) << 16
}

/// Records of another replica.
fn others(n: usize) -> Vec<Record> {
    (0..n)
        .map(|i| Record::put(format!("k{i:03}"), time(i as u64), 77, format!("value {i}")))
        .collect()
}

/// Syncs; where the client leaves the retry to its user, tries again.
async fn sync_patiently(replica: &Replica, cx: &Cx) -> Result<(), Stop> {
    let mut last = String::new();
    for _ in 0..8 {
        match replica.try_sync(cx.patience()).await? {
            Outcome::Done(_) => return Ok(()),
            Outcome::SyncError(e) if e.kind() == Kind::Retryable => {
                last = format!("{} {}", e.reason, e.detail);
            }
            other => return Err(Stop::Peer(format!("Sync answers {other:?}"))),
        }
    }
    Err(Stop::Peer(format!("Sync fails again and again: {last}")))
}

/// Emits a check that the application sees exactly what the server holds, and
/// that nothing is pending.
async fn same_as_server(cx: &Cx, check: &'static str, replica: &Replica) -> Result<(), Stop> {
    let want = super::context::visible_entries(&cx.server_records().await);
    let got = replica.entries().await?;
    let pending = replica.contents().await?.pending.len();
    let shown = |list: &[(String, String)]| {
        let mut text: String = list
            .iter()
            .take(8)
            .map(|(k, v)| format!("{k}={} ", v.chars().take(20).collect::<String>()))
            .collect();
        if list.len() > 8 {
            text.push_str(&format!("… {} in all", list.len()));
        }
        text
    };
    cx.check(
        check,
        got == want && pending == 0,
        format!("what the server holds, nothing pending: {}", shown(&want)),
        format!("{} pending: {}", pending, shown(&got)),
    );
    Ok(())
}
