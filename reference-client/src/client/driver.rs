//! Carries out what the engine asks for, and tells it what happened. One task;
//! knows the store, the transport and the runtime, and no rule of sync.

use super::feed::{Awaited, Event as Told, Feed};
use super::{AuthError, Authenticate, TokenRequest};
use crate::engine::{
    Answer, CallId, Effect, Engine, Event, Notice, Phase, Report, Request, Streamed, TokenNews,
};
use crate::platform::{BoxFuture, BoxStream, Runtime};
use crate::replica::edit::Author;
use crate::replica::ops::{self, Op};
use crate::replica::{Fate, Settled};
use crate::store::{Changes, Reads, Store, StoreError, View, WriteState};
use crate::transport::{CallError, CallMetadata, Token, Transport};
use futures::channel::{mpsc, oneshot};
use futures::future::MaybeDone;
use futures::{FutureExt, StreamExt, stream};
use gosync_proto::{Key, Record, ReplicaId, mutant};
use std::collections::VecDeque;
use std::future::Future;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// What a client asks of its driver.
#[derive(Debug)]
pub(super) enum Command {
    Online(bool),
    Sync(oneshot::Sender<Result<(), Interrupted>>),
    Verify(oneshot::Sender<Result<Report, Interrupted>>),
    Wrote,
    Recount,
    /// Another opening may have synced without telling, or the store kept a
    /// change without saying so.
    Missed,
    Damaged(Vec<Key>),
    Close(oneshot::Sender<()>),
}

/// The attempt to sync did not come to its end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not in sync: {0}")]
pub struct Interrupted(pub String);

type Call = BoxFuture<'static, Result<Answer, CallError>>;

pub(super) struct Driver<S, T, R> {
    pub store: Arc<S>,
    pub transport: Arc<T>,
    pub runtime: R,
    pub engine: Engine,
    pub replica: ReplicaId,
    pub feed: Arc<Feed>,
    pub auth: Option<Authenticate>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    token: Option<Token>,
    /// Goes on while the store works, so it may be done before anybody looks.
    call: Option<(CallId, MaybeDone<Call>)>,
    stream: Option<(CallId, BoxStream<'static, Streamed>)>,
    authenticating: Option<BoxFuture<'static, Result<Token, AuthError>>>,
    syncs: Vec<oneshot::Sender<Result<(), Interrupted>>>,
    verifications: Vec<oneshot::Sender<Result<Report, Interrupted>>>,
    /// The store's counts may have changed,
    recount: bool,
    /// and writes may have been settled that nobody told of.
    untold: bool,
    /// When they are counted next, if they changed.
    recount_at_ms: u64,
    /// Who is asked first what is new.
    turn: Source,
}

/// Where news comes from. Each is asked first in its turn: on a slow machine
/// one of them always has some, and the others would never be heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Commands,
    Call,
    Token,
    Timer,
    Stream,
}

impl Source {
    const COUNT: usize = 5;

    fn next(self) -> Source {
        match self {
            Source::Commands => Source::Call,
            Source::Call => Source::Token,
            Source::Token => Source::Timer,
            Source::Timer => Source::Stream,
            Source::Stream => Source::Commands,
        }
    }
}

/// How long a change of the counts may wait to be told. Counting takes a look
/// at all that waits; while thousands of writes are pushed, it is not done for
/// each answer,
const RECOUNT_MS: u64 = 50;
/// and where it takes long, the more seldom: it takes one part of so many of
/// the time,
const RECOUNT_SHARE: u64 = 50;
/// but no longer between two counts than somebody likes to wait for news.
const RECOUNT_MOST_MS: u64 = 1_000;

enum Input {
    Command(Command),
    Event(Event),
    /// A change of the counts has waited long enough.
    Count,
    /// Nobody holds the client any more.
    Abandoned,
}

