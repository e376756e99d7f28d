//! What an application holds in its hands: reads, writes, subscriptions,
//! status. Reads and writes go to the store and never wait for the network; a
//! driver in the background syncs.

mod driver;
mod feed;
mod row;
mod status;

pub use driver::Interrupted;
pub use feed::{Changes, Event, EventQueue, LatestStatus, RangeChanges, Subscription, Told};
pub use row::{Pending, PendingWrite, Row, row, rows, rows_of, visible};
pub use status::{Connection, Status};

use crate::engine::{Engine, Report, Settings};
use crate::platform::{BoxFuture, NoRandomness, Runtime};
use crate::replica::edit::{self, Author, Edit, WriteError};
use crate::replica::{Fate, aside, upkeep};
use crate::store::{
    Changes as StoreChanges, Counts, Quarantined, Reads, Store, StoreError, View, WriteId,
};
use crate::transport::{Token, Transport};
use bytes::Bytes;
use driver::{Command, Driver};
use feed::{Feed, Verdict};
use futures::channel::{mpsc, oneshot};
use gosync_proto::{Invalid, Key, KeyRange, RangeSet, ReplicaId, SpaceId, mutant};
use std::sync::Arc;

/// How a client is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The space.
    pub space: SpaceId,
    /// What is held here; everything by default.
    pub ranges: RangeSet,
    /// Where tokens come from; `None` for a server without authentication.
    pub auth: Option<Authenticate>,
    /// Whether to sync from the start. [`Client::set_online`] changes it.
    pub online: bool,
    /// Name and version of the software, for the server's log.
    pub software: String,
}

impl Config {
    /// Everything of a space, without authentication, online.
    ///
    /// # Errors
    /// The name is not 1 to 128 characters of `[A-Za-z0-9._-]`.
    pub fn new(space: &str) -> Result<Config, Invalid> {
        Ok(Config {
            space: SpaceId::new(space)?,
            ranges: RangeSet::all(),
            auth: None,
            online: true,
            software: concat!("gosync-client/", env!("CARGO_PKG_VERSION")).into(),
        })
    }
}

/// Gets tokens. Asked at the first connection, and once more whenever the
/// server refuses the token at hand.
#[derive(Clone)]
pub struct Authenticate(Arc<dyn GetToken>);

