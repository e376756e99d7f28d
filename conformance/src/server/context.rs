//! What a case of server mode works with: calls that are recorded and watched.

use super::target::{Target, TokenKind};
use crate::net::{self, Call, Reply, Status, Stream, Wire};
use crate::oracle::{Record, status_of};
use crate::schema::v1;
use crate::suite::{Monitor, Raw, Recorder, Stop, unique};
use prost::Message;
use std::fmt::{Debug, Display};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The context of one run of one case. Cheap to clone.
#[derive(Clone)]
pub struct Cx {
    inner: Arc<Inner>,
}

struct Inner {
    target: Arc<Target>,
    wire: Wire,
    recorder: Recorder,
    random: Mutex<u64>,
    monitor: Mutex<Monitor>,
    /// Spaces whose acknowledged records may be gone, because the case wiped
    /// or restored the store.
    forgotten: Mutex<Vec<String>>,
}

/// How a call differs from an ordinary one.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which token it carries.
    pub token: TokenKind,
    /// The `gosync-version` metadata; `None` leaves it out.
    pub version: Option<String>,
    /// Instead of the transport's own content type.
    pub content_type: Option<String>,
    /// More metadata.
    pub metadata: Vec<(String, String)>,
    /// Faults on the wire are part of the case and not reported by monitors.
    pub faulty: bool,
    /// Instead of the run's patience.
    pub patience: Option<Duration>,
    /// The connection takes little more than is read of it.
    pub narrow: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            token: TokenKind::Full,
            version: Some("1".into()),
            content_type: None,
            metadata: Vec::new(),
            faulty: false,
            patience: None,
            narrow: false,
        }
    }
}

impl Options {
    /// With another token.
    pub fn token(token: impl Into<String>) -> Options {
        Options {
            token: TokenKind::Literal(token.into()),
            ..Options::default()
        }
    }
}

/// A reply and its decoded message.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// As it came.
    pub reply: Reply,
    /// Of a call that ended with OK and one message.
    pub message: Option<T>,
}

impl<T> Answer<T> {
    /// The message.
    ///
    /// # Errors
    /// [`Stop::Peer`] when the call did not succeed.
    pub fn good(self) -> Result<T, Stop> {
        match self.message {
            Some(message) => Ok(message),
            None => Err(Stop::Peer(self.reply.summary())),
        }
    }
}

/// A snapshot stream, taken apart.
#[derive(Clone, Debug, Default)]
pub struct SnapshotSeen {
    /// The first message.
    pub start: v1::SnapshotStart,
    /// The records of each chunk.
    pub chunks: Vec<Vec<Record>>,
    /// The size of each chunk's message.
    pub sizes: Vec<usize>,
    /// The last but one message.
    pub complete: v1::SnapshotComplete,
    /// The last message.
    pub end: v1::StreamEnd,
}

impl SnapshotSeen {
    /// All records.
    pub fn records(&self) -> Vec<Record> {
        self.chunks.concat()
    }
}

/// A watch stream up to its end, taken apart.
#[derive(Clone, Debug, Default)]
pub struct WatchSeen {
    /// Records and cursor of each Changes message.
    pub changes: Vec<(Vec<Record>, Option<v1::Cursor>)>,
    /// The size of each Changes message.
    pub sizes: Vec<usize>,
    /// All checkpoints.
    pub checkpoints: Vec<v1::Checkpoint>,
    /// How many Changes messages came before the first checkpoint.
    pub before_checkpoint: usize,
    /// The last message.
    pub end: Option<v1::StreamEnd>,
}

impl WatchSeen {
    /// All records in order.
    pub fn records(&self) -> Vec<Record> {
        self.changes.iter().flat_map(|(r, _)| r.clone()).collect()
    }
}

impl Cx {
    /// A new one.
    pub fn new(target: Arc<Target>, wire: Wire, seed: u64) -> Cx {
        Cx {
            inner: Arc::new(Inner {
                target,
                wire,
                recorder: Recorder::default(),
                random: Mutex::new(seed),
                monitor: Mutex::default(),
                forgotten: Mutex::default(),
            }),
        }
    }

    /// The server under test.
    pub fn target(&self) -> &Target {
        &self.inner.target
    }

    /// How its calls travel.
    pub fn wire(&self) -> Wire {
        self.inner.wire
    }

    /// Its limits.
    pub fn limits(&self) -> v1::Limits {
        self.inner.target.limits
    }