impl<S: Store, T: Transport, R: Runtime> Driver<S, T, R> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        store: Arc<S>,
        transport: T,
        runtime: R,
        engine: Engine,
        replica: ReplicaId,
        feed: Arc<Feed>,
        auth: Option<Authenticate>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Driver {
            store,
            transport: Arc::new(transport),
            runtime,
            engine,
            replica,
            feed,
            auth,
            commands,
            token: None,
            call: None,
            stream: None,
            authenticating: None,
            syncs: Vec::new(),
            verifications: Vec::new(),
            recount: false,
            untold: false,
            recount_at_ms: 0,
            turn: Source::Commands,
        }
    }

    pub(super) async fn run(mut self) {
        let closed = loop {
            if self.recount && self.recount_at_ms <= self.runtime.moment().mono_ms {
                self.count().await;
            }
            match self.next_input().await {
                Input::Count => self.count().await,
                Input::Abandoned => break None,
                Input::Command(Command::Close(done)) => break Some(done),
                Input::Command(command) => self.obey(command).await,
                Input::Event(event) => self.feed_engine(event).await,
            }
        };
        self.feed_engine(Event::Close).await;
        self.feed.close();
        if let Some(done) = closed {
            let _ = done.send(());
        }
    }

    async fn next_input(&mut self) -> Input {
        let now = self.runtime.moment().mono_ms;
        let sleep_until = |at: u64| self.runtime.sleep(at.saturating_sub(now));
        let mut timer = self.engine.wake_at().map(sleep_until);
        let count_at = self.recount.then_some(self.recount_at_ms);
        let mut count = count_at.map(sleep_until);
        poll_fn(|cx| {
            for _ in 0..Source::COUNT {
                let source = self.turn;
                self.turn = source.next();
                if let Poll::Ready(input) = self.poll_source(source, cx, timer.as_mut()) {
                    return Poll::Ready(input);
                }
            }
            if let Some(count) = &mut count
                && count.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Input::Count);
            }
            Poll::Pending
        })
        .await
    }

    fn poll_source(
        &mut self,
        source: Source,
        cx: &mut Context<'_>,
        timer: Option<&mut BoxFuture<'static, ()>>,
    ) -> Poll<Input> {
        let event = match source {
            Source::Commands => {
                let command = ready!(self.commands.poll_next_unpin(cx));
                return Poll::Ready(command.map_or(Input::Abandoned, Input::Command));
            }
            Source::Call => self.poll_call(cx),
            Source::Token => self.poll_token(cx),
            Source::Timer => match timer {
                Some(timer) => timer.as_mut().poll(cx).map(|()| Event::Tick),
                None => Poll::Pending,
            },
            Source::Stream => self.poll_stream(cx),
        };
        event.map(Input::Event)
    }

    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some((id, call)) = &mut self.call
            && call.poll_unpin(cx).is_ready()
            && let Some(answer) = Pin::new(call).take_output()
        {
            let id = *id;
            self.call = None;
            return Poll::Ready(Event::Answered(id, Box::new(answer)));
        }
        Poll::Pending
    }

    fn poll_token(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(asking) = &mut self.authenticating else {
            return Poll::Pending;
        };
        let token = ready!(asking.as_mut().poll(cx));
        self.authenticating = None;
        Poll::Ready(Event::Token(match token {
            Ok(token) => {
                self.token = Some(token);
                TokenNews::Ready
            }
            Err(AuthError::SignIn) => TokenNews::SignIn,
            Err(AuthError::Unavailable(why)) => TokenNews::Unavailable(why),
        }))
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Some((id, messages)) = &mut self.stream else {
            return Poll::Pending;
        };
        let id = *id;
        let message = ready!(messages.as_mut().poll_next(cx)).unwrap_or(Streamed::Ended);
        if matches!(message, Streamed::Ended | Streamed::Failed(_)) {
            self.stream = None;
        }
        Poll::Ready(Event::Streamed(id, Box::new(message)))
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Online(online) => self.feed_engine(Event::Online(online)).await,
            Command::Sync(done) => {
                self.syncs.push(done);
                self.feed_engine(Event::Sync).await;
            }
            Command::Verify(done) => {
                self.verifications.push(done);
                self.feed_engine(Event::Verify).await;
            }
            Command::Wrote => {
                self.recount = true;
                self.feed_engine(Event::Wrote).await;
            }
            Command::Recount => self.recount = true,
            Command::Missed => {
                self.recount = true;
                self.untold = true;
                self.feed_engine(Event::Wrote).await;
            }
            Command::Damaged(keys) => self.feed_engine(Event::Damaged(keys)).await,
            // ends the loop
            Command::Close(_) => {}
        }
    }

    /// Tells the engine, and does what it asks, until there is nothing more.
    async fn feed_engine(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.engine.handle(event, self.runtime.moment()) {
                match effect {
                    Effect::Call {
                        id,
                        version,
                        request,
                    } => self.call(id, version, *request),
                    Effect::Cancel(id) => self.cancel(id),
                    Effect::Store(op) => {
                        let author = Author {
                            replica: self.replica,
                            now_ms: self.runtime.moment().wall_ms,
                        };
                        let reply = self.work(author, op).await;
                        // an answer that settles nothing but offers has no
                        // other news to count anew for; what failed may have
                        // been done all the same
                        self.recount |= matches!(reply, Ok(ops::Reply::Settled(..)) | Err(_));
                        if matches!(reply, Err(StoreError::InDoubt(_))) {
                            self.untold = true;
                            self.feed.everything_changed();
                            self.feed.event(Told::Missed);
                        }
                        events.push_back(Event::Stored(Box::new(reply)));
                    }
                    Effect::Authenticate { refused } => {
                        events.extend(self.authenticate(refused));
                    }
                    Effect::Notify(notice) => {
                        if notice == Notice::InSync && self.recount {
                            // whoever waited for it looks at the counts next
                            self.count().await;
                        }
                        self.tell(notice);
                    }
                }
            }
        }
    }

    /// Has the store do something, and lets the network go on meanwhile.
    async fn work(&mut self, author: Author, op: Op) -> Result<ops::Reply, StoreError> {
        let mut work = pin!(ops::run(&*self.store, author, op));
        let call = &mut self.call;
        poll_fn(|cx| {
            if let Some((_, call)) = call {
                // its answer waits until the engine has heard of the store's
                let _ = call.poll_unpin(cx);
            }
            work.as_mut().poll(cx)
        })
        .await
    }

    fn authenticate(&mut self, refused: bool) -> Option<Event> {
        if refused {
            self.token = None;
        }
        if self.token.is_some() {
            return Some(Event::Token(TokenNews::Ready));
        }
        match &self.auth {
            Some(auth) => {
                self.authenticating = Some(auth.call(TokenRequest { refused }));
                None
            }
            None if refused => Some(Event::Token(TokenNews::SignIn)),
            // a server without authentication
            None => Some(Event::Token(TokenNews::Ready)),
        }
    }

    fn cancel(&mut self, id: CallId) {
        if self.call.as_ref().is_some_and(|(call, _)| *call == id) {
            self.call = None;
        }
        if self
            .stream
            .as_ref()
            .is_some_and(|(stream, _)| *stream == id)
        {
            self.stream = None;
        }
    }

    fn call(&mut self, id: CallId, version: Option<u32>, request: Request) {
        let metadata = CallMetadata {
            token: self.token.clone(),
            version,
        };
        let transport = Arc::clone(&self.transport);
        let call: Call = match request {
            Request::Hello(r) => {
                Box::pin(async move { transport.hello(&metadata, r).await.map(Answer::Hello) })
            }
            Request::Push(r) => {
                Box::pin(async move { transport.push(&metadata, r).await.map(Answer::Push) })
            }
            Request::Reconcile(r) => Box::pin(async move {
                let answer = transport.reconcile(&metadata, r).await;
                answer.map(Answer::Reconcile)
            }),
            Request::Watch(r) => {
                let opening = async move { transport.watch(&metadata, r).await };
                self.stream = Some((id, messages(opening, Streamed::Watch)));
                return;
            }
            Request::Snapshot(r) => {
                let opening = async move { transport.snapshot(&metadata, r).await };
                self.stream = Some((id, messages(opening, Streamed::Snapshot)));
                return;
            }
        };
        self.call = Some((id, MaybeDone::Future(call)));
    }

    async fn count(&mut self) {
        let began_ms = self.runtime.moment().mono_ms;
        let counts = match self.find_fates().await {
            Ok(()) => self.store.counts().await,
            Err(e) => Err(e),
        };
        let ended_ms = self.runtime.moment().mono_ms;
        let took_ms = ended_ms.saturating_sub(began_ms);
        let pause_ms = match counts {
            Ok(counts) => {
                self.recount = false;
                self.feed.update_status(|status| status.count(counts));
                (took_ms * RECOUNT_SHARE).clamp(RECOUNT_MS, RECOUNT_MOST_MS)
            }
            // it is reported by the store's next operation, and asked again
            Err(_) => {
                self.recount = true;
                RECOUNT_MOST_MS
            }
        };
        self.recount_at_ms = ended_ms.saturating_add(pause_ms);
    }

    /// Looks for what was settled untold, by another opening or before the
    /// store failed.
    async fn find_fates(&mut self) -> Result<(), StoreError> {
        if !self.untold {
            return Ok(());
        }
        let awaited = self.feed.awaited();
        let reads = Reads {
            keys: awaited.iter().map(|a| a.key.clone()).collect(),
            writes: awaited.iter().map(|a| a.id).collect(),
            ..Reads::default()
        };
        let found = self.store.transact(reads, move |view| {
            let settled = awaited.into_iter().filter_map(|a| {
                let fate = fate(view, &a)?;
                let Awaited { id, key, .. } = a;
                Some(Settled { id, key, fate })
            });
            (Changes::default(), settled.collect::<Vec<_>>())
        });
        for settled in found.await? {
            self.feed.settle(&settled);
        }
        self.untold = false;
        Ok(())
    }

    fn tell(&mut self, notice: Notice) {
        match notice {
            Notice::State(state) => {
                if state.phase == Phase::NeedsAuth {
                    self.token = None;
                }
                self.feed.update_status(|status| status.follow(state));
            }
            Notice::Changed(outcome) => {
                self.recount = true;
                for settled in outcome.settled {
                    self.feed.settle(&settled);
                    self.feed.event(Told::Settled(settled));
                }
                if !outcome.changed.is_empty() {
                    self.feed.keys_changed(&outcome.changed);
                    self.feed.event(Told::Changed(outcome.changed));
                }
            }
            Notice::Healed(healed) => {
                self.recount = true;
                self.feed.event(Told::Healed(healed));
            }
            Notice::Damaged(keys) => {
                self.feed.keys_changed(&keys);
                self.feed.event(Told::Damaged(keys));
            }
            Notice::InDoubt(ids) => self.feed.event(Told::InDoubt(ids)),
            Notice::InSync => {
                for done in self.syncs.drain(..) {
                    let _ = done.send(Ok(()));
                }
            }
            Notice::Interrupted(why) => {
                for done in self.syncs.drain(..) {
                    let _ = done.send(Err(Interrupted(why.clone())));
                }
                for done in self.verifications.drain(..) {
                    let _ = done.send(Err(Interrupted(why.clone())));
                }
            }
            Notice::Verified(report) => {
                self.feed.event(Told::Verified(report.clone()));
                for done in self.verifications.drain(..) {
                    let _ = done.send(Ok(report.clone()));
                }
            }
        }
    }
}

