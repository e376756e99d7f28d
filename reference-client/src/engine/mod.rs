//! The sync engine: a state machine that is told what happened and answers
//! with what is to be done. Knows neither clock, randomness, network nor
//! store: time and entropy come with each event, calls and store operations
//! leave as effects.
//!
//! A driver gives each event to [`Engine::handle`], carries the effects out in
//! order, and wakes the engine with [`Event::Tick`] at [`Engine::wake_at`].
//! After [`Effect::Store`] it reports the reply with [`Event::Stored`]; it
//! takes the next message of a stream only while no operation is under way.
//!
//! ```text
//!  Offline ──► Opening ──► Authenticating ──► Connecting (Hello)
//!                               ▲                │ equal, or in order
//!      Waiting ── backoff ──────┘                ├──────────────────► Pushing
//!         ▲                                      │ history changed        │
//!         │ any failure                          ├─► Healing ─────────────┤
//!         │                                      └─► Bootstrapping ───────┤
//!         └──────────── Live ◄── CatchingUp ◄─────────────────────────────┘
//!                        └── checkpoint differs ──► Healing
//! ```
//!
//! [`Phase`] says what each state is; the table of all transitions is the one
//! `match` in [`Engine::handle`]'s `step`.

mod backoff;
mod bootstrap;
mod check;
mod connect;
mod follow;
mod heal;
mod image;
mod io;
mod notice;
mod send;

#[cfg(test)]
mod tests;

pub use backoff::CAP_MS;
pub use image::Image;
pub use io::{Answer, CallId, Effect, Event, Request, Streamed, TokenNews};
pub use notice::{Healed, Notice, Problem, Progress, Report, State};

use crate::platform::Moment;
use crate::replica::Outcome;
use crate::replica::merge::Merged;
use crate::replica::ops::{Op, Reply};
use crate::store::{Meta, StoreError};
use crate::transport::{CallError, Cause};
use backoff::Backoff;
use bootstrap::Bootstrap;
use connect::Session;
use gosync_proto::{Key, ReplicaId, SpaceId, mutant};
use heal::Healing;
use send::Sending;
use std::collections::{BTreeSet, VecDeque};

/// Where the engine stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Phase {
    /// Switched off; nothing is tried.
    Offline,
    /// Reads from the store what fingerprints are computed from.
    Opening,
    /// Waits for a token.
    Authenticating,
    /// Said Hello.
    Connecting,
    /// Exchanges what differs, range by range.
    Healing,
    /// Takes everything from a snapshot.
    Bootstrapping,
    /// Sends what the server does not have.
    Pushing,
    /// Receives what was committed since the cursor.
    CatchingUp,
    /// Has everything, and receives what is committed.
    Live,
    /// Something failed; tries again after a pause.
    Waiting,
    /// The token is refused, or there is none: the user has to act.
    NeedsAuth,
    /// The server speaks no version that this software knows.
    UpgradeRequired,
    /// The store failed; tries again after a pause.
    StorageError,
    /// For good: closed, or the space was retired.
    Stopped,
}

/// What does not change while a client is open.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The space.
    pub space: SpaceId,
    /// The replica id of this opening.
    pub me: ReplicaId,
    /// Name and version of the software, for the server's log.
    pub client: String,
}

/// How long a unary call may take, milliseconds.
const CALL_TIMEOUT_MS: u64 = 60_000;