#[cfg(not(target_arch = "wasm32"))]
trait GetToken: Send + Sync {
    fn get(&self, request: TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>>;
}
#[cfg(target_arch = "wasm32")]
trait GetToken {
    fn get(&self, request: TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>>;
}

struct FromFn<F>(F);

#[cfg(not(target_arch = "wasm32"))]
impl<F> GetToken for FromFn<F>
where
    F: Fn(TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>> + Send + Sync,
{
    fn get(&self, request: TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>> {
        (self.0)(request)
    }
}
#[cfg(target_arch = "wasm32")]
impl<F> GetToken for FromFn<F>
where
    F: Fn(TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>>,
{
    fn get(&self, request: TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>> {
        (self.0)(request)
    }
}

impl Authenticate {
    /// From a function that gets a token.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new<F>(get: F) -> Authenticate
    where
        F: Fn(TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>> + Send + Sync + 'static,
    {
        Authenticate(Arc::new(FromFn(get)))
    }

    /// From a function that gets a token.
    #[cfg(target_arch = "wasm32")]
    pub fn new<F>(get: F) -> Authenticate
    where
        F: Fn(TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>> + 'static,
    {
        Authenticate(Arc::new(FromFn(get)))
    }

    /// Always the same token.
    pub fn fixed(token: impl Into<String>) -> Authenticate {
        let token = Token::new(token);
        Authenticate::new(move |request| {
            let answer = match request.refused {
                true => Err(AuthError::SignIn),
                false => Ok(token.clone()),
            };
            Box::pin(async move { answer })
        })
    }

    fn call(&self, request: TokenRequest) -> BoxFuture<'static, Result<Token, AuthError>> {
        self.0.get(request)
    }
}

impl std::fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticate(…)")
    }
}

/// Why a token is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenRequest {
    /// The last one was refused: the same again is of no use.
    pub refused: bool,
}

/// Why there is no token.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// The user has to sign in.
    #[error("the user has to sign in")]
    SignIn,
    /// It could not be got now; it is tried again.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a client could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are no random bits to draw a replica id from.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// The client was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the client is closed")]
pub struct Closed;

/// One opening of a replica. Clones are the same opening; when the last one is
/// dropped, syncing ends.
#[derive(Debug)]
pub struct Client<S> {
    inner: Arc<Inner<S>>,
}

impl<S> Clone for Client<S> {
    fn clone(&self) -> Self {
        Client {
            inner: Arc::clone(&self.inner),
        }
    }
}

#[derive(Debug)]
struct Inner<S> {
    store: Arc<S>,
    replica: ReplicaId,
    feed: Arc<Feed>,
    commands: mpsc::UnboundedSender<Command>,
    clock: Clock,
}

/// The runtime's wall clock, without its type.
struct Clock(Box<dyn ReadClock>);

#[cfg(not(target_arch = "wasm32"))]
trait ReadClock: Fn() -> u64 + Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<F: Fn() -> u64 + Send + Sync> ReadClock for F {}
#[cfg(target_arch = "wasm32")]
trait ReadClock: Fn() -> u64 {}
#[cfg(target_arch = "wasm32")]
impl<F: Fn() -> u64> ReadClock for F {}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// A write that is durable on this device.
#[derive(Debug)]
#[must_use = "the write is durable; `server()` tells what the server made of it"]
pub struct WriteHandle {
    ids: Vec<WriteId>,
    keys: Vec<Key>,
    verdict: Verdict,
}

impl WriteHandle {
    /// One id for each key, for [`Client::retry`] and [`Client::discard`].
    pub fn ids(&self) -> &[WriteId] {
        &self.ids
    }

    /// What was written.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Waits for the server's verdict. A batch has one: refused if any of its
    /// writes was, applied if any was.
    ///
    /// # Errors
    /// The client was closed before there was one. The write stays in the
    /// store and is sent by the next opening.
    pub async fn server(self) -> Result<Fate, Closed> {
        self.verdict.await.ok_or(Closed)
    }
}

impl<S: Store> Client<S> {
    /// Opens a store and begins to sync it.
    ///
    /// # Errors
    /// [`OpenError`]; a store of another space or of a newer version is
    /// refused.
    pub async fn open<T: Transport, R: Runtime>(
        store: S,
        transport: T,
        runtime: R,
        config: Config,
    ) -> Result<Client<S>, OpenError> {
        let replica = match () {
            () if mutant!(OneReplicaId) => ReplicaId(7),
            () if mutant!(IdOfTheUser) => {
                let user = std::env::var("USER").unwrap_or_default();
                ReplicaId(user.bytes().fold(1 << 40, |id, b| id * 31 + u64::from(b)))
            }
            () => ReplicaId(runtime.replica_id()?),
        };
        let meta = upkeep::bind(&store, config.space.clone(), config.ranges).await?;
        let counts = store.counts().await?;
        let store = Arc::new(store);
        let feed = Arc::new(Feed::new(Status::initial(counts, meta.last_synced_ms)));
        let (commands, inbox) = mpsc::unbounded();
        let engine = Engine::new(Settings {
            space: config.space,
            me: replica,
            client: config.software,
        });
        let driver = Driver::new(
            Arc::clone(&store),
            transport,
            runtime.clone(),
            engine,
            replica,
            Arc::clone(&feed),
            config.auth,
            inbox,
        );
        let clock = runtime.clone();
        let client = Client {
            inner: Arc::new(Inner {
                store,
                replica,
                feed,
                commands,
                clock: Clock(Box::new(move || clock.moment().wall_ms)),
            }),
        };
        client.command(Command::Online(config.online));
        runtime.spawn(Box::pin(driver.run()));
        Ok(client)
    }

    /// The replica id of this opening.
    pub fn replica(&self) -> ReplicaId {
        self.inner.replica
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.inner.store
    }

    fn command(&self, command: Command) {
        // a closed client has nobody to tell
        let _ = self.inner.commands.unbounded_send(command);
    }

    // ---- writes ----

    /// Sets a value. Durable when this returns.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written, unless it says
    /// [`StoreError::InDoubt`].
    pub async fn put(&self, key: Key, value: impl Into<Bytes>) -> Result<WriteHandle, WriteError> {
        self.batch(vec![Edit::Put(key, value.into())]).await
    }

    /// Deletes whatever is under the key. Durable when this returns.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written, unless it says
    /// [`StoreError::InDoubt`].
    pub async fn delete(&self, key: Key) -> Result<WriteHandle, WriteError> {
        self.batch(vec![Edit::Delete(key)]).await
    }

    /// Several edits that become visible, durable and pushed together; of two
    /// edits of a key the later one counts.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written, unless it says
    /// [`StoreError::InDoubt`].
    pub async fn batch(&self, edits: Vec<Edit>) -> Result<WriteHandle, WriteError> {
        let reads = Reads::keys(edits.iter().map(|e| e.key().clone()));
        self.update(reads, move |_| Ok::<_, WriteError>(edits))
            .await
    }

    /// Reads, decides and writes in one transaction. `reads` must name every
    /// key that is written.
    ///
    /// # Errors
    /// What `decide` refused with, or a [`WriteError`]; nothing was written, unless it says
    /// [`StoreError::InDoubt`].
    pub async fn update<E, F>(&self, reads: Reads, decide: F) -> Result<WriteHandle, E>
    where
        E: From<WriteError> + crate::platform::MaybeSend + 'static,
        F: FnOnce(&View) -> Result<Vec<Edit>, E> + crate::platform::MaybeSend + 'static,
    {
        if mutant!(WritesNeedServer) && self.status().connection != Connection::Online {
            return Err(WriteError::Store(StoreError::Io("offline".into())).into());
        }
        let author = Author {
            replica: self.inner.replica,
            now_ms: (self.inner.clock.0)(),
        };
        let feed = Arc::clone(&self.inner.feed);
        let result = self
            .inner
            .store
            .transact(reads, move |view| {
                let edits = match decide(view) {
                    Ok(edits) => edits,
                    Err(e) => return (StoreChanges::default(), Err(e)),
                };
                let (changes, written) = edit::decide(view, author, edits);
                // before the commit: the fate may be known right after it
                let handle = written.map(|w| WriteHandle {
                    verdict: feed.await_fate(&changes.put_writes),
                    ids: w.ids,
                    keys: w.keys,
                });
                (changes, handle.map_err(E::from))
            })
            .await;
        let handle = match result {
            Ok(handle) => handle?,
            Err(e) => {
                self.inner.feed.forget_abandoned();
                return Err(WriteError::from(self.failed(e)).into());
            }
        };
        if !handle.ids.is_empty() {
            self.wrote(&handle);
        }
        Ok(handle)
    }

    /// A change that failed may be there all the same, and then it is to be
    /// shown and counted, and sent by whichever opening syncs.
    fn failed(&self, e: StoreError) -> StoreError {
        if matches!(e, StoreError::InDoubt(_)) {
            self.inner.feed.event(Event::Missed);
            self.hear(Event::Missed);
        }
        e
    }

    fn wrote(&self, handle: &WriteHandle) {
        // the driver counts exactly, a moment later
        let written = handle.ids.len() as u64;
        self.inner.feed.update_status(|s| s.pending += written);
        self.inner.feed.keys_changed(&handle.keys);
        self.inner.feed.event(Event::Wrote {
            ids: handle.ids.clone(),
            keys: handle.keys.clone(),
        });
        self.command(Command::Wrote);
    }

    // ---- reads ----

    /// What is under a key; `None` when there is nothing or it is deleted.
    ///
    /// # Errors
    /// The store failed.
    pub async fn get(&self, key: &Key) -> Result<Option<Row>, StoreError> {
        let (rows, _) = self.list(&KeyRange::single(key), None, 1).await?;
        Ok(rows.into_iter().next())
    }

    /// Rows of a range in key order, above `after`; with the key to go on
    /// from, `None` at the end. A page covers at most `limit` synced records
    /// and whatever else lies between them, so it may have more rows than
    /// that, or fewer.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<(Vec<Row>, Option<Key>), StoreError> {
        let mut page = self.inner.store.page(range, after, limit).await?;
        if mutant!(WritesKeptToOneself) {
            let me = self.inner.replica;
            page.writes.retain(|w| w.record.version.replica == me);
        }
        let (rows, damaged) = row::rows(&page);
        if !damaged.is_empty() {
            self.command(Command::Damaged(damaged));
        }
        Ok((rows, page.next))
    }

    /// All rows of a range.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list_all(&self, range: &KeyRange) -> Result<Vec<Row>, StoreError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let (rows, next) = self.list(range, after.as_ref(), 5_000).await?;
            all.extend(rows);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Keys of the range that change from now on.
    pub fn subscribe(&self, range: KeyRange) -> Subscription<RangeChanges> {
        self.inner.feed.changes(range)
    }

    // ---- what has not arrived ----

    /// The writes that the server has not taken, in order, above `after`.
    ///
    /// # Errors
    /// The store failed.
    pub async fn pending(
        &self,
        after: Option<WriteId>,
        limit: usize,
    ) -> Result<Vec<PendingWrite>, StoreError> {
        let attempted = self
            .inner
            .store
            .transact(Reads::meta(), |view| {
                (StoreChanges::default(), view.meta.attempted)
            })
            .await?;
        let limit = if mutant!(PendingUntold) { 0 } else { limit };
        let writes = self.inner.store.writes(after, limit).await?;
        let pending = |w| PendingWrite::new(w, attempted);
        Ok(writes.into_iter().map(pending).collect())
    }

    /// Sends a refused write, and the rest of its batch, once more; one that
    /// waits already goes on waiting. Returns whether there was one.
    ///
    /// # Errors
    /// The store failed; nothing changed, unless it says [`StoreError::InDoubt`].
    pub async fn retry(&self, id: WriteId) -> Result<bool, StoreError> {
        let found = edit::retry(&*self.inner.store, id).await;
        let found = found.map_err(|e| self.failed(e))?;
        let there = found.is_some();
        if let Some(keys) = found.filter(|keys| !keys.is_empty()) {
            self.changed(keys);
            self.command(Command::Wrote);
        }
        Ok(there)
    }

    /// Gives up a write, and the rest of its batch. If it was already sent, it
    /// may have reached the server all the same, and then comes back. Returns
    /// whether there was one.
    ///
    /// # Errors
    /// The store failed; nothing changed, unless it says [`StoreError::InDoubt`].
    pub async fn discard(&self, id: WriteId) -> Result<bool, StoreError> {
        let settled = edit::discard(&*self.inner.store, id).await;
        let settled = settled.map_err(|e| {
            self.inner.feed.give_up(id);
            self.failed(e)
        })?;
        for s in &settled {
            self.inner.feed.settle(s);
            self.inner.feed.event(Event::Settled(s.clone()));
        }
        if !settled.is_empty() {
            self.changed(settled.iter().map(|s| s.key.clone()).collect());
            self.command(Command::Recount);
        }
        Ok(!settled.is_empty())
    }

    /// Records that the server lost and does not get again from here, each with
    /// the reason.
    ///
    /// # Errors
    /// The store failed.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        let reads = Reads {
            all_quarantined: true,
            ..Reads::default()
        };
        self.inner
            .store
            .transact(reads, |view| {
                let told = view
                    .quarantine
                    .values()
                    .filter(|_| !mutant!(QuarantineUntold));
                let records = told.cloned().collect();
                (StoreChanges::default(), records)
            })
            .await
    }

