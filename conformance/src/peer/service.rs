//! The five calls of the peer: from a request's bytes to an answer. Knows
//! nothing of HTTP.

use super::quirk::Quirk;
use super::refusal::{Detail, Refusal};
use super::space::{Space, Stored, status_in_order};
use super::watch::WatchTask;
use crate::oracle;
use crate::schema::v1;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// What a bearer token allows.
#[derive(Clone, Debug)]
pub struct Token {
    /// The space; empty: every space.
    pub space: String,
    /// Keys that begin so.
    pub prefix: Vec<u8>,
    /// Whether it may write.
    pub write: bool,
    /// From this time on (Unix milliseconds) it is expired.
    pub expires_ms: Option<u64>,
}

/// How a peer behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// By token; none: no authentication.
    pub tokens: BTreeMap<String, Token>,
    /// What it advertises and enforces.
    pub limits: v1::Limits,
    /// What it speaks.
    pub features: Vec<v1::Feature>,
    /// Added to the system's clock.
    pub clock_offset_ms: i64,
    /// Which rules it breaks.
    pub quirks: BTreeSet<Quirk>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            tokens: BTreeMap::new(),
            limits: v1::Limits {
                max_message_bytes: 2 << 20,
                max_value_bytes: 256 << 10,
                max_push_records: 200,
                max_ranges: 16,
                max_reconcile_entries: 10_000,
                max_response_bytes: 256 << 10,
                max_clock_skew_ms: 300_000,
                max_streams_per_connection: 32,
                max_space_records: 0,
                max_space_bytes: 0,
                heartbeat_interval_ms: 200,
                watchdog_ms: 2_000,
                max_stream_lifetime_ms: 0,
                max_calls_per_second: 0,
            },
            features: vec![v1::Feature::Reconcile, v1::Feature::Live],
            clock_offset_ms: 0,
            quirks: BTreeSet::new(),
        }
    }
}

/// An answer before it is framed.
pub enum Answer {
    /// One message.
    Unary(Vec<u8>),
    /// Messages as they come.
    Stream(mpsc::Receiver<Vec<u8>>),
}

/// The peer's state and rules.
#[derive(Clone)]
pub struct Service {
    state: Arc<Mutex<State>>,
    commits: watch::Sender<u64>,
}

pub(super) struct State {
    pub settings: Settings,
    spaces: BTreeMap<String, Space>,
    epoch: u64,
    random: u64,
}

/// Who calls, and with what metadata.
pub struct Caller<'a> {
    /// The `authorization` metadata.
    pub authorization: Option<&'a str>,
    /// The `gosync-version` metadata.
    pub version: Option<&'a str>,
}

