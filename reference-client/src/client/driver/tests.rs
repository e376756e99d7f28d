//! The driver, and a whole client on it, without a network.

use super::*;
use crate::client::status::Status;
use crate::client::{Client, Config, WriteHandle};
use crate::engine::Settings;
use crate::platform::{Moment, NoRandomness};
use crate::replica::edit::{self, WriteError};
use crate::store::{Counts, Leaf, MemoryStore, Page, Stored, Write, WriteId};
use crate::transport::Answers;
use futures::executor::block_on;
use futures::task::noop_waker;
use gosync_proto::{KeyRange, SpaceId, wire};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

struct NoNetwork;

fn refused<M>() -> Result<M, CallError> {
    Err(CallError::misbehaved("there is no network"))
}

impl Transport for NoNetwork {
    async fn hello(
        &self,
        _: &CallMetadata,
        _: wire::HelloRequest,
    ) -> Result<wire::HelloResponse, CallError> {
        refused()
    }
    async fn push(
        &self,
        _: &CallMetadata,
        _: wire::PushRequest,
    ) -> Result<wire::PushResponse, CallError> {
        refused()
    }
    async fn reconcile(
        &self,
        _: &CallMetadata,
        _: wire::ReconcileRequest,
    ) -> Result<wire::ReconcileResponse, CallError> {
        refused()
    }
    async fn watch(
        &self,
        _: &CallMetadata,
        _: wire::WatchRequest,
    ) -> Result<Answers<wire::WatchResponse>, CallError> {
        refused()
    }
    async fn snapshot(
        &self,
        _: &CallMetadata,
        _: wire::SnapshotRequest,
    ) -> Result<Answers<wire::SnapshotResponse>, CallError> {
        refused()
    }
}

#[derive(Clone)]
struct Stopped;

impl Runtime for Stopped {
    fn moment(&self) -> Moment {
        Moment {
            mono_ms: 0,
            wall_ms: 0,
            entropy: 0,
        }
    }
    fn sleep(&self, _: u64) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
    fn spawn(&self, _: BoxFuture<'static, ()>) {}
}

/// A tab that wrote faster than it could push never heard of others: there was always a write or an answer that
/// came first.
#[test]
fn whoever_goes_on_writing_hears_of_others_all_the_same() {
    let (send, commands) = mpsc::unbounded();
    let settings = Settings {
        space: SpaceId::new("s").unwrap(),
        me: ReplicaId(1),
        client: String::new(),
    };
    let mut driver = Driver::new(
        Arc::new(MemoryStore::new()),
        NoNetwork,
        Stopped,
        Engine::new(settings),
        ReplicaId(1),
        Arc::new(Feed::new(Status::initial(Counts::default(), None))),
        None,
        commands,
    );
    let news = || Streamed::Watch(wire::WatchResponse::default());
    let mut heard = 0;
    for _ in 0..100 {
        send.unbounded_send(Command::Wrote).unwrap();
        send.unbounded_send(Command::Wrote).unwrap();
        driver.call = Some((CallId(1), MaybeDone::Future(Box::pin(async { refused() }))));
        driver.stream = Some((CallId(2), Box::pin(stream::repeat_with(news))));
        let input = block_on(driver.next_input());
        heard += usize::from(matches!(input, Input::Event(Event::Streamed(..))));
    }
    assert!(heard >= 20, "{heard} of 100");
}

/// A store that fails where it is told to.
#[derive(Clone, Default)]
struct Unsure {
    store: MemoryStore,
    /// The next commit is done, and its end is not told.
    in_doubt: Arc<AtomicBool>,
    uncountable: Arc<AtomicBool>,
}

impl Store for Unsure {
    async fn transact<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> (Changes, T) + Send + 'static,
    {
        let decide = |view: &View| {
            let (changes, result) = decide(view);
            let writes = !changes.is_empty();
            (changes, (result, writes))
        };
        let (done, writes) = self.store.transact(reads, decide).await?;
        match writes && self.in_doubt.swap(false, Ordering::Relaxed) {
            true => Err(StoreError::InDoubt("disk".into())),
            false => Ok(done),
        }
    }
    async fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.store.page(range, after, limit).await
    }
    async fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        self.store.leaves(range, after, limit).await
    }
    async fn writes(&self, after: Option<WriteId>, limit: usize) -> Result<Vec<Write>, StoreError> {
        self.store.writes(after, limit).await
    }
    async fn counts(&self) -> Result<Counts, StoreError> {
        match self.uncountable.load(Ordering::Relaxed) {
            true => Err(StoreError::Io("disk".into())),
            false => self.store.counts().await,
        }
    }
    async fn damage(&self, keys: &[Key]) -> Result<(), StoreError> {
        self.store.damage(keys).await
    }
}

