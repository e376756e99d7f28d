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
mod tests;