/// See the module.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    phase: Phase,
    online: bool,
    now: Moment,
    effects: Vec<Effect>,
    /// Store operations to come, in order; `storing`: one is under way.
    ops: VecDeque<Op>,
    storing: bool,
    /// The one under way hashes what is stored again.
    hashing: bool,
    /// Events that came while one was.
    deferred: VecDeque<Event>,
    /// The store's meta row as of the last operation.
    meta: Meta,
    image: Image,
    /// Records that readers met as damaged while this opening was not the one
    /// that syncs; looked at when it is.
    suspects: BTreeSet<Key>,
    /// Damaged records that were removed and have not come back. A server that
    /// compares no fingerprints never sends them by itself.
    damaged: BTreeSet<Key>,
    session: Option<Session>,
    calls: u64,
    call: Option<(CallId, u64)>,
    stream: Option<CallId>,
    /// When a silent stream is given up.
    watchdog: Option<u64>,
    retry_at: Option<u64>,
    /// Until when the server does not want to be called.
    not_before: u64,
    /// When the last attempt failed.
    failed_at: u64,
    backoff: Backoff,
    /// How often the horizon moved since the replica was last caught up.
    horizons: u32,
    /// When a new session last began at once because the server called for one.
    resynced_at: Option<u64>,
    /// Tombstones below the horizon were dealt with in this session.
    horizon_followed: bool,
    /// The token was renewed since the last Hello that was answered.
    renewed: bool,
    sending: Sending,
    healing: Option<Healing>,
    /// The session that is being concluded: the era before it, and what to tell
    /// of it should the store not say whether it was (CLIENT-042).
    concluding: Option<(u64, Healed)>,
    bootstrap: Option<Bootstrap>,
    /// The last Snapshot was not what its server said of it.
    snapshot_refused: bool,
    /// Keys that a replica which is not caught up yet has seen change: readers
    /// are told once, when it is, or when it is interrupted (WATCH-017).
    unpublished: BTreeSet<Key>,
    /// Records of a commit whose end has not come yet.
    partial: Vec<gosync_proto::Record>,
    /// The last cursor of the present Watch.
    streamed: Option<gosync_proto::history::Cursor>,
    received: u64,
    /// Comparisons in a row that found a difference.
    unequal: u32,
    /// The last comparison found both sides equal, and no clean record changed
    /// since.
    verified: bool,
    /// When a live replica compares again, after a change and some quiet;
    /// `comparing`: it asked, and nothing changed since.
    compare_at: Option<u64>,
    comparing: bool,
    problem: Option<Problem>,
    verifying: Option<Report>,
    told: Option<State>,
}