    /// Has a record in quarantine offered to the server again, with its version
    /// unchanged: e.g. with a token that allows more. `None` where there is no
    /// such record. Refused again, it is a refused write.
    ///
    /// # Errors
    /// The store failed; nothing changed, unless it says [`StoreError::InDoubt`].
    pub async fn offer_again(&self, key: Key) -> Result<Option<WriteHandle>, StoreError> {
        let feed = Arc::clone(&self.inner.feed);
        let reads = Reads::keys([key.clone()]);
        let decide = move |view: &View| {
            let changes = aside::offer_again(view, &key);
            let ids: Vec<_> = changes.put_writes.iter().map(|w| w.id).collect();
            let handle = (!ids.is_empty()).then(|| WriteHandle {
                verdict: feed.await_fate(&changes.put_writes),
                ids,
                keys: vec![key],
            });
            (changes, handle)
        };
        let found = self.inner.store.transact(reads, decide).await;
        let found = found.map_err(|e| {
            self.inner.feed.forget_abandoned();
            self.failed(e)
        })?;
        if let Some(handle) = &found {
            self.wrote(handle);
        }
        Ok(found)
    }

    /// Gives a record in quarantine up. Returns whether there was one.
    ///
    /// # Errors
    /// The store failed; nothing changed, unless it says [`StoreError::InDoubt`].
    pub async fn drop_quarantined(&self, key: Key) -> Result<bool, StoreError> {
        let reads = Reads::keys([key.clone()]);
        let gone = key.clone();
        let decide = move |view: &View| {
            let changes = aside::drop(view, &gone);
            let there = !changes.is_empty();
            (changes, there)
        };
        let there = self.inner.store.transact(reads, decide).await;
        let there = there.map_err(|e| self.failed(e))?;
        if there {
            self.changed(vec![key]);
            self.command(Command::Recount);
        }
        Ok(there)
    }