/// Time goes on, and the client works, when it is told to.
#[derive(Clone, Default)]
struct ByHand {
    now_ms: Arc<AtomicU64>,
    work: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
}

impl ByHand {
    fn work_after(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let work = work.as_mut().expect("a client");
        let open = work.poll_unpin(&mut Context::from_waker(&noop_waker()));
        assert!(open.is_pending());
    }
}

impl Runtime for ByHand {
    fn moment(&self) -> Moment {
        let now = self.now_ms.load(Ordering::Relaxed);
        Moment {
            mono_ms: now,
            wall_ms: now,
            entropy: 0,
        }
    }
    fn sleep(&self, ms: u64) -> BoxFuture<'static, ()> {
        let now_ms = Arc::clone(&self.now_ms);
        let due = now_ms.load(Ordering::Relaxed).saturating_add(ms);
        Box::pin(poll_fn(move |_| {
            match now_ms.load(Ordering::Relaxed) >= due {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }
    fn replica_id(&self) -> Result<u64, NoRandomness> {
        Ok(1)
    }
}

/// An opening of a store that is offline.
fn opened(store: Unsure) -> (Client<Unsure>, ByHand) {
    let runtime = ByHand::default();
    let config = Config {
        online: false,
        ..Config::new("s").unwrap()
    };
    let opening = Client::open(store, NoNetwork, runtime.clone(), config);
    (block_on(opening).unwrap(), runtime)
}

/// A client that is offline and has one unsent write.
fn with_an_unsent_write() -> (Client<Unsure>, ByHand, WriteHandle) {
    let (client, runtime) = opened(Unsure::default());
    let written = block_on(client.put(Key::new(*b"k").unwrap(), "v")).unwrap();
    runtime.work_after(RECOUNT_MOST_MS);
    assert_eq!(client.status().pending, 1);
    (client, runtime, written)
}

/// Spaces, seed 875 of the simulation: the status said `pending: 1` from then on.
#[test]
fn what_an_operation_settled_that_failed_at_its_commit_no_longer_counts_as_pending() {
    let (client, runtime, written) = with_an_unsent_write();
    // what the operation does, before it ends in doubt
    block_on(edit::discard(&client.store().store, written.ids()[0])).unwrap();
    client.store().in_doubt.store(true, Ordering::Relaxed);
    client.set_online(true);
    runtime.work_after(RECOUNT_MOST_MS);
    assert_eq!(client.status().phase, Phase::StorageError);
    assert_eq!(client.status().pending, 0);
    // nothing says that it was not the server's doing
    let fate = written.verdict.now_or_never();
    assert_eq!(fate, Some(Some(Fate::Superseded)));
}

/// Whoever waits would wait for ever.
#[test]
fn a_fate_that_the_store_did_not_say_it_kept_is_told_as_it_is() {
    let key = || Key::new(*b"k").unwrap();
    let edit = |change: fn(Write) -> Changes, deletes: bool| {
        let (client, runtime, written) = with_an_unsent_write();
        let written = match deletes {
            false => written,
            true => {
                block_on(client.discard(written.ids()[0])).unwrap();
                block_on(client.delete(key())).unwrap()
            }
        };
        let write = block_on(client.store().writes(None, 1)).unwrap().remove(0);
        let store = client.store().store.clone();
        let changed = store.transact(Reads::meta(), move |_| (change(write), ()));
        block_on(changed).unwrap();
        runtime.work_after(RECOUNT_MOST_MS);
        client.hear(Told::Missed);
        runtime.work_after(RECOUNT_MOST_MS);
        written.verdict.now_or_never().flatten()
    };
    let applied = |w: Write| {
        let point = gosync_proto::history::Cursor::origin(gosync_proto::history::Epoch(1)).point;
        Changes {
            put: vec![Stored::new(w.record, point, 0)],
            remove_writes: vec![w.id],
            ..Changes::default()
        }
    };
    assert_eq!(edit(applied, false), Some(Fate::Applied));
    let dropped = |w: Write| Changes {
        remove_writes: vec![w.id],
        ..Changes::default()
    };
    assert_eq!(edit(dropped, true), Some(Fate::Applied));
    let refused = |mut w: Write| {
        let (reason, detail) = (None, "no".to_owned());
        w.state = WriteState::Rejected { reason, detail };
        Changes {
            put_writes: vec![w],
            ..Changes::default()
        }
    };
    let (reason, detail) = (None, "no".to_owned());
    assert_eq!(
        edit(refused, false),
        Some(Fate::Rejected { reason, detail })
    );
}

#[test]
fn what_was_given_up_in_doubt_is_told_as_discarded() {
    let (client, runtime, written) = with_an_unsent_write();
    client.store().in_doubt.store(true, Ordering::Relaxed);
    block_on(client.discard(written.ids()[0])).unwrap_err();
    runtime.work_after(RECOUNT_MOST_MS);
    let fate = written.verdict.now_or_never();
    assert_eq!(fate, Some(Some(Fate::Discarded)));
}

#[test]
fn a_store_that_could_not_count_what_waits_is_asked_again() {
    let (client, runtime, written) = with_an_unsent_write();
    let id = written.ids()[0];
    client.store().uncountable.store(true, Ordering::Relaxed);
    assert!(block_on(client.discard(id)).unwrap());
    runtime.work_after(RECOUNT_MOST_MS);
    assert_eq!(client.status().pending, 1, "nobody knows better");
    client.store().uncountable.store(false, Ordering::Relaxed);
    runtime.work_after(RECOUNT_MOST_MS);
    assert_eq!(client.status().pending, 0);
}

#[test]
fn a_write_that_is_there_although_its_commit_failed_is_looked_for_as_after_any_write() {
    let (client, runtime, _) = with_an_unsent_write();
    client.store().in_doubt.store(true, Ordering::Relaxed);
    let failed = block_on(client.put(Key::new(*b"l").unwrap(), "v")).unwrap_err();
    assert!(matches!(failed, WriteError::Store(StoreError::InDoubt(_))));
    runtime.work_after(RECOUNT_MOST_MS);
    assert_eq!(client.status().pending, 2);
}

/// `tabs`, seed 78186 of the simulation: it lay there unsent until somebody wrote
/// something else.
#[test]
fn a_write_that_is_there_although_its_commit_failed_is_sent_by_the_opening_that_syncs() {
    let (client, _, _) = with_an_unsent_write();
    let (other, runtime) = opened(client.store().clone());
    runtime.work_after(RECOUNT_MOST_MS);
    assert_eq!(other.status().pending, 1);
    let mut events = client.events();
    client.store().in_doubt.store(true, Ordering::Relaxed);
    block_on(client.put(Key::new(*b"l").unwrap(), "v")).unwrap_err();
    while let Some(Some(event)) = events.next().now_or_never() {
        other.hear(event);
    }
    runtime.work_after(RECOUNT_MOST_MS);
    assert_eq!(other.status().pending, 2);
}