impl Engine {
    /// Switched off, until [`Event::Online`].
    pub fn new(settings: Settings) -> Engine {
        Engine {
            settings,
            phase: Phase::Offline,
            online: false,
            now: Moment {
                mono_ms: 0,
                wall_ms: 0,
                entropy: 0,
            },
            effects: Vec::new(),
            ops: VecDeque::new(),
            storing: false,
            hashing: false,
            deferred: VecDeque::new(),
            meta: Meta::default(),
            image: Image::default(),
            suspects: BTreeSet::new(),
            damaged: BTreeSet::new(),
            session: None,
            calls: 0,
            call: None,
            stream: None,
            watchdog: None,
            retry_at: None,
            not_before: 0,
            failed_at: 0,
            backoff: Backoff::default(),
            horizons: 0,
            resynced_at: None,
            horizon_followed: false,
            renewed: false,
            sending: Sending::default(),
            healing: None,
            concluding: None,
            bootstrap: None,
            snapshot_refused: false,
            unpublished: BTreeSet::new(),
            partial: Vec::new(),
            streamed: None,
            received: 0,
            unequal: 0,
            verified: false,
            compare_at: None,
            comparing: false,
            problem: None,
            verifying: None,
            told: None,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The meta row as of the last store operation.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The clean records as fingerprints see them; empty while offline.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// When [`Event::Tick`] is due, by the monotonic clock.
    pub fn wake_at(&self) -> Option<u64> {
        let call = self.call.map(|(_, deadline)| deadline);
        [call, self.watchdog, self.retry_at, self.compare_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether a store operation is under way.
    pub fn is_storing(&self) -> bool {
        self.storing
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        self.now = now;
        match event {
            Event::Stored(result) => {
                self.storing = false;
                self.stored(*result);
            }
            event => self.deferred.push_back(event),
        }
        self.start_op();
        while !self.storing
            && let Some(event) = self.deferred.pop_front()
        {
            self.step(event);
            self.start_op();
        }
        self.publish_held_back();
        self.tell_state();
        std::mem::take(&mut self.effects)
    }

    /// The transitions. An event that does not belong to the state is one that
    /// came late: it is ignored.
    fn step(&mut self, event: Event) {
        use Phase as P;
        match (self.phase, event) {
            (P::Stopped, Event::Sync | Event::Verify) => {
                self.interrupted("syncing has ended for good");
            }
            (P::Stopped, _) => {}
            (_, Event::Close) => self.halt(P::Stopped),
            (_, Event::Online(true)) => self.go_online(),
            (_, Event::Online(false)) => {
                self.online = false;
                self.halt(P::Offline);
                self.interrupted("syncing is switched off");
            }
            (P::Offline, Event::Sync | Event::Verify) => {
                self.interrupted("syncing is switched off");
            }
            (P::StorageError, Event::Sync) => self.open(),
            (P::StorageError, Event::Verify) => {
                self.open();
                self.ops.push_back(Op::Verify);
            }
            (P::Live | P::NeedsAuth | P::UpgradeRequired, Event::Sync) => {
                self.renewed = false;
                self.start_over();
            }
            (P::Waiting, Event::Sync) => self.try_sooner(),
            // the session under way tells when both sides are equal
            (_, Event::Sync) => {}
            (_, Event::Verify) => self.ops.push_back(Op::Verify),
            (_, Event::Wrote) => self.wrote(),
            (P::Offline | P::StorageError, Event::Damaged(keys)) => self.suspects.extend(keys),
            (_, Event::Damaged(keys)) => self.ops.push_back(Op::RemoveDamaged(keys)),
            (P::Authenticating, Event::Token(news)) => match news {
                TokenNews::Ready => self.connect(),
                TokenNews::SignIn => {
                    self.fail_for_good(P::NeedsAuth, None, "there is no token for this space");
                }
                TokenNews::Unavailable(why) => {
                    self.wait(None, &format!("no token could be got: {why}"), None);
                }
            },
            (_, Event::Token(_)) => {}
            (_, Event::Answered(id, _)) if self.call.is_none_or(|(call, _)| call != id) => {}
            (phase, Event::Answered(_, answer)) => {
                self.call = None;
                match (phase, *answer) {
                    (P::Connecting, Ok(Answer::Hello(hello))) => self.hello_answered(hello),
                    (P::Live, Ok(Answer::Hello(hello))) => self.compared(&hello),
                    (P::Healing, Ok(Answer::Reconcile(answer))) => self.reconciled(answer),
                    (P::Pushing | P::CatchingUp | P::Live, Ok(Answer::Push(answer))) => {
                        self.push_answered(answer);
                    }
                    (P::Pushing | P::CatchingUp | P::Live, Err(error)) => self.push_failed(error),
                    (_, Err(error)) => self.fail(error),
                    (_, Ok(_)) => self.fail(CallError::misbehaved("an answer to another call")),
                }
            }
            (_, Event::Streamed(id, _)) if self.stream != Some(id) => {}
            (phase, Event::Streamed(_, message)) => match (phase, *message) {
                (P::CatchingUp | P::Live, Streamed::Watch(message)) => self.watched(message),
                (P::Bootstrapping, Streamed::Snapshot(message)) => self.snapshot_came(message),
                (P::CatchingUp, Streamed::Ended) if mutant!(EndIsComplete) => {
                    self.phase = P::Live;
                    self.in_sync();
                }
                // everything came, and only the last word got lost (SNAP-029)
                (P::Bootstrapping, Streamed::Ended)
                    if self.snapshot_is_whole() && !mutant!(SnapshotEndAwaited) =>
                {
                    self.snapshot_taken(None);
                }
                (P::Bootstrapping, Streamed::Failed(error))
                    if error.reason().is_none()
                        && self.snapshot_is_whole()
                        && !mutant!(SnapshotEndAwaited) =>
                {
                    self.snapshot_taken(None);
                }
                (_, Streamed::Failed(error)) => self.fail(error),
                (_, Streamed::Ended) => {
                    // no success hangs on a trailer: the last message says so
                    let message = "the stream ended without its last message";
                    self.fail(CallError::new(Cause::Status(14), message));
                }
                (_, Streamed::Watch(_) | Streamed::Snapshot(_)) => {
                    self.fail(CallError::misbehaved("a message of another stream"));
                }
            },
            (_, Event::Tick) => self.tick(),
            // handled before this point
            (_, Event::Stored(_)) => {}
        }
    }

    /// What a store operation led to. Derived state follows whatever the
    /// phase; going on does not.
    fn stored(&mut self, result: Result<Reply, StoreError>) {
        if self.phase == Phase::Stopped {
            return;
        }
        let reply = match result {
            Ok(reply) => reply,
            Err(StoreError::Displaced) if mutant!(StreamKept) => return,
            Err(StoreError::Displaced) => {
                // the other opening syncs now; this one may be switched on
                // again
                self.concluding = None;
                self.online = false;
                self.halt(Phase::Offline);
                self.interrupted("another opening of this store talks to the server");
                return;
            }
            Err(StoreError::RangesChanged) => return self.ranges_changed(),
            Err(error) => return self.storage_failed(&error),
        };
        if !matches!(reply, Reply::Settled(..)) {
            self.sending.forget_read();
        }
        match reply {
            Reply::Active(loaded) => {
                self.image = Image::new(loaded.leaves, loaded.meta.horizon);
                self.meta = loaded.meta;
                self.tell_of_doubtful_end();
                if self.phase == Phase::Opening {
                    self.authenticate(false);
                }
            }
            Reply::Merged(merged, meta) => {
                self.absorb(&merged, meta);
                match self.phase {
                    Phase::Healing => self.heal_merged(merged),
                    Phase::Bootstrapping => self.bootstrap_merged(merged),
                    _ => self.publish(merged.outcome),
                }
            }
            Reply::Taken(parcel) => self.parcel_taken(parcel),
            Reply::Settled(aftermath, meta) => {
                self.meta = meta;
                self.update_image(&aftermath.outcome);
                self.parcel_settled(aftermath);
            }
            Reply::Refused(outcome, meta) => {
                self.meta = meta;
                self.update_image(&outcome);
                self.publish(outcome);
                self.parcel_refused();
            }
            Reply::Concluded(concluded, meta) => {
                self.meta = meta;
                self.update_image(&concluded.outcome);
                self.concluded(concluded);
            }
            Reply::HorizonFollowed(outcome, meta) => {
                self.meta = meta;
                self.update_image(&outcome);
                self.image.set_horizon(self.meta.horizon);
                self.publish(outcome);
                if self.phase == Phase::Connecting {
                    self.hello();
                }
            }
            Reply::Verified(verified) => self.store_verified(verified),
            Reply::DamagedRemoved(keys) => self.damage_removed(keys),
            Reply::Noted => {}
        }
    }

    fn absorb(&mut self, merged: &Merged, meta: Meta) {
        self.meta = meta;
        self.update_image(&merged.outcome);
    }

    fn update_image(&mut self, outcome: &Outcome) {
        if !outcome.leaves.is_empty() {
            self.verified = false;
            self.comparing = false;
            if self.phase == Phase::Live {
                self.compare_at = Some(self.now.mono_ms + follow::QUIET_MS);
            }
            self.image.update(&outcome.leaves);
        }
    }

    fn start_op(&mut self) {
        if !self.storing
            && let Some(op) = self.ops.pop_front()
        {
            self.storing = true;
            self.hashing = op == Op::Verify;
            self.effects.push(Effect::Store(op));
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.effects.push(Effect::Notify(notice));
    }

    /// Tells readers what changed: at once, or when the replica is caught up.
    fn publish(&mut self, mut outcome: Outcome) {
        if self.is_behind() {
            self.unpublished.extend(outcome.changed.drain(..));
        }
        if outcome != Outcome::default() {
            self.notify(Notice::Changed(outcome));
        }
    }

    fn is_behind(&self) -> bool {
        matches!(self.phase, Phase::Bootstrapping | Phase::CatchingUp)
    }

    fn publish_held_back(&mut self) {
        if !self.is_behind() && !self.unpublished.is_empty() {
            let changed = std::mem::take(&mut self.unpublished);
            self.publish(Outcome {
                changed: changed.into_iter().collect(),
                ..Outcome::default()
            });
        }
    }

    /// Makes a unary call; there is at most one at a time.
    fn call(&mut self, request: Request) {
        self.cancel_call();
        let id = self.start(request);
        let patience = match mutant!(CallsCutShort) {
            true => 3_000,
            false if mutant!(CallsNeverGivenUp) => u64::MAX,
            false => CALL_TIMEOUT_MS,
        };
        self.call = Some((id, self.now.mono_ms.saturating_add(patience)));
    }

    /// Opens a stream; there is at most one at a time.
    fn open_stream(&mut self, request: Request) {
        self.cancel_stream();
        let id = self.start(request);
        self.stream = Some(id);
        self.feed_watchdog();
    }

    fn start(&mut self, request: Request) -> CallId {
        self.calls += 1;
        let id = CallId(self.calls);
        let version = match request {
            Request::Hello(_) => None,
            _ if mutant!(VersionUntold) => None,
            _ => self.session.as_ref().map(|s| s.version),
        };
        self.effects.push(Effect::Call {
            id,
            version,
            request: Box::new(request),
        });
        id
    }

    fn cancel_call(&mut self) {
        if let Some((id, _)) = self.call.take() {
            self.effects.push(Effect::Cancel(id));
        }
    }

    fn cancel_stream(&mut self) {
        self.watchdog = None;
        if let Some(id) = self.stream.take() {
            self.effects.push(Effect::Cancel(id));
        }
    }

    fn feed_watchdog(&mut self) {
        let patience = self
            .session
            .as_ref()
            .map_or(CALL_TIMEOUT_MS, |s| s.limits.watchdog_ms);
        let due = self.now.mono_ms.saturating_add(patience);
        self.watchdog = (!mutant!(SilenceBorne)).then_some(due);
    }

    fn tick(&mut self) {
        let now = self.now.mono_ms;
        if self.call.is_some_and(|(_, deadline)| deadline <= now) {
            self.cancel_call();
            let error = CallError::new(Cause::TimedOut, "the server did not answer");
            match self.phase {
                Phase::Pushing | Phase::CatchingUp | Phase::Live => self.push_failed(error),
                _ => self.fail(error),
            }
        }
        if self.watchdog.is_some_and(|deadline| deadline <= now) {
            self.fail(CallError::new(Cause::TimedOut, "the stream fell silent"));
        }
        if self.compare_at.is_some_and(|due| due <= now) {
            self.compare();
        }
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry_at = None;
            match self.phase {
                Phase::Waiting => self.authenticate(false),
                Phase::StorageError => self.open(),
                Phase::Live | Phase::CatchingUp => self.push_next(),
                _ => {}
            }
        }
    }

    fn tell_state(&mut self) {
        let state = State {
            phase: self.phase,
            verified: self.verified && !mutant!(NeverVerified),
            progress: self.progress(),
            problem: self.problem.clone(),
            last_synced_ms: self.meta.last_synced_ms,
        };
        if self.told.as_ref() != Some(&state) {
            self.told = Some(state.clone());
            self.notify(Notice::State(state));
        }
    }

    fn progress(&self) -> Option<Progress> {
        match self.phase {
            Phase::Bootstrapping => self.bootstrap.as_ref().map(Bootstrap::progress),
            Phase::CatchingUp => Some(Progress {
                done: self.received,
                total: self.received.max(self.sequences_behind()),
            }),
            _ => None,
        }
    }
}
