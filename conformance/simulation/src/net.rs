//! The simulated network: between each device and the server lies a link that
//! delays, loses, repeats and resets. Knows the five calls only as something
//! to be carried; what they mean is the server's.
//!
//! A request that has left its device is carried on whatever becomes of the
//! device, and may arrive after its caller gave up: late pushes are real.

use crate::chance::Chance;
use crate::executor::{Executor, Process};
use crate::ledger::Ledger;
use crate::server::{Running, Server, ServerClock};
use crate::trace::Trace;
use crate::traffic::{Cargo, Traffic};
use futures::channel::{mpsc, oneshot};
use futures::{SinkExt as _, StreamExt as _, stream};
use gosync_client::transport::{Answers, CallError, CallMetadata, Cause, Transport};
use gosync_proto::wire::{self, watch_response};
use gosync_proto::{Reason, SpaceId};
use gosync_server::rpc::status::to_status;
use gosync_server::service::{Access, Refusal, Service};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::future::pending;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a link does to what passes. Shares are of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Messages that never arrive.
    pub lost: u64,
    /// Requests that arrive twice.
    pub twice: u64,
    /// Messages that take up to `longest_ms`; others take up to 50 ms.
    pub slow: u64,
    /// The longest that anything takes, milliseconds.
    pub longest_ms: u64,
    /// Streams that are reset at a message.
    pub reset: u64,
}

impl Weather {
    /// Nothing happens but a little delay.
    pub const CALM: Weather = Weather {
        lost: 0,
        twice: 0,
        slow: 0,
        longest_ms: 50,
        reset: 0,
    };
}

/// What a link does not carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Carries all.
    No,
    /// Requests arrive, and nothing comes back.
    HalfOpen,
    /// Nothing either way.
    Both,
}

struct State {
    weather: Weather,
    /// Devices that cannot reach the server or be reached, and are not told so.
    cut: Vec<Cut>,
    /// When each device made the calls of the last [`BUSY_MS`], since one of
    /// them told the server something new; and when it was sent the messages
    /// of streams.
    calls: BTreeMap<usize, VecDeque<u64>>,
    messages: BTreeMap<usize, VecDeque<u64>>,
    busiest: Busiest,
    total_calls: u64,
    /// The store of each device.
    homes: BTreeMap<usize, usize>,
    /// By device, while somebody wants to know.
    traffic: Option<BTreeMap<usize, Traffic>>,
}

/// All links of a world. Clones are the same network.
#[derive(Clone)]
pub struct Net {
    state: Arc<Mutex<State>>,
    executor: Executor,
    process: Process,
    chance: Chance,
    server: Server,
    ledgers: Arc<BTreeMap<String, Ledger>>,
    trace: Trace,
}

/// What one device did within [`BUSY_MS`], at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busiest {
    /// Calls that it made, none of which told the server anything new.
    pub calls: usize,
    /// Messages of streams that were sent to it.
    pub messages: usize,
}

/// Long enough to tell a loop, which waits for its answers like anybody, from
/// a busy moment.
pub const BUSY_MS: u64 = 10_000;

/// Adds the present to times, forgets those of long ago, and counts.
fn one_more(times: &mut VecDeque<u64>, now_ms: u64) -> usize {
    let old = times.partition_point(|at| at + BUSY_MS <= now_ms);
    times.drain(..old);
    times.push_back(now_ms);
    times.len()
}

/// Messages of a stream that are under way at once.
const WINDOW: usize = 2;
/// As the server's shell does: a changed space gets a checkpoint after so many
/// heartbeats.
const HEARTBEATS_PER_CHECKPOINT: u32 = 4;
/// gRPC's UNAVAILABLE.
const UNAVAILABLE: i32 = 14;