impl State {
    /// The next of a cheap pseudo-random sequence.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn space(&mut self, name: &str) -> &mut Space {
        let (epoch, quirks) = (self.epoch, self.settings.quirks.clone());
        self.spaces.entry(name.to_owned()).or_insert_with(|| Space {
            quirks,
            ..Space::new(epoch)
        })
    }

    pub fn now(&self) -> u64 {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64);
        wall.saturating_add_signed(self.settings.clock_offset_ms)
    }

    /// The clock that a space tells.
    pub fn told(&mut self, space: &str) -> u64 {
        let now = self.now();
        self.space(space).reading(now)
    }

    pub fn quirk(&self, quirk: Quirk) -> bool {
        self.settings.quirks.contains(&quirk)
    }

    /// Whether it offers FEATURE_RECONCILE; without it, it tells no fingerprints.
    pub(super) fn reconciles(&self) -> bool {
        self.settings.features.contains(&v1::Feature::Reconcile)
    }

    fn grants(&self, caller: &Caller, space: &str) -> Result<Vec<Token>, Refusal> {
        let all = Token {
            space: String::new(),
            prefix: Vec::new(),
            write: true,
            expires_ms: None,
        };
        if self.settings.tokens.is_empty() {
            return Ok(vec![all]);
        }
        let token = caller
            .authorization
            .and_then(|a| a.strip_prefix("Bearer "))
            .ok_or_else(|| Refusal::new("UNAUTHENTICATED", "no bearer token"))?;
        let grant = self
            .settings
            .tokens
            .get(token)
            .ok_or_else(|| Refusal::new("UNAUTHENTICATED", "the token is not known"))?;
        if grant.expires_ms.is_some_and(|e| e <= self.now()) {
            return Err(Refusal::new("TOKEN_EXPIRED", "the token is expired"));
        }
        if !grant.space.is_empty() && grant.space != space {
            return Err(Refusal::new("NO_ACCESS", "no grant in this space"));
        }
        Ok(vec![grant.clone()])
    }

    /// What is checked alike for every call.
    pub(super) fn admit(
        &mut self,
        caller: &Caller,
        space: &str,
        held: &[v1::HeldRanges],
        is_hello: bool,
    ) -> Result<Vec<Token>, Refusal> {
        let speaks = caller.version == Some("1") || self.quirk(Quirk::AnyVersion);
        if !is_hello && !speaks {
            return Err(self.unsupported_version("gosync-version is not 1"));
        }
        if !oracle::check_space_id(space) && !self.quirk(Quirk::AnySpaceId) {
            return Err(Refusal::new(
                "MALFORMED",
                "space is not 1 to 128 of [A-Za-z0-9._-]",
            ));
        }
        let grants = self.grants(caller, space)?;
        self.check_ranges(held)?;
        for range in held.iter().flat_map(|h| &h.ranges) {
            let covered = grants.iter().any(|g| {
                g.prefix.is_empty()
                    || (range.start.starts_with(&g.prefix)
                        && range.end.as_ref().is_some_and(|e| {
                            // the end is at most the first string after the prefix
                            let mut last = e.clone();
                            while last.last() == Some(&0) {
                                last.pop();
                            }
                            e.starts_with(&g.prefix) || just_after(&last, &g.prefix)
                        }))
            });
            if !covered {
                return Err(Refusal::new("NO_ACCESS", "a range is outside the grants"));
            }
        }
        Ok(grants)
    }

    fn unsupported_version(&self, text: &str) -> Refusal {
        let versions = if self.quirk(Quirk::VersionsNotListed) {
            vec![]
        } else {
            vec![1]
        };
        Refusal {
            reason: "UNSUPPORTED_VERSION",
            text: text.to_owned(),
            detail: Some(Box::new(Detail::Server(v1::ServerDetail {
                server_time_ms: self.now(),
                max_clock_skew_ms: self.settings.limits.max_clock_skew_ms,
                versions,
            }))),
        }
    }

    fn check_ranges(&self, held: &[v1::HeldRanges]) -> Result<(), Refusal> {
        let count: usize = held.iter().map(|h| h.ranges.len()).sum();
        if count as u64 > self.settings.limits.max_ranges {
            return Err(Refusal::limit(
                "max_ranges",
                self.settings.limits.max_ranges,
                count as u64,
            ));
        }
        for entry in held {
            if entry.ranges.is_empty() {
                return Err(Refusal::new("MALFORMED", "held has no ranges"));
            }
            for range in &entry.ranges {
                let bounds = [Some(&range.start), range.end.as_ref()];
                if bounds.into_iter().flatten().any(|b| b.len() > 513) {
                    return Err(Refusal::limit("max_bound_bytes", 513, 514));
                }
                let inverted = range.end.as_ref().is_some_and(|e| *e <= range.start);
                if inverted && !self.quirk(Quirk::InvertedRangeAccepted) {
                    return Err(Refusal::new(
                        "MALFORMED",
                        "a range's end is not above its start",
                    ));
                }
            }
            let ascending = entry
                .ranges
                .windows(2)
                .all(|w| w[0].end.as_ref().is_some_and(|e| *e <= w[1].start));
            if !ascending && !self.quirk(Quirk::UnsortedRangesAccepted) {
                return Err(Refusal::new(
                    "MALFORMED",
                    "ranges are not sorted and disjoint",
                ));
            }
        }
        let mut all: Vec<&v1::Range> = held.iter().flat_map(|h| &h.ranges).collect();
        all.sort_by(|a, b| a.start.cmp(&b.start));
        let disjoint = all
            .windows(2)
            .all(|w| w[0].end.as_ref().is_some_and(|e| *e <= w[1].start));
        if !disjoint && !self.quirk(Quirk::UnsortedRangesAccepted) {
            return Err(Refusal::new("MALFORMED", "ranges overlap"));
        }
        Ok(())
    }
}

/// Whether `end` is the first string above everything that begins so.
fn just_after(end: &[u8], prefix: &[u8]) -> bool {
    let mut up = prefix.to_vec();
    while up.last() == Some(&0xff) {
        up.pop();
    }
    match up.last_mut() {
        Some(last) => {
            *last += 1;
            end == up
        }
        None => false,
    }
}

fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T, Refusal> {
    T::decode(bytes).map_err(|e| Refusal::new("MALFORMED", e.to_string()))
}

