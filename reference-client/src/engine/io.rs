//! What goes into the engine and what comes out: events and effects. Knows no
//! rule.

use super::Notice;
use crate::replica::ops::{Op, Reply};
use crate::store::StoreError;
use crate::transport::CallError;
use gosync_proto::{Key, wire};

/// Names one call of the engine. Answers to calls that it gave up are ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The user, or the election among openings, switched syncing on or off.
    Online(bool),
    /// Sync now, whatever the backoff.
    Sync,
    /// Hash everything stored again, and compare with the server.
    Verify,
    /// There may be something to push.
    Wrote,
    /// A reader met records whose content does not match their digest.
    Damaged(Vec<Key>),
    /// What came of [`Effect::Authenticate`].
    Token(TokenNews),
    /// A unary call ended.
    Answered(CallId, Box<Result<Answer, CallError>>),
    /// A stream brought something.
    Streamed(CallId, Box<Streamed>),
    /// A store operation ended.
    Stored(Box<Result<Reply, StoreError>>),
    /// Time passed.
    Tick,
    /// The client is closed.
    Close,
}

/// What came of asking for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenNews {
    /// The next call carries one, or none is needed.
    Ready,
    /// There will be none without the user.
    SignIn,
    /// Whoever issues tokens could not be reached.
    Unavailable(String),
}

/// The answer to a unary call.
#[derive(Clone, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Answer {
    Hello(wire::HelloResponse),
    Push(wire::PushResponse),
    Reconcile(wire::ReconcileResponse),
}

/// What a stream brought.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Streamed {
    /// A message of Watch.
    Watch(wire::WatchResponse),
    /// A message of Snapshot.
    Snapshot(wire::SnapshotResponse),
    /// It failed, also at its opening.
    Failed(CallError),
    /// It ended without saying so.
    Ended,
}

/// A call to be made.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Request {
    Hello(wire::HelloRequest),
    Push(wire::PushRequest),
    Reconcile(wire::ReconcileRequest),
    Watch(wire::WatchRequest),
    Snapshot(wire::SnapshotRequest),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make a call. `gosync-version` is what Hello chose; none on Hello.
    Call {
        /// Comes back with the answer.
        id: CallId,
        /// The value of `gosync-version`.
        version: Option<u32>,
        /// What to send.
        request: Box<Request>,
    },
    /// Drop a call or stream.
    Cancel(CallId),
    /// Run a store operation, and report its reply before anything else.
    Store(Op),
    /// Get a token; a new one when the one at hand was refused.
    Authenticate {
        /// The one at hand was refused.
        refused: bool,
    },
    /// Tell the application.
    Notify(Notice),
}