impl Net {
    /// Links of so many devices.
    pub fn new(
        executor: Executor,
        chance: Chance,
        server: Server,
        devices: usize,
        ledgers: BTreeMap<String, Ledger>,
        trace: Trace,
    ) -> Net {
        Net {
            state: Arc::new(Mutex::new(State {
                weather: Weather::CALM,
                cut: vec![Cut::No; devices],
                calls: BTreeMap::new(),
                messages: BTreeMap::new(),
                busiest: Busiest::default(),
                total_calls: 0,
                homes: BTreeMap::new(),
                traffic: None,
            })),
            process: executor.new_process(),
            executor,
            chance,
            server,
            ledgers: Arc::new(ledgers),
            trace,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Cuts a device off, or lets it back.
    pub fn cut(&self, device: usize, cut: Cut) {
        if let Some(c) = self.state().cut.get_mut(device) {
            *c = cut;
        }
    }

    /// How busy the busiest device was since this was asked last, and all
    /// calls.
    pub fn take_busiest(&self) -> (Busiest, u64) {
        let mut state = self.state();
        (
            std::mem::take(&mut state.busiest),
            std::mem::take(&mut state.total_calls),
        )
    }

    /// A device has its store there.
    pub fn set_home(&self, device: usize, store: usize) {
        self.state().homes.insert(device, store);
    }

    fn home_of(&self, device: usize) -> Option<usize> {
        self.state().homes.get(&device).copied()
    }

    /// Begins to count what passes.
    pub fn meter(&self) {
        self.state().traffic = Some(BTreeMap::new());
    }

    /// What passed since, by device; counting ends.
    pub fn take_traffic(&self) -> BTreeMap<usize, Traffic> {
        self.state().traffic.take().unwrap_or_default()
    }

    fn count_cargo<M: Cargo>(&self, device: usize, message: &M) {
        if let Some(traffic) = &mut self.state().traffic {
            traffic.entry(device).or_default().count(message);
        }
    }

    /// The transport of a device.
    pub fn link(&self, device: usize) -> Link {
        Link {
            net: self.clone(),
            device,
        }
    }

    fn is_cut(&self, device: usize) -> bool {
        self.state().cut.get(device) == Some(&Cut::Both)
    }

    fn hears_nothing(&self, device: usize) -> bool {
        matches!(
            self.state().cut.get(device),
            Some(Cut::Both | Cut::HalfOpen)
        )
    }

    fn count(&self, device: usize) {
        let now = self.executor.now_ms();
        let mut state = self.state();
        let calls = one_more(state.calls.entry(device).or_default(), now);
        state.busiest.calls = state.busiest.calls.max(calls);
        state.total_calls += 1;
    }

    fn count_message(&self, device: usize) {
        let now = self.executor.now_ms();
        let mut state = self.state();
        let messages = one_more(state.messages.entry(device).or_default(), now);
        state.busiest.messages = state.busiest.messages.max(messages);
    }

    fn delay(&self) -> u64 {
        let weather = self.state().weather;
        match self.chance.permille(weather.slow) {
            true => self.chance.between(50, weather.longest_ms),
            false => self.chance.between(1, 50),
        }
    }

    fn is_lost(&self, device: usize) -> bool {
        let lost = self.state().weather.lost;
        self.is_cut(device) || self.chance.permille(lost)
    }

    /// What a caller sees of a message that was lost: an error after a while,
    /// or nothing at all.
    async fn silence(&self) -> CallError {
        if self.chance.permille(500) {
            self.executor.sleep(self.chance.between(1, 5_000)).await;
            return unavailable("the connection was lost");
        }
        pending().await
    }

    fn note(&self, device: usize, what: std::fmt::Arguments<'_>) {
        self.trace
            .line(self.executor.now_ms(), format_args!("d{device} {what}"));
    }
}

fn unavailable(why: &str) -> CallError {
    CallError::new(Cause::Status(UNAVAILABLE), why)
}

/// One device's way to the server.
#[derive(Clone)]
pub struct Link {
    net: Net,
    device: usize,
}

impl Link {
    fn serve<Res>(
        &self,
        call: impl FnOnce(&Service, u64) -> Result<Res, Refusal>,
    ) -> Result<Res, CallError> {
        let Some(Running { service, clock, .. }) = self.net.server.running() else {
            return Err(unavailable("nobody listens there"));
        };
        let now = clock.wall_ms();
        call(&service, now).map_err(|refusal| refused(&refusal, &service, now))
    }

    /// One request and its answer. What happens at the server is written down
    /// by `tell`.
    async fn unary<Req, Res>(
        &self,
        request: Req,
        call: fn(&Service, Req, u64) -> Result<Res, Refusal>,
        tell: fn(&Link, &Req, &Result<Res, CallError>),
    ) -> Result<Res, CallError>
    where
        Req: Cargo + Clone + Send + 'static,
        Res: Cargo + Send + 'static,
    {
        let net = self.net.clone();
        net.count(self.device);
        net.count_cargo(self.device, &request);
        let (answer, answered) = oneshot::channel();
        let link = self.clone();
        net.executor.clone().spawn(net.process, async move {
            let net = &link.net;
            if net.is_lost(link.device) {
                let _ = answer.send(Err(net.silence().await));
                return;
            }
            net.executor.sleep(net.delay()).await;
            if net.is_cut(link.device) {
                let _ = answer.send(Err(net.silence().await));
                return;
            }
            let result = link.serve(|service, now| call(service, request.clone(), now));
            tell(&link, &request, &result);
            if net.chance.permille(net.state().weather.twice) {
                let again = link.clone();
                net.executor.spawn(net.process, async move {
                    again.net.executor.sleep(again.net.delay()).await;
                    let result = again.serve(|service, now| call(service, request.clone(), now));
                    tell(&again, &request, &result);
                });
            }
            if net.is_lost(link.device) || net.hears_nothing(link.device) {
                let _ = answer.send(Err(net.silence().await));
                return;
            }
            net.executor.sleep(net.delay()).await;
            // a caller that is gone misses it
            let _ = match net.hears_nothing(link.device) {
                true => answer.send(Err(net.silence().await)),
                false => answer.send(result),
            };
        });
        match answered.await {
            Ok(result) => {
                if let Ok(message) = &result {
                    self.net.count_cargo(self.device, message);
                }
                result
            }
            Err(_) => pending().await,
        }
    }

    /// One request and a stream of answers. `serve` runs at the server and
    /// puts messages into what it is given.
    async fn stream<Req, M, F>(
        &self,
        request: &Req,
        serve: impl FnOnce(Link, Service, ServerClock, Outlet<M>) -> F + Send + 'static,
    ) -> Result<Answers<M>, CallError>
    where
        Req: Cargo,
        M: Cargo + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.net.count(self.device);
        self.net.count_cargo(self.device, request);
        let net = &self.net;
        if net.is_lost(self.device) {
            return Err(net.silence().await);
        }
        net.executor.sleep(net.delay()).await;
        if net.is_cut(self.device) {
            return Err(net.silence().await);
        }
        let Some(met) = net.server.running() else {
            return Err(unavailable("nobody listens there"));
        };
        let (sender, receiver) = mpsc::channel(WINDOW);
        let outlet = Outlet {
            link: self.clone(),
            sender,
            arrives_ms: 0,
        };
        let serving = serve(self.clone(), met.service, met.clock, outlet);
        net.executor.spawn(met.process, serving);
        let link = self.clone();
        let messages = stream::unfold(Some(receiver), move |receiver| {
            let link = link.clone();
            async move {
                let mut receiver: mpsc::Receiver<Carried<M>> = receiver?;
                let net = &link.net;
                let carried = receiver.next().await;
                let Some(carried) = carried else {
                    // the server's process is gone, or it said all
                    return Some((Err(net.silence().await), None));
                };
                let wait = carried.arrives_ms.saturating_sub(net.executor.now_ms());
                net.executor.sleep(wait).await;
                let reset = net.state().weather.reset;
                if net.hears_nothing(link.device) || net.chance.permille(reset) {
                    return Some((Err(net.silence().await), None));
                }
                match carried.message {
                    Ok(message) => {
                        net.count_cargo(link.device, &message);
                        Some((Ok(message), Some(receiver)))
                    }
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(Box::pin(messages))
    }
}

struct Carried<M> {
    arrives_ms: u64,
    message: Result<M, CallError>,
}

/// The server's end of a stream.
struct Outlet<M> {
    link: Link,
    sender: mpsc::Sender<Carried<M>>,
    arrives_ms: u64,
}

impl<M> Outlet<M> {
    /// Waits for room; messages arrive in order. `false` when nobody listens
    /// any more.
    async fn send(&mut self, message: Result<M, CallError>) -> bool {
        let net = &self.link.net;
        net.count_message(self.link.device);
        let arrives = net.executor.now_ms() + net.delay();
        self.arrives_ms = self.arrives_ms.max(arrives);
        let arrives_ms = self.arrives_ms;
        let carried = Carried {
            arrives_ms,
            message,
        };
        self.sender.send(carried).await.is_ok()
    }
}

fn refused(refusal: &Refusal, service: &Service, now_ms: u64) -> CallError {
    // the very bytes that travel
    let status = to_status(refusal, service.limits(), now_ms);
    CallError::from_grpc(status.code() as i32, status.message(), status.details())
}

fn outcome<T>(result: &Result<T, CallError>, ok: impl FnOnce(&T) -> String) -> String {
    match result {
        Ok(answer) => ok(answer),
        Err(error) => error.to_string(),
    }
}

impl Transport for Link {
    async fn hello(
        &self,
        _metadata: &CallMetadata,
        request: wire::HelloRequest,
    ) -> Result<wire::HelloResponse, CallError> {
        let call = |service: &Service, request, now| service.hello(&Access::full(), request, now);
        self.unary(request, call, |link, _, result| {
            let text = outcome(result, |hello| {
                let held = hello.held.iter().map(|h| format!("{h:?}"));
                format!("{:?} {}", hello.position, held.collect::<String>())
            });
            link.net.note(link.device, format_args!("hello: {text}"));
        })
        .await
    }

    async fn push(
        &self,
        _metadata: &CallMetadata,
        request: wire::PushRequest,
    ) -> Result<wire::PushResponse, CallError> {
        let call = |service: &Service, request, now| service.push(&Access::full(), request, now);
        self.unary(request, call, |link, request, result| {
            let net = &link.net;
            let ledger = net.ledgers.get(&request.space);
            if let (Err(error), Some(ledger)) = (result, ledger)
                && error.reason() == Some(Reason::Storage)
            {
                ledger.push_failed(request, net.executor.now_ms());
            }
            if let (Ok(answer), Some(ledger)) = (result, ledger) {
                let store = net.home_of(link.device);
                ledger.pushed(store, request, answer, net.executor.now_ms());
                let new = [wire::Outcome::Applied, wire::Outcome::Superseded];
                if answer.verdicts.iter().any(|v| new.contains(&v.outcome())) {
                    net.state().calls.remove(&link.device);
                }
            }
            if let (true, Ok(space)) = (net.server.is_several(), SpaceId::new(&request.space)) {
                net.server.committed(&space);
            }
            let mut keys = String::new();
            for r in &request.records {
                for part in r.key.utf8_chunks() {
                    let shown = |c: char| if c.is_control() { '·' } else { c };
                    keys.extend(part.valid().chars().map(shown));
                    keys.extend(part.invalid().iter().map(|_| '?'));
                }
                let time = r.version.map_or(0, |v| v.time & 0xffff_ffff);
                // a string takes whatever is written to it
                let _ = write!(keys, "@{time} ");
            }
            let text = outcome(result, |answer| {
                let mut text = String::new();
                for verdict in &answer.verdicts {
                    text.push_str(verdict.outcome().as_str_name());
                    text.push(' ');
                }
                let _ = write!(text, "{:?}", answer.position);
                text
            });
            net.note(link.device, format_args!("push {keys}: {text}"));
        })
        .await
    }

    async fn reconcile(
        &self,
        _metadata: &CallMetadata,
        request: wire::ReconcileRequest,
    ) -> Result<wire::ReconcileResponse, CallError> {
        let call =
            |service: &Service, request, now| service.reconcile(&Access::full(), &request, now);
        self.unary(request, call, |link, _, result| {
            let text = outcome(result, |answer| format!("{:?}", answer.position));
            link.net
                .note(link.device, format_args!("reconcile: {text}"));
        })
        .await
    }

    async fn watch(
        &self,
        _metadata: &CallMetadata,
        request: wire::WatchRequest,
    ) -> Result<Answers<wire::WatchResponse>, CallError> {
        self.stream(&request.clone(), move |link, service, clock, outlet| {
            follow(link, service, clock, request, outlet)
        })
        .await
    }

    async fn snapshot(
        &self,
        _metadata: &CallMetadata,
        request: wire::SnapshotRequest,
    ) -> Result<Answers<wire::SnapshotResponse>, CallError> {
        self.stream(
            &request.clone(),
            move |link: Link, service, clock, mut outlet: Outlet<_>| async move {
                let now = clock.wall_ms();
                let mut messages = Vec::new();
                let result = service.snapshot(&Access::full(), &request, now, &mut |message| {
                    messages.push(message);
                    ControlFlow::Continue(())
                });
                let count = messages.len();
                link.net.note(
                    link.device,
                    format_args!("snapshot: {count} messages {result:?}"),
                );
                for message in messages {
                    if !outlet.send(Ok(message)).await {
                        return;
                    }
                }
                if let Err(refusal) = result {
                    let end = match count {
                        0 => Err(refused(&refusal, &service, now)),
                        _ => Ok(wire::SnapshotResponse {
                            event: Some(wire::snapshot_response::Event::End(
                                refusal.to_stream_end(),
                            )),
                        }),
                    };
                    outlet.send(end).await;
                }
            },
        )
        .await
    }
}

/// A Watch as the server's shell runs it: steps until there is nothing more,
/// then waits for a commit or a heartbeat.
async fn follow(
    link: Link,
    service: Service,
    clock: ServerClock,
    request: wire::WatchRequest,
    mut outlet: Outlet<wire::WatchResponse>,
) {
    let net = link.net.clone();
    let interval = service.limits().heartbeat_interval_ms * 9 / 10;
    let mut watch = match service.watch(&Access::full(), request) {
        Ok(watch) => watch,
        Err(refusal) => {
            net.note(link.device, format_args!("watch: {refusal}"));
            let now = clock.wall_ms();
            outlet.send(Err(refused(&refusal, &service, now))).await;
            return;
        }
    };
    net.note(link.device, format_args!("watch: opened"));
    let mut feed = watch.feed();
    let mut sent_at = net.executor.now_ms();
    let mut heartbeats = 0;
    let mut changed = false;
    loop {
        let message = match watch.step(clock.wall_ms()) {
            Ok(Some(message)) => message,
            Ok(None) if watch.finished() => return,
            Ok(None) => {
                let due = (sent_at + interval).saturating_sub(net.executor.now_ms());
                let sleep = std::pin::pin!(net.executor.sleep(due));
                let woken = std::pin::pin!(feed.changed());
                match futures::future::select(woken, sleep).await {
                    futures::future::Either::Left((Ok(()), _)) => continue,
                    futures::future::Either::Left((Err(_), _)) => return,
                    futures::future::Either::Right(_) => {
                        heartbeats += 1;
                        if changed && heartbeats >= HEARTBEATS_PER_CHECKPOINT {
                            watch.want_checkpoint();
                            continue;
                        }
                        watch.heartbeat(clock.wall_ms())
                    }
                }
            }
            Err(refusal) => {
                net.note(link.device, format_args!("watch ends: {refusal}"));
                wire::WatchResponse {
                    event: Some(watch_response::Event::End(refusal.to_stream_end())),
                }
            }
        };
        let mut last = false;
        match &message.event {
            Some(watch_response::Event::Changes(changes)) => {
                changed = true;
                let count = changes.records.len();
                net.note(
                    link.device,
                    format_args!("watch sends {count} records, {:?}", changes.cursor),
                );
            }
            Some(watch_response::Event::Checkpoint(c)) => {
                changed = false;
                heartbeats = 0;
                net.note(
                    link.device,
                    format_args!("watch sends checkpoint {:?}", c.position),
                );
            }
            Some(watch_response::Event::End(_)) => last = true,
            _ => {}
        }
        if !outlet.send(Ok(message)).await || last {
            return;
        }
        sent_at = net.executor.now_ms();
    }
}