impl Service {
    /// An empty one. `seed` makes its epochs and tags.
    pub fn new(settings: Settings, seed: u64) -> Service {
        let mut state = State {
            settings,
            spaces: BTreeMap::new(),
            epoch: 0,
            random: seed,
        };
        state.epoch = state.random();
        Service {
            state: Arc::new(Mutex::new(state)),
            commits: watch::Sender::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Looks at, or changes, the space. Watchers see it.
    pub fn with_space<T>(&self, name: &str, act: impl FnOnce(&mut Space) -> T) -> T {
        let result = act(self.lock().space(name));
        self.commits.send_modify(|n| *n += 1);
        result
    }

    /// Another replica writes.
    pub fn commit(&self, space: &str, records: &[oracle::Record]) {
        let request = v1::PushRequest {
            space: space.to_owned(),
            records: records.iter().map(oracle::Record::to_wire).collect(),
            ..v1::PushRequest::default()
        };
        let (tag, limits) = (self.random(), self.limits());
        self.with_space(space, |s| {
            // whatever its version: it is not to move the server's clock
            let clock = s.clock;
            s.push(&request, &limits, u64::MAX >> 16, tag, |_| true);
            s.clock = clock;
        });
    }

    /// Changes how it behaves.
    pub fn with_settings<T>(&self, act: impl FnOnce(&mut Settings) -> T) -> T {
        act(&mut self.lock().settings)
    }

    /// A fresh random number.
    pub fn random(&self) -> u64 {
        self.lock().random()
    }

    /// Forgets every space and begins a new lineage.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.spaces.clear();
        state.epoch = state.random();
        drop(state);
        self.commits.send_modify(|n| *n += 1);
    }

    /// Whether the peer breaks this rule.
    pub fn quirk(&self, quirk: Quirk) -> bool {
        self.lock().quirk(quirk)
    }

    /// Its limits.
    pub fn limits(&self) -> v1::Limits {
        self.lock().settings.limits
    }

    /// Answers a call.
    ///
    /// # Errors
    /// The refusal.
    pub fn call(&self, method: &str, caller: &Caller, body: &[u8]) -> Result<Answer, Refusal> {
        let limit = self.lock().settings.limits.max_message_bytes;
        if body.len() as u64 > limit {
            return Err(Refusal::limit(
                "max_message_bytes",
                limit,
                body.len() as u64,
            ));
        }
        match method {
            "Hello" => self.hello(caller, &decode(body)?).map(|m| unary(&m)),
            "Push" => self.push(caller, &decode(body)?).map(|m| unary(&m)),
            "Reconcile" if self.lock().reconciles() => {
                self.reconcile(caller, &decode(body)?).map(|m| unary(&m))
            }
            "Snapshot" => self.snapshot(caller, &decode(body)?),
            "Watch" => self.watch(caller, decode(body)?),
            _ => Err(Refusal::new("", "this server does not have this call")),
        }
    }

    fn hello(
        &self,
        caller: &Caller,
        request: &v1::HelloRequest,
    ) -> Result<v1::HelloResponse, Refusal> {
        let mut state = self.lock();
        if !request.versions.contains(&1) {
            return Err(state.unsupported_version("this server speaks version 1"));
        }
        let grants = state.admit(caller, &request.space, &request.held, true)?;
        let ranges: Vec<&v1::Range> = request.held.iter().flat_map(|h| &h.ranges).collect();
        let fingerprints = &request.fingerprints;
        let proper = fingerprints.is_empty()
            || (fingerprints.len() == ranges.len() && fingerprints.iter().all(|f| f.len() == 32));
        if !proper && !state.quirk(Quirk::AnyFingerprintLength) {
            return Err(Refusal::new(
                "MALFORMED",
                "fingerprints are not one of 32 bytes per range",
            ));
        }
        let features = request
            .features
            .iter()
            .filter(|f| {
                state.quirk(Quirk::FeaturesEchoed)
                    || state.settings.features.iter().any(|own| *own as i32 == **f)
            })
            .copied()
            .collect();
        let (now, limits) = (state.told(&request.space), state.settings.limits);
        let always_equal = state.quirk(Quirk::AlwaysEqual);
        let totals_of_space = state.quirk(Quirk::TotalsOfSpace);
        let reconciles = state.reconciles();
        let space = state.space(&request.space);
        let states: Vec<v1::RangeState> = ranges.iter().map(|r| space.range_state(r)).collect();
        let comparable = reconciles && !fingerprints.is_empty() && request.horizon == space.horizon;
        let equal = if comparable {
            states
                .iter()
                .zip(fingerprints)
                .map(|(s, f)| always_equal || s.fingerprint == *f)
                .collect()
        } else {
            Vec::new()
        };
        Ok(v1::HelloResponse {
            version: 1,
            features,
            server_time_ms: now,
            limits: Some(limits),
            grants: grants
                .iter()
                .map(|g| v1::Grant {
                    key_prefix: g.prefix.clone(),
                    access: if g.write {
                        v1::Access::Write as i32
                    } else {
                        v1::Access::Read as i32
                    },
                })
                .collect(),
            position: Some(space.position()),
            restore_points: space.lineage(),
            held: space.statuses(&request.held, request.newest_commit.as_ref()),
            equal,
            total_records: if totals_of_space {
                space.records.len() as u64
            } else {
                states.iter().map(|s| s.count).sum()
            },
        })
    }

    fn push(
        &self,
        caller: &Caller,
        request: &v1::PushRequest,
    ) -> Result<v1::PushResponse, Refusal> {
        let mut state = self.lock();
        let grants = state.admit(caller, &request.space, &request.held, false)?;
        let limits = state.settings.limits;
        let count = request.records.len() as u64;
        if count > limits.max_push_records && !state.quirk(Quirk::AnyNumberOfRecords) {
            return Err(Refusal::limit(
                "max_push_records",
                limits.max_push_records,
                count,
            ));
        }
        let keys: BTreeSet<&Vec<u8>> = request.records.iter().map(|r| &r.key).collect();
        if keys.len() < request.records.len() && !state.quirk(Quirk::DuplicateKeysAccepted) {
            return Err(Refusal::new("MALFORMED", "a key comes twice"));
        }
        if state.quirk(Quirk::OneBadRecordRefusesAll)
            && let Some(bad) = request
                .records
                .iter()
                .find_map(|r| oracle::Record::from_wire(r).err())
        {
            return Err(Refusal::new(bad.reason(), bad.name()));
        }
        let sorted = state.quirk(Quirk::VerdictsSorted);
        let (now, mut tag) = (state.now(), state.random());
        if state.quirk(Quirk::OneTag) {
            tag = 1;
        }
        let space = state.space(&request.space);
        let held = space.statuses(&request.held, request.newest_commit.as_ref());
        let may_write = |key: &[u8]| grants.iter().any(|g| g.write && key.starts_with(&g.prefix));
        let mut verdicts = space.push(request, &limits, now, tag, may_write);
        if sorted {
            let mut order: Vec<usize> = (0..verdicts.len()).collect();
            order.sort_by_key(|i| request.records[*i].key.clone());
            verdicts = order.into_iter().map(|i| verdicts[i].clone()).collect();
        }
        let position = Some(space.position());
        let told = state.told(&request.space);
        drop(state);
        self.commits.send_modify(|n| *n += 1);
        Ok(v1::PushResponse {
            verdicts,
            position,
            server_time_ms: told,
            held,
        })
    }

    fn snapshot(&self, caller: &Caller, request: &v1::SnapshotRequest) -> Result<Answer, Refusal> {
        let mut state = self.lock();
        state.admit(caller, &request.space, &request.held, false)?;
        if request.held.is_empty() {
            return Err(Refusal::new("MALFORMED", "held is empty"));
        }
        let after = request.after_key.as_ref().map_or(0, Vec::len);
        if after > oracle::KEY_BYTES && !state.quirk(Quirk::LongAfterKeyAccepted) {
            let text = "after_key is longer than a key";
            return Err(Refusal::new("LIMIT_EXCEEDED", text));
        }
        let budget = budget(request.max_response_bytes, &state.settings.limits);
        let reconciles = state.reconciles();
        let space = state.space(&request.space).clone();
        drop(state);
        let ranges: Vec<&v1::Range> = request.held.iter().flat_map(|h| &h.ranges).collect();
        let after = request.after_key.as_deref().unwrap_or_default();
        let inclusive = space.quirks.contains(&Quirk::SnapshotResumesInclusive);
        let whole: Vec<&Stored> = space
            .records
            .values()
            .filter(|s| ranges.iter().any(|r| space.inside(r, &s.record.key)))
            .filter(|s| oracle::visible(&s.record, space.horizon))
            .collect();
        let total: usize = whole.len();
        let mut chosen: Vec<&Stored> = whole
            .into_iter()
            .filter(|s| {
                s.record.key.as_slice() > after || (inclusive && s.record.key.as_slice() == after)
            })
            .filter(|s| {
                !(space.quirks.contains(&Quirk::SnapshotWithoutTombstones)
                    && s.record.is_tombstone())
            })
            .collect();
        if space.quirks.contains(&Quirk::SnapshotByArrival) {
            chosen.sort_by_key(|s| s.sequence);
        }
        let totals_of_space = space.quirks.contains(&Quirk::SnapshotTotalsOfSpace);
        let mut events = vec![v1::snapshot_response::Event::Start(v1::SnapshotStart {
            position: Some(space.position()),
            held: space.statuses(&request.held, request.newest_commit.as_ref()),
            restore_points: space.lineage(),
            total_records: if totals_of_space { total } else { chosen.len() } as u64,
            total_bytes: chosen
                .iter()
                .map(|s| s.record.key.len() + s.record.value.len())
                .sum::<usize>() as u64,
            wanted: vec![],
        })];
        let big = space.quirks.contains(&Quirk::BigChunks);
        for records in chunks(chosen.iter().map(|s| s.record.to_wire()), budget, big) {
            events.push(v1::snapshot_response::Event::Chunk(v1::SnapshotChunk {
                records,
            }));
        }
        let of_rest = space.quirks.contains(&Quirk::SnapshotFingerprintOfRest);
        let states = ranges.iter().map(|r| {
            if of_rest && !after.is_empty() {
                let mut rest = (*r).clone();
                rest.start = after.to_vec();
                rest.start.push(0);
                space.range_state(&rest)
            } else {
                space.range_state(r)
            }
        });
        let ranges = if reconciles { states.collect() } else { vec![] };
        events.push(v1::snapshot_response::Event::Complete(
            v1::SnapshotComplete { ranges },
        ));
        if !space.quirks.contains(&Quirk::NoStreamEnd) {
            events.push(v1::snapshot_response::Event::End(v1::StreamEnd::default()));
        }
        let (sender, receiver) = mpsc::channel(events.len().max(1));
        for event in events {
            let message = v1::SnapshotResponse { event: Some(event) };
            // the channel is as long as the list
            let _ = sender.try_send(message.encode_to_vec());
        }
        Ok(Answer::Stream(receiver))
    }

    fn watch(&self, caller: &Caller, request: v1::WatchRequest) -> Result<Answer, Refusal> {
        let mut state = self.lock();
        state.admit(caller, &request.space, &request.held, false)?;
        if request.held.is_empty() {
            return Err(Refusal::new("MALFORMED", "held is empty"));
        }
        let ignores_status = state.quirk(Quirk::WatchIgnoresStatus);
        let live = state.settings.features.contains(&v1::Feature::Live);
        let space = state.space(&request.space);
        let statuses = space.statuses(&request.held, request.newest_commit.as_ref());
        if !ignores_status && !statuses.iter().all(status_in_order) {
            return Err(space.history_changed(statuses));
        }
        let epoch = space.epoch;
        let cursor = match state.quirk(Quirk::WatchIgnoresCursor) {
            true => 0,
            false => request
                .held
                .iter()
                .map(|h| h.cursor.as_ref().map_or(0, |c| c.sequence))
                .min()
                .unwrap_or(0),
        };
        drop(state);
        let (sender, receiver) = mpsc::channel(8);
        let task = WatchTask {
            service: self.clone(),
            request,
            cursor,
            epoch,
            delivered: None,
            live,
            checkpointed: false,
            commits: self.commits.subscribe(),
            sender,
        };
        tokio::spawn(task.run());
        Ok(Answer::Stream(receiver))
    }
}

fn unary(message: &impl Message) -> Answer {
    Answer::Unary(message.encode_to_vec())
}

/// The size of one message that a request may ask for.
pub(super) fn budget(wished: u32, limits: &v1::Limits) -> usize {
    match u64::from(wished) {
        0 => 64 << 10,
        n => n.min(limits.max_response_bytes) as usize,
    }
}

/// Cuts records into lists whose encoded sizes stay within the budget.
pub(super) fn chunks(
    records: impl Iterator<Item = v1::Record>,
    budget: usize,
    unbounded: bool,
) -> Vec<Vec<v1::Record>> {
    let mut out: Vec<Vec<v1::Record>> = Vec::new();
    let mut size = 0;
    for record in records {
        // key, length and envelope of one record in a repeated field
        let bytes = record.encoded_len() + 10;
        match out.last_mut() {
            Some(last) if unbounded || size + bytes + 40 <= budget => {
                size += bytes;
                last.push(record);
            }
            _ => {
                size = bytes;
                out.push(vec![record]);
            }
        }
    }
    out
}
