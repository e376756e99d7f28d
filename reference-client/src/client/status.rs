//! What an application sees of a client's state.

use crate::engine::{Phase, Problem, Progress, State};
use crate::store::Counts;

/// How a client stands to its server, for people. The one table from the
/// engine's states is [`Connection::of`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Connection {
    /// On the way: the server is asked, or differences are being exchanged.
    Connecting,
    /// Has everything that the server has, and receives what is committed.
    Online,
    /// Not in touch; everything can be read and written all the same.
    Offline,
    /// The token is refused or missing.
    NeedsAuth,
    /// The server speaks no version that this software knows.
    UpgradeRequired,
    /// The local store failed.
    StorageError,
}

impl Connection {
    /// The table.
    pub fn of(phase: Phase) -> Connection {
        match phase {
            Phase::Opening
            | Phase::Authenticating
            | Phase::Connecting
            | Phase::Healing
            | Phase::Bootstrapping
            | Phase::Pushing
            | Phase::CatchingUp => Connection::Connecting,
            Phase::Live => Connection::Online,
            Phase::Offline | Phase::Waiting | Phase::Stopped => Connection::Offline,
            Phase::NeedsAuth => Connection::NeedsAuth,
            Phase::UpgradeRequired => Connection::UpgradeRequired,
            Phase::StorageError => Connection::StorageError,
        }
    }

    /// The name that the browser's API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Connection::Connecting => "connecting",
            Connection::Online => "online",
            Connection::Offline => "offline",
            Connection::NeedsAuth => "needs-auth",
            Connection::UpgradeRequired => "upgrade-required",
            Connection::StorageError => "storage-error",
        }
    }
}

/// A client's status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// How it stands to its server.
    pub connection: Connection,
    /// The engine's state, for those who want to know exactly.
    pub phase: Phase,
    /// Whether the last comparison found exactly the server's records here.
    /// What waits, was rejected or is quarantined is counted beside it.
    pub verified: bool,
    /// Writes that wait for the server.
    pub pending: u64,
    /// Writes that the server refused.
    pub rejected: u64,
    /// Of both, those that are in doubt: see [`PendingWrite::in_doubt`].
    ///
    /// [`PendingWrite::in_doubt`]: crate::client::PendingWrite::in_doubt
    pub in_doubt: u64,
    /// Records that the server lost and that may not be written.
    pub quarantined: u64,
    /// How far a bootstrap or catch-up is.
    pub progress: Option<Progress>,
    /// When both sides were last seen to be equal, Unix milliseconds.
    pub last_synced_ms: Option<u64>,
    /// What failed last; `None` when all is well.
    pub problem: Option<Problem>,
}

impl Status {
    /// Before anything happened.
    pub fn initial(counts: Counts, last_synced_ms: Option<u64>) -> Status {
        let mut status = Status {
            connection: Connection::Offline,
            phase: Phase::Offline,
            verified: false,
            pending: 0,
            rejected: 0,
            in_doubt: 0,
            quarantined: 0,
            progress: None,
            last_synced_ms,
            problem: None,
        };
        status.count(counts);
        status
    }

    /// Takes over the engine's part.
    pub fn follow(&mut self, state: State) {
        self.connection = Connection::of(state.phase);
        self.phase = state.phase;
        self.verified = state.verified;
        self.progress = state.progress;
        self.last_synced_ms = state.last_synced_ms.or(self.last_synced_ms);
        self.problem = state.problem;
    }

    /// Takes over the store's part.
    pub fn count(&mut self, counts: Counts) {
        self.pending = counts.waiting + counts.offers;
        self.rejected = counts.rejected;
        self.in_doubt = counts.in_doubt;
        self.quarantined = counts.quarantined;
    }
}