    fn changed(&self, keys: Vec<Key>) {
        self.inner.feed.keys_changed(&keys);
        self.inner.feed.event(Event::Changed(keys));
    }

    // ---- sync ----

    /// The status now.
    pub fn status(&self) -> Status {
        self.inner.feed.status()
    }

    /// The status now, and each time it changes. A slow reader misses what is
    /// no longer true.
    pub fn statuses(&self) -> Subscription<LatestStatus> {
        self.inner.feed.statuses()
    }

    /// Everything that happens from now on.
    pub fn events(&self) -> Subscription<EventQueue> {
        self.inner.feed.events()
    }

    /// How much waits, was refused, is in doubt or quarantined, as the store
    /// has it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        self.inner.store.counts().await
    }

    /// Switches syncing on or off. Among several openings of a store at most
    /// one should be on; the one that was switched on last wins. Also tries
    /// again at once, e.g. after the user signed in.
    pub fn set_online(&self, online: bool) {
        self.command(Command::Online(online));
    }

    /// Syncs now, and resolves when both sides hold the same and nothing
    /// waits. The caller decides how long to wait.
    ///
    /// # Errors
    /// [`Interrupted`] says why not; syncing goes on in the background.
    pub async fn sync(&self) -> Result<(), Interrupted> {
        let (done, result) = oneshot::channel();
        self.command(Command::Sync(done));
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Hashes everything stored here again, compares it with the server, heals
    /// what differs and tells what was found.
    ///
    /// # Errors
    /// [`Interrupted`]: e.g. the server cannot be reached.
    pub async fn verify(&self) -> Result<Report, Interrupted> {
        let (done, result) = oneshot::channel();
        self.command(Command::Verify(done));
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Takes an event that another opening of the same store emitted: passes
    /// on what it changed, resolves the writes that it settled, and sends what
    /// it wrote if this is the opening that syncs. [`Event::Missed`] says that
    /// events were lost, e.g. because that opening came to its end: what the
    /// store tells then counts.
    pub fn hear(&self, event: Event) {
        let feed = &self.inner.feed;
        match event {
            Event::Wrote { keys, .. } => {
                feed.keys_changed(&keys);
                self.command(Command::Wrote);
            }
            Event::Changed(keys) | Event::Damaged(keys) => {
                feed.keys_changed(&keys);
                self.command(Command::Recount);
            }
            Event::Settled(settled) => {
                feed.settle(&settled);
                self.command(Command::Recount);
            }
            Event::Status(status) => feed.update_status(|own| *own = status),
            Event::Missed => {
                feed.everything_changed();
                self.command(Command::Missed);
            }
            Event::Healed(_) | Event::InDoubt(_) | Event::Verified(_) => {}
        }
    }

    /// Ends syncing and all subscriptions. What waits stays in the store and
    /// is sent by the next opening, unless `discard_pending` gives it up.
    /// Returns how many writes still wait.
    ///
    /// # Errors
    /// The store failed; the client is closed all the same.
    pub async fn close(self, discard_pending: bool) -> Result<u64, StoreError> {
        let (done, closed) = oneshot::channel();
        self.command(Command::Close(done));
        // an error means that it was closed before
        let _ = closed.await;
        if discard_pending {
            loop {
                let page = self.inner.store.writes(None, 1_000).await?;
                let Some(first) = page.first() else { break };
                edit::discard(&*self.inner.store, first.id).await?;
            }
        }
        let counts = self.inner.store.counts().await?;
        Ok(counts.waiting + counts.rejected)
    }
}

fn closed() -> Interrupted {
    Interrupted(Closed.to_string())
}
