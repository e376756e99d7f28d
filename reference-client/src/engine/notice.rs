//! What an application is told of the engine's work. Knows no rule.

use super::Phase;
use crate::replica::Outcome;
use crate::store::WriteId;
use gosync_proto::{Key, KeyRange, Reason};

/// What an application may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The engine's own state changed.
    State(State),
    /// Records or writes changed.
    Changed(Outcome),
    /// A reconciliation ended.
    Healed(Healed),
    /// Local records were damaged and removed; they come back from the server.
    Damaged(Vec<Key>),
    /// Writes that were kept although they may have been deleted elsewhere.
    InDoubt(Vec<WriteId>),
    /// Both sides hold the same, and nothing waits to be pushed.
    InSync,
    /// The attempt to sync was interrupted.
    Interrupted(String),
    /// The verification that was asked for ended.
    Verified(Report),
}

/// The engine's own part of a client's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// Whether the last comparison with the server found both sides equal, and
    /// no clean record changed since.
    pub verified: bool,
    /// How far a bootstrap or catch-up is.
    pub progress: Option<Progress>,
    /// What failed last; `None` once all is well again.
    pub problem: Option<Problem>,
    /// When both sides were last seen to be equal, Unix milliseconds.
    pub last_synced_ms: Option<u64>,
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Records so far.
    pub done: u64,
    /// Records expected.
    pub total: u64,
}

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The server's reason, if it gave one.
    pub reason: Option<Reason>,
    /// For people.
    pub message: String,
}

/// What a reconciliation found and did.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Healed {
    /// Where something differed, as narrow as was found out.
    pub ranges: Vec<KeyRange>,
    /// Round trips.
    pub rounds: u32,
    /// Records that came from the server.
    pub received: u64,
    /// Records that the server lost and gets again. Where the store failed at
    /// the end of the session: all that the server had nothing for.
    pub offered: u64,
    /// Records that had been deleted while the replica was away.
    pub dropped: u64,
    /// Records that the server lost and that may not be written.
    pub quarantined: u64,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Report {
    /// Records that were hashed.
    pub records: u64,
    /// Keys whose stored content was damaged.
    pub damaged: Vec<Key>,
    /// Whether the kept tree agreed with the stored records.
    pub tree_intact: bool,
    /// Whether both sides were equal before anything was healed.
    pub equal: bool,
    /// Where something differed and was healed.
    pub healed_ranges: Vec<KeyRange>,
    /// Round trips that it took.
    pub rounds: u32,
}