    /// What this run of the case collects.
    pub fn recorder(&self) -> &Recorder {
        &self.inner.recorder
    }

    /// Seeded randomness (splitmix64).
    pub fn random(&self) -> u64 {
        let mut state = self
            .inner
            .random
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.random() % bound.max(1)
    }

    /// The id of a space that nobody has used, in an earlier run with the same
    /// seed neither.
    pub fn fresh_space(&self) -> String {
        let prefix = &self.inner.target.tokens.space_prefix;
        format!("{prefix}{:016x}", self.random() ^ unique() as u64)
    }

    /// Emits a check.
    pub fn check(
        &self,
        name: &'static str,
        passed: bool,
        expected: impl Display,
        got: impl Display,
    ) {
        self.inner.recorder.check(name, passed, expected, got);
    }

    /// Emits a check that two values are equal.
    pub fn equal<T: PartialEq + Debug>(&self, name: &'static str, expected: T, got: T) {
        let passed = expected == got;
        self.check(name, passed, format!("{expected:?}"), format!("{got:?}"));
    }

    /// The acknowledged records of this space may disappear from now on.
    pub fn forget(&self, space: &str) {
        self.inner
            .forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(space.to_owned());
    }

    fn call(&self, method: &str, body: bytes::Bytes, options: &Options) -> Call {
        let target = &self.inner.target;
        let patience = options.patience.unwrap_or(target.patience);
        let mut call = Call::new(method, &[], patience);
        call.body = body;
        call.content_type.clone_from(&options.content_type);
        call.narrow = options.narrow;
        let header = match &options.token {
            TokenKind::Full => target.tokens.full.as_ref().map(|t| format!("Bearer {t}")),
            TokenKind::None => None,
            TokenKind::Literal(token) => Some(format!("Bearer {token}")),
            TokenKind::Header(header) => Some(header.clone()),
        };
        if let Some(header) = header {
            call.metadata.push(("authorization".into(), header));
        }
        if let Some(version) = options.version.as_ref().filter(|_| method != "Hello") {
            call.metadata
                .push(("gosync-version".into(), version.clone()));
        }
        call.metadata.extend(options.metadata.clone());
        call
    }

    fn note(&self, wire: Wire, call: &Call, reply: &Reply, options: &Options) {
        let recorder = &self.inner.recorder;
        let at = recorder.elapsed();
        recorder.exchange(Raw::call(at, wire, call, reply));
        if !options.faulty {
            let mut monitor = self
                .inner
                .monitor
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for wrong in monitor.look(call, reply) {
                recorder.violation(wrong);
            }
        }
    }

    /// A call with any bytes as its body.
    pub async fn raw(
        &self,
        method: &str,
        body: impl Into<bytes::Bytes>,
        options: &Options,
    ) -> Reply {
        self.raw_over(self.inner.wire, method, body, options).await
    }

    /// As [`Cx::raw`], over a transport of the case's choice.
    pub async fn raw_over(
        &self,
        wire: Wire,
        method: &str,
        body: impl Into<bytes::Bytes>,
        options: &Options,
    ) -> Reply {
        let call = self.call(method, body.into(), options);
        let endpoint = self.inner.target.endpoint();
        let reply = net::client::call(&endpoint, wire, &call).await;
        self.note(wire, &call, &reply, options);
        reply
    }

