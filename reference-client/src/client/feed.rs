//! Who is told what: the status, events, changes of a range, and the fate of
//! single writes. Nothing here can grow without bound: a subscriber that does
//! not listen is told less, not later.

use super::status::Status;
use crate::engine::{Healed, Report};
use crate::replica::{Fate, Settled};
use crate::store::{Write, WriteId};
use futures::Stream;
use gosync_proto::{Key, KeyRange, Version};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// What happens in a client. In a browser each opening passes its events on to
/// the other openings of the store, which [`hear`](super::Client::hear) them.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// This opening wrote.
    Wrote {
        /// The writes.
        ids: Vec<WriteId>,
        /// Their keys.
        keys: Vec<Key>,
    },
    /// A reader may see something else under these keys.
    Changed(Vec<Key>),
    /// The fate of a write is known.
    Settled(Settled),
    /// The status changed.
    Status(Status),
    /// A reconciliation ended.
    Healed(Healed),
    /// Local records were damaged; they come back from the server.
    Damaged(Vec<Key>),
    /// Writes that were kept although they may have been deleted elsewhere
    /// meanwhile.
    InDoubt(Vec<WriteId>),
    /// A verification ended.
    Verified(Report),
    /// Everything may have changed: the subscriber did not listen and missed
    /// events, or the store did not say whether it kept a change.
    Missed,
}

/// Something that is told to subscribers, bit by bit.
pub trait Told: Send + 'static {
    /// What a subscriber gets at once.
    type Item;
    /// What has come up since it last listened.
    fn take(&mut self) -> Option<Self::Item>;
}

#[derive(Debug)]
struct Mailbox<T> {
    content: T,
    waker: Option<Waker>,
    closed: bool,
}

type Shared<T> = Arc<Mutex<Mailbox<T>>>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // every critical section leaves its data whole
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream of what a subscriber is told. It ends when the client is closed;
/// dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription<T>(Shared<T>);