/// A stream's messages, its opening included.
fn messages<M, F>(opening: F, wrap: fn(M) -> Streamed) -> BoxStream<'static, Streamed>
where
    M: crate::platform::MaybeSend + 'static,
    F: Future<Output = Result<crate::transport::Answers<M>, CallError>>
        + crate::platform::MaybeSend
        + 'static,
{
    let opened = stream::once(opening).flat_map(move |answers| {
        let answers = answers.map(|a| match mutant!(MessagesByThrees) {
            true => Box::pin(a.chunks(3).flat_map(stream::iter)),
            false => a,
        });
        let messages: BoxStream<'static, Streamed> = match answers {
            Ok(answers) => Box::pin(answers.map(move |m| match m {
                Ok(message) => wrap(message),
                Err(error) => Streamed::Failed(error),
            })),
            Err(error) => Box::pin(stream::once(async move { Streamed::Failed(error) })),
        };
        messages
    });
    Box::pin(opened)
}

/// What has become of a write, as far as the store tells; `None` while it waits.
/// Where it is gone, what stands under its key says how.
fn fate(view: &View, awaited: &Awaited) -> Option<Fate> {
    match view.writes.get(&awaited.id).map(|w| &w.state) {
        Some(WriteState::Waiting) => return None,
        Some(WriteState::Rejected { reason, detail }) => {
            return Some(Fate::Rejected {
                reason: *reason,
                detail: detail.clone(),
            });
        }
        None => {}
    }
    let stands = view.clean.get(&awaited.key).map(|s| &s.record);
    Some(match stands {
        Some(record) if record.version == awaited.version => Fate::Applied,
        _ if awaited.given_up => Fate::Discarded,
        // of what is deleted, nothing need be left
        _ if awaited.deletes && stands.is_none_or(Record::is_tombstone) => Fate::Applied,
        // or it got a new version before, which nothing tells
        _ => Fate::Superseded,
    })
}

#[cfg(test)]
mod tests {
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
        async fn writes(
            &self,
            after: Option<WriteId>,
            limit: usize,
        ) -> Result<Vec<Write>, StoreError> {
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
            let point =
                gosync_proto::history::Cursor::origin(gosync_proto::history::Epoch(1)).point;
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
}