    /// A unary call.
    pub async fn unary<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        options: &Options,
    ) -> Answer<A> {
        let body = net::framing::encode(0, &request.encode_to_vec());
        let mut reply = self.raw(method, body, options).await;
        let message = match reply.messages.first() {
            Some(bytes) if reply.is_ok() && reply.messages.len() == 1 => {
                match A::decode(bytes.clone()) {
                    Ok(message) => Some(message),
                    Err(e) => {
                        reply
                            .problems
                            .push(format!("the answer is no {method}Response: {e}"));
                        None
                    }
                }
            }
            _ => None,
        };
        Answer { reply, message }
    }

    /// Hello.
    pub async fn hello(&self, request: &v1::HelloRequest) -> Answer<v1::HelloResponse> {
        self.unary("Hello", request, &Options::default()).await
    }

    /// Push.
    pub async fn push(&self, request: &v1::PushRequest) -> Answer<v1::PushResponse> {
        self.unary("Push", request, &Options::default()).await
    }

    /// A stream to its end, as a reply.
    pub async fn stream_to_end<Q: Message>(
        &self,
        method: &str,
        request: &Q,
        options: &Options,
    ) -> Reply {
        let body = net::framing::encode(0, &request.encode_to_vec());
        self.raw(method, body, options).await
    }

    /// A snapshot to its end.
    ///
    /// # Errors
    /// [`Stop::Peer`] when it is not complete.
    pub async fn snapshot(&self, request: &v1::SnapshotRequest) -> Result<SnapshotSeen, Stop> {
        self.snapshot_with(request, &Options::default()).await
    }

    /// A snapshot to its end, with options.
    ///
    /// # Errors
    /// [`Stop::Peer`] when it is not complete.
    pub async fn snapshot_with(
        &self,
        request: &v1::SnapshotRequest,
        options: &Options,
    ) -> Result<SnapshotSeen, Stop> {
        let reply = self.stream_to_end("Snapshot", request, options).await;
        take_snapshot_apart(&reply)
    }

    /// A watch with `until_caught_up`, to its end.
    ///
    /// # Errors
    /// [`Stop::Peer`] when the stream is refused or cannot be read.
    pub async fn catch_up(&self, request: &v1::WatchRequest) -> Result<WatchSeen, Stop> {
        let reply = self
            .stream_to_end("Watch", request, &Options::default())
            .await;
        take_watch_apart(&reply)
    }

    /// Opens a stream that is read message by message.
    pub async fn open<Q: Message>(&self, method: &str, request: &Q, options: &Options) -> Live {
        let body = net::framing::encode(0, &request.encode_to_vec());
        let call = self.call(method, body, options);
        let stream = Stream::open(&self.inner.target.endpoint(), self.inner.wire, &call).await;
        Live {
            cx: self.clone(),
            call,
            stream: Some(stream),
            options: options.clone(),
        }
    }

    /// Says in words what is wrong with a refusal, or nothing.
    pub fn refusal(reply: &Reply, reason: &str) -> Result<Status, String> {
        let Some(status) = &reply.status else {
            return Err(reply.summary());
        };
        let code = status_of(reason).map_or(2, |c| c as u32);
        if status.code == code && status.reason == reason {
            Ok(status.clone())
        } else {
            Err(reply.summary())
        }
    }

    /// What the monitors find when the case is over: acknowledged records that
    /// are gone.
    pub async fn close(&self) {
        let spaces: Vec<String> = {
            let monitor = self
                .inner
                .monitor
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let forgotten = self
                .inner
                .forgotten
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            monitor
                .acknowledged()
                .iter()
                .filter(|(space, records)| !records.is_empty() && !forgotten.contains(space))
                .map(|(space, _)| space.clone())
                .collect()
        };
        for space in spaces {
            let request = v1::SnapshotRequest {
                space: space.clone(),
                held: vec![super::held(vec![super::everything()], None)],
                ..v1::SnapshotRequest::default()
            };
            match self.snapshot(&request).await {
                Ok(seen) => {
                    let horizon = seen.start.position.map_or(0, |p| p.horizon);
                    let gone = self
                        .inner
                        .monitor
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .disappeared(&space, &seen.records(), horizon);
                    for text in gone {
                        self.inner.recorder.violation(text);
                    }
                }
                Err(Stop::Peer(why) | Stop::Suite(why)) => self
                    .inner
                    .recorder
                    .violation(format!("what was acknowledged cannot be read again: {why}")),
            }
        }
    }
}

/// An open stream that is recorded when it is over.
pub struct Live {
    cx: Cx,
    call: Call,
    stream: Option<Stream>,
    options: Options,
}

impl Live {
    /// The next message of a Watch.
    ///
    /// # Errors
    /// [`Stop::Peer`] when there is none, or it cannot be read.
    pub async fn event(&mut self) -> Result<v1::watch_response::Event, Stop> {
        let bytes = self.bytes().await?;
        v1::WatchResponse::decode(bytes)
            .map_err(|e| Stop::Peer(format!("no WatchResponse: {e}")))?
            .event
            .ok_or_else(|| Stop::Peer("a WatchResponse without event".into()))
    }

    /// The next message.
    ///
    /// # Errors
    /// [`Stop::Peer`] when there is none.
    pub async fn bytes(&mut self) -> Result<bytes::Bytes, Stop> {
        let Some(stream) = &mut self.stream else {
            return Err(Stop::Suite("the stream is closed".into()));
        };
        match stream.next().await {
            Some(bytes) => Ok(bytes),
            None => Err(Stop::Peer(format!(
                "the stream ended: {}",
                stream.reply().summary()
            ))),
        }
    }