impl<T: Told> Stream for Subscription<T> {
    type Item = T::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T::Item>> {
        let mut mailbox = lock(&self.0);
        if let Some(item) = mailbox.content.take() {
            return Poll::Ready(Some(item));
        }
        if mailbox.closed {
            return Poll::Ready(None);
        }
        mailbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// All subscribers of one kind.
#[derive(Debug)]
struct Hub<T> {
    members: Mutex<Vec<Weak<Mutex<Mailbox<T>>>>>,
}

impl<T> Default for Hub<T> {
    fn default() -> Self {
        Hub {
            members: Mutex::default(),
        }
    }
}

impl<T> Hub<T> {
    fn join(&self, content: T) -> Subscription<T> {
        let mailbox = Arc::new(Mutex::new(Mailbox {
            content,
            waker: None,
            closed: false,
        }));
        lock(&self.members).push(Arc::downgrade(&mailbox));
        Subscription(mailbox)
    }

    fn tell(&self, mut put: impl FnMut(&mut T)) {
        self.each(|mailbox| put(&mut mailbox.content));
    }

    fn each(&self, mut visit: impl FnMut(&mut Mailbox<T>)) {
        lock(&self.members).retain(|member| {
            let Some(member) = member.upgrade() else {
                return false;
            };
            let waker = {
                let mut mailbox = lock(&member);
                visit(&mut mailbox);
                mailbox.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
            true
        });
    }
}

/// The newest status, once for each change at most.
#[derive(Debug)]
pub struct LatestStatus(Option<Status>);

impl Told for LatestStatus {
    type Item = Status;
    fn take(&mut self) -> Option<Status> {
        self.0.take()
    }
}

/// Events in order.
#[derive(Debug, Default)]
pub struct EventQueue(VecDeque<Event>);

/// Events that wait for one subscriber.
const MAX_EVENTS: usize = 1_000;

impl Told for EventQueue {
    type Item = Event;
    fn take(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}

/// Which keys of a range changed.
#[derive(Debug)]
pub struct RangeChanges {
    range: KeyRange,
    changes: Changes,
}

/// Keys of a subscribed range that may show something else now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These.
    Keys(BTreeSet<Key>),
    /// Too many to be listed one by one.
    All,
}

/// Keys that wait for one subscriber.
const MAX_KEYS: usize = 10_000;

impl Told for RangeChanges {
    type Item = Changes;
    fn take(&mut self) -> Option<Changes> {
        match &self.changes {
            Changes::Keys(keys) if keys.is_empty() => None,
            _ => Some(std::mem::replace(
                &mut self.changes,
                Changes::Keys(BTreeSet::new()),
            )),
        }
    }
}

/// A write whose fate somebody waits for.
#[derive(Debug)]
struct Waiting {
    key: Key,
    version: Version,
    deletes: bool,
    told: Weak<Mutex<Ballot>>,
}

/// What is known of a write whose fate somebody waits for.
#[derive(Debug)]
pub(super) struct Awaited {
    pub id: WriteId,
    pub key: Key,
    pub version: Version,
    pub deletes: bool,
    /// Somebody wanted to give it up, and may have done so.
    pub given_up: bool,
}

/// What has become of the writes of one transaction so far.
#[derive(Debug)]
struct Ballot {
    /// How many writes have no fate yet.
    open: usize,
    verdict: Option<Fate>,
    given_up: bool,
    waker: Option<Waker>,
    closed: bool,
}

impl Ballot {
    /// One verdict for all: refused if any was, applied if any was.
    fn cast(&mut self, fate: Fate) {
        self.open = self.open.saturating_sub(1);
        self.verdict = Some(match (self.verdict.take(), fate) {
            (Some(refused @ Fate::Rejected { .. }), _) => refused,
            (_, refused @ Fate::Rejected { .. }) => refused,
            (Some(Fate::Applied), _) | (_, Fate::Applied) => Fate::Applied,
            (Some(earlier), _) => earlier,
            (None, fate) => fate,
        });
    }
}

/// Resolves to the common fate of the writes of one transaction; to `None` when
/// the client was closed before all of them had one. Dropping it ends the
/// waiting.
#[derive(Debug)]
pub(super) struct Verdict(Arc<Mutex<Ballot>>);

impl Future for Verdict {
    type Output = Option<Fate>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Fate>> {
        let mut ballot = lock(&self.0);
        if ballot.open == 0 {
            // nothing was written: the server holds all of it
            return Poll::Ready(Some(ballot.verdict.take().unwrap_or(Fate::Applied)));
        }
        if ballot.closed {
            return Poll::Ready(None);
        }
        ballot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Everybody who is told something.
#[derive(Debug)]
pub(super) struct Feed {
    status: Mutex<Status>,
    statuses: Hub<LatestStatus>,
    events: Hub<EventQueue>,
    ranges: Hub<RangeChanges>,
    /// Ordered: a push settles neighbours.
    fates: Mutex<BTreeMap<WriteId, Waiting>>,
}

impl Feed {
    pub(super) fn new(status: Status) -> Feed {
        Feed {
            status: Mutex::new(status),
            statuses: Hub::default(),
            events: Hub::default(),
            ranges: Hub::default(),
            fates: Mutex::default(),
        }
    }

    pub(super) fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    pub(super) fn statuses(&self) -> Subscription<LatestStatus> {
        self.statuses.join(LatestStatus(Some(self.status())))
    }

    pub(super) fn events(&self) -> Subscription<EventQueue> {
        self.events.join(EventQueue::default())
    }

    pub(super) fn changes(&self, range: KeyRange) -> Subscription<RangeChanges> {
        self.ranges.join(RangeChanges {
            range,
            changes: Changes::Keys(BTreeSet::new()),
        })
    }

    /// Changes the status, and tells of it if that made a difference.
    pub(super) fn update_status(&self, update: impl FnOnce(&mut Status)) {
        let (before, after) = {
            let mut status = lock(&self.status);
            let before = status.clone();
            update(&mut status);
            (before, status.clone())
        };
        if before != after {
            self.statuses.tell(|s| s.0 = Some(after.clone()));
            self.event(Event::Status(after));
        }
    }

    pub(super) fn event(&self, event: Event) {
        self.events.tell(|queue| {
            if queue.0.len() >= MAX_EVENTS {
                queue.0.clear();
                queue.0.push_back(Event::Missed);
            }
            queue.0.push_back(event.clone());
        });
    }

    /// Tells subscribers of ranges, here only.
    pub(super) fn keys_changed(&self, keys: &[Key]) {
        self.ranges.tell(|r| {
            let Changes::Keys(pending) = &mut r.changes else {
                return;
            };
            let range = &r.range;
            pending.extend(
                keys.iter()
                    .filter(|k| range.contains(k.as_bytes()))
                    .cloned(),
            );
            if pending.len() > MAX_KEYS {
                r.changes = Changes::All;
            }
        });
    }

    pub(super) fn everything_changed(&self) {
        self.ranges.tell(|r| r.changes = Changes::All);
    }

    /// Somebody waits for the fate of these writes, made in one transaction.
    pub(super) fn await_fate(&self, writes: &[Write]) -> Verdict {
        let ballot = Arc::new(Mutex::new(Ballot {
            open: writes.len(),
            verdict: None,
            given_up: false,
            waker: None,
            closed: false,
        }));
        let waiting = writes.iter().map(|w| {
            let waiting = Waiting {
                key: w.record.key.clone(),
                version: w.record.version,
                deletes: w.record.is_tombstone(),
                told: Arc::downgrade(&ballot),
            };
            (w.id, waiting)
        });
        lock(&self.fates).extend(waiting);
        Verdict(ballot)
    }

    /// Forgets waiters that no longer wait.
    pub(super) fn forget_abandoned(&self) {
        lock(&self.fates).retain(|_, waiting| waiting.told.strong_count() > 0);
    }

    /// The writes whose fates somebody waits for.
    pub(super) fn awaited(&self) -> Vec<Awaited> {
        let fates = lock(&self.fates);
        let of = |(id, w): (&WriteId, &Waiting)| {
            Some(Awaited {
                id: *id,
                key: w.key.clone(),
                version: w.version,
                deletes: w.deletes,
                given_up: lock(&*w.told.upgrade()?).given_up,
            })
        };
        fates.iter().filter_map(of).collect()
    }

    /// This write, and what was written together with it, may have been given
    /// up: if it is gone, it was.
    pub(super) fn give_up(&self, id: WriteId) {
        let ballot = lock(&self.fates).get(&id).and_then(|w| w.told.upgrade());
        if let Some(ballot) = ballot {
            lock(&ballot).given_up = true;
        }
    }

    pub(super) fn settle(&self, settled: &Settled) {
        let Some(waiting) = lock(&self.fates).remove(&settled.id) else {
            return;
        };
        // whoever waited may have gone
        let Some(ballot) = waiting.told.upgrade() else {
            return;
        };
        let mut ballot = lock(&ballot);
        ballot.cast(settled.fate.clone());
        if ballot.open == 0
            && let Some(waker) = ballot.waker.take()
        {
            waker.wake();
        }
    }

    /// The end: all streams end, all waiters are let go.
    pub(super) fn close(&self) {
        self.statuses.each(|m| m.closed = true);
        self.events.each(|m| m.closed = true);
        self.ranges.each(|m| m.closed = true);
        for waiting in std::mem::take(&mut *lock(&self.fates)).into_values() {
            let Some(ballot) = waiting.told.upgrade() else {
                continue;
            };
            let mut ballot = lock(&ballot);
            ballot.closed = true;
            if let Some(waker) = ballot.waker.take() {
                waker.wake();
            }
        }
    }
}