    /// Reads to the first checkpoint.
    ///
    /// # Errors
    /// [`Stop::Peer`] when there is none.
    pub async fn until_checkpoint(&mut self) -> Result<v1::Checkpoint, Stop> {
        for _ in 0..10_000 {
            if let v1::watch_response::Event::Checkpoint(c) = self.event().await? {
                return Ok(c);
            }
        }
        Err(Stop::Peer("no checkpoint within 10,000 messages".into()))
    }

    /// The next Changes message; others are passed over, within a time.
    ///
    /// # Errors
    /// [`Stop::Peer`] when there is none.
    pub async fn changes(&mut self, within: Duration) -> Result<v1::Changes, Stop> {
        let read = async {
            loop {
                if let v1::watch_response::Event::Changes(c) = self.event().await? {
                    return Ok(c);
                }
            }
        };
        match tokio::time::timeout(within, read).await {
            Ok(result) => result,
            Err(_) => Err(Stop::Peer(format!("no Changes within {within:?}"))),
        }
    }

    /// How the stream stands.
    pub fn reply(&self) -> Reply {
        self.stream
            .as_ref()
            .map(|s| s.reply().clone())
            .unwrap_or_default()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            let reply = stream.into_reply();
            let wire = self.cx.inner.wire;
            self.cx.note(wire, &self.call, &reply, &self.options);
        }
    }
}

fn records(messages: &[v1::Record]) -> Result<Vec<Record>, Stop> {
    messages
        .iter()
        .map(|m| {
            Record::from_wire(m)
                .map_err(|d| Stop::Peer(format!("the server sent a record: {}", d.name())))
        })
        .collect()
}

/// # Errors
/// [`Stop::Peer`] when it is not a complete snapshot.
fn take_snapshot_apart(reply: &Reply) -> Result<SnapshotSeen, Stop> {
    use v1::snapshot_response::Event;
    let mut seen = SnapshotSeen::default();
    let (mut started, mut completed, mut ended) = (false, false, false);
    if !reply.is_ok() {
        return Err(Stop::Peer(reply.summary()));
    }
    for bytes in &reply.messages {
        let message = v1::SnapshotResponse::decode(bytes.clone())
            .map_err(|e| Stop::Peer(format!("no SnapshotResponse: {e}")))?;
        match message.event {
            Some(Event::Start(start)) if !started => {
                started = true;
                seen.start = start;
            }
            Some(Event::Chunk(chunk)) if started && !completed => {
                seen.sizes.push(bytes.len());
                seen.chunks.push(records(&chunk.records)?);
            }
            Some(Event::Complete(complete)) if started && !completed => {
                completed = true;
                seen.complete = complete;
            }
            Some(Event::End(end)) if started && completed && !ended => {
                ended = true;
                seen.end = end;
            }
            other => {
                return Err(Stop::Peer(format!(
                    "a snapshot with an event out of place: {other:?}"
                )));
            }
        }
    }
    if ended {
        Ok(seen)
    } else {
        Err(Stop::Peer(
            "the snapshot ends without SnapshotComplete and StreamEnd".into(),
        ))
    }
}

/// # Errors
/// [`Stop::Peer`] when it cannot be read.
fn take_watch_apart(reply: &Reply) -> Result<WatchSeen, Stop> {
    use v1::watch_response::Event;
    if !reply.is_ok() {
        return Err(Stop::Peer(reply.summary()));
    }
    let mut seen = WatchSeen::default();
    for bytes in &reply.messages {
        let message = v1::WatchResponse::decode(bytes.clone())
            .map_err(|e| Stop::Peer(format!("no WatchResponse: {e}")))?;
        match message.event {
            Some(Event::Changes(changes)) => {
                seen.sizes.push(bytes.len());
                seen.changes
                    .push((records(&changes.records)?, changes.cursor));
            }
            Some(Event::Checkpoint(checkpoint)) => {
                if seen.checkpoints.is_empty() {
                    seen.before_checkpoint = seen.changes.len();
                }
                seen.checkpoints.push(checkpoint);
            }
            Some(Event::End(end)) => seen.end = Some(end),
            Some(Event::Heartbeat(_)) | None => {}
        }
    }
    Ok(seen)
}
