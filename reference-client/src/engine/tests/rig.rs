//! Drives an engine as a driver does, and plays the server's part by hand.

use crate::engine::{
    Answer, CallId, Effect, Engine, Event, Notice, Phase, Request, Settings, Streamed, TokenNews,
};
use crate::platform::Moment;
use crate::replica::edit::{self, Author, Edit};
use crate::replica::{Fate, ops, upkeep};
use crate::store::{Changes, MemoryStore, Meta, Reads, Store, StoreError, Stored, View, Write};
use crate::transport::{CallError, Cause};
use futures::executor::block_on;
use gosync_proto::history::{Cursor, Epoch, Point, Position};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::Tree;
use gosync_proto::reconcile::{Budget, respond};
use gosync_proto::{
    Content, Key, KeyRange, RangeSet, Reason, Record, ReplicaId, SpaceId, Time, Version, wire,
};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

pub const ME: ReplicaId = ReplicaId(7);
/// Where the tests' wall clock begins, milliseconds.
pub const NOON: u64 = 1_000_000_000;

pub struct Rig {
    pub engine: Engine,
    pub store: MemoryStore,
    pub now: Moment,
    pub notices: Vec<Notice>,
    pub calls: Vec<(CallId, Option<u32>, Request)>,
    pub cancelled: Vec<CallId>,
    /// For each time a token was asked for: whether the last was refused.
    pub asked: Vec<bool>,
    /// Every operation of the store fails.
    pub failing: bool,
    /// The store does not say whether the end of a session was written: it was.
    pub end_in_doubt: bool,
}

pub fn key(k: &str) -> Key {
    Key::new(k.as_bytes()).unwrap()
}

pub fn record(k: &str, time: u64, value: Option<&str>) -> Record {
    Record {
        key: key(k),
        version: Version {
            time: Time(time),
            replica: ReplicaId(99),
        },
        content: match value {
            Some(v) => Content::Put(v.to_owned().into()),
            None => Content::Tombstone,
        },
    }
}

pub fn cursor(epoch: u64, sequence: u64) -> Cursor {
    Cursor {
        point: Point {
            epoch: Epoch(epoch),
            sequence,
        },
        tag: sequence * 31,
    }
}

pub fn position(epoch: u64, sequence: u64, horizon: u64) -> Position {
    Position {
        head: cursor(epoch, sequence),
        horizon: Time(horizon),
    }
}

pub fn status(lineage: wire::Lineage, behind: bool) -> wire::HistoryStatus {
    wire::HistoryStatus {
        lineage: lineage as i32,
        mapped_sequence: 0,
        behind_compaction: behind,
    }
}

pub fn same() -> wire::HistoryStatus {
    status(wire::Lineage::Same, false)
}

pub fn refused(reason: Reason) -> CallError {
    CallError::new(Cause::Refused(reason), "as the test wants it")
}

/// What a server says at Hello.
#[derive(Clone)]
pub struct Greeting {
    pub position: Position,
    pub status: wire::HistoryStatus,
    pub equal: bool,
    pub total: u64,
    pub restore_points: Vec<wire::RestorePoint>,
    pub access: wire::Access,
    pub features: Vec<i32>,
}

impl Greeting {
    pub fn at(position: Position) -> Greeting {
        Greeting {
            position,
            status: same(),
            equal: false,
            total: 0,
            restore_points: vec![],
            access: wire::Access::Write,
            features: vec![1, 2],
        }
    }

    pub fn equal(self) -> Greeting {
        Greeting {
            equal: true,
            ..self
        }
    }
}

impl Rig {
    pub fn new() -> Rig {
        Rig::on(MemoryStore::new())
    }

    pub fn on(store: MemoryStore) -> Rig {
        Rig::holding(RangeSet::all(), store)
    }

    pub fn holding(ranges: RangeSet, store: MemoryStore) -> Rig {
        let space = SpaceId::new("test").unwrap();
        block_on(upkeep::bind(&store, space.clone(), ranges)).unwrap();
        Rig {
            engine: Engine::new(Settings {
                space,
                me: ME,
                client: "test".into(),
            }),
            store,
            now: Moment {
                mono_ms: 5_000,
                wall_ms: NOON,
                entropy: 0x1234_5678_9abc,
            },
            notices: vec![],
            calls: vec![],
            cancelled: vec![],
            asked: vec![],
            failing: false,
            end_in_doubt: false,
        }
    }

    pub fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.engine.handle(event, self.now) {
                match effect {
                    Effect::Call {
                        id,
                        version,
                        request,
                    } => self.calls.push((id, version, *request)),
                    Effect::Cancel(id) => self.cancelled.push(id),
                    Effect::Store(op) => {
                        let author = Author {
                            replica: ME,
                            now_ms: self.now.wall_ms,
                        };
                        let doubt = self.end_in_doubt && matches!(op, ops::Op::Conclude(_));
                        let reply = match self.failing {
                            false => block_on(ops::run(&self.store, author, op)),
                            true => Err(StoreError::Io("disk".into())),
                        };
                        let reply = match doubt {
                            false => reply,
                            true => Err(StoreError::InDoubt("disk".into())),
                        };
                        events.push_back(Event::Stored(Box::new(reply)));
                    }
                    Effect::Authenticate { refused } => self.asked.push(refused),
                    Effect::Notify(notice) => self.notices.push(notice),
                }
            }
        }
    }

    pub fn phase(&self) -> Phase {
        self.engine.phase()
    }

    pub fn last_call(&self) -> (CallId, &Request) {
        let (id, _, request) = self.calls.last().expect("a call");
        (*id, request)
    }

    pub fn answer(&mut self, answer: Result<Answer, CallError>) {
        let unary = self.calls.iter().rev().find(|(_, _, r)| {
            matches!(
                r,
                Request::Hello(_) | Request::Push(_) | Request::Reconcile(_)
            )
        });
        let id = unary.expect("a unary call").0;
        self.event(Event::Answered(id, Box::new(answer)));
    }

    fn stream(&self) -> CallId {
        let stream = self
            .calls
            .iter()
            .rev()
            .find(|(_, _, r)| matches!(r, Request::Watch(_) | Request::Snapshot(_)));
        stream.expect("a stream").0
    }

    pub fn streamed(&mut self, message: Streamed) {
        self.event(Event::Streamed(self.stream(), Box::new(message)));
    }

    pub fn watch(&mut self, event: wire::watch_response::Event) {
        self.streamed(Streamed::Watch(wire::WatchResponse { event: Some(event) }));
    }

    pub fn snapshot(&mut self, event: wire::snapshot_response::Event) {
        self.streamed(Streamed::Snapshot(wire::SnapshotResponse {
            event: Some(event),
        }));
    }

    /// On, with a token: Hello is sent.
    pub fn online(&mut self) {
        self.event(Event::Online(true));
        self.event(Event::Token(TokenNews::Ready));
        assert_eq!(self.phase(), Phase::Connecting);
    }

    pub fn greet(&mut self, greeting: Greeting) {
        let Request::Hello(hello) = self.last_call().1 else {
            panic!("no Hello: {:?}", self.last_call());
        };
        let groups = hello.held.len();
        let ranges: usize = hello.held.iter().map(|h| h.ranges.len()).sum();
        let same_horizon = hello.horizon == greeting.position.horizon.0;
        let response = wire::HelloResponse {
            version: 1,
            features: greeting.features,
            server_time_ms: NOON,
            limits: Some(Limits::default().to_wire()),
            grants: vec![wire::Grant {
                key_prefix: vec![],
                access: greeting.access as i32,
            }],
            position: Some(greeting.position.to_wire()),
            restore_points: greeting.restore_points,
            held: vec![greeting.status; groups],
            equal: if same_horizon {
                vec![greeting.equal; ranges]
            } else {
                vec![]
            },
            total_records: greeting.total,
        };
        self.answer(Ok(Answer::Hello(response)));
    }

    /// Online and live, both sides empty.
    pub fn live(&mut self) {
        self.online();
        self.greet(Greeting::at(position(1, 0, 0)).equal());
        assert_eq!(self.phase(), Phase::CatchingUp);
        self.checkpoint(position(1, 0, 0));
        assert_eq!(self.phase(), Phase::Live);
    }

    /// A checkpoint that agrees with the replica.
    pub fn checkpoint(&mut self, position: Position) {
        let fingerprint = self.fingerprint();
        self.checkpoint_of(position, fingerprint);
    }

    pub fn checkpoint_of(&mut self, position: Position, fingerprint: Vec<u8>) {
        self.watch(wire::watch_response::Event::Checkpoint(wire::Checkpoint {
            position: Some(position.to_wire()),
            ranges: vec![wire::RangeState {
                count: 0,
                fingerprint,
            }],
            server_time_ms: NOON,
        }));
    }

    pub fn fingerprint(&self) -> Vec<u8> {
        let total = self.engine.image().tree().summary(&KeyRange::all());
        total.fingerprint.0.to_vec()
    }

    pub fn changes(&mut self, records: Vec<Record>, end: Option<Cursor>) {
        self.watch(wire::watch_response::Event::Changes(wire::Changes {
            records: records.into_iter().map(Into::into).collect(),
            cursor: end.map(Cursor::to_wire),
        }));
    }

    pub fn write(&mut self, edits: Vec<Edit>) {
        let author = Author {
            replica: ME,
            now_ms: self.now.wall_ms,
        };
        let reads = Reads::keys(edits.iter().map(|e| e.key().clone()));
        block_on(
            self.store
                .transact(reads, move |view| edit::decide(view, author, edits)),
        )
        .unwrap()
        .unwrap();
        self.event(Event::Wrote);
    }

    pub fn put(&mut self, k: &str, value: &str) {
        self.write(vec![Edit::Put(key(k), value.to_owned().into())]);
    }

    pub fn pushed(&self) -> &wire::PushRequest {
        match self.last_call().1 {
            Request::Push(push) => push,
            other => panic!("no push: {other:?}"),
        }
    }

    pub fn judge(&mut self, position: Position, verdicts: Vec<wire::Verdict>) {
        let held = vec![same(); self.pushed().held.len()];
        self.answer(Ok(Answer::Push(wire::PushResponse {
            verdicts,
            position: Some(position.to_wire()),
            server_time_ms: NOON,
            held,
        })));
    }

    /// Answers the last Reconcile as a server with these records would.
    pub fn reconcile(
        &mut self,
        server: &[Record],
        position: Position,
        status: wire::HistoryStatus,
    ) {
        let Request::Reconcile(request) = self.last_call().1 else {
            panic!("no reconcile: {:?}", self.last_call());
        };
        let records: BTreeMap<Key, Record> =
            server.iter().map(|r| (r.key.clone(), r.clone())).collect();
        let tree = Tree::from_sorted(records.iter().map(|(k, r)| (k, r.digest())));
        let mut response = respond(
            request,
            &RangeSet::all(),
            &tree,
            &RangeSet::default(),
            &Budget::new(&Limits::default()),
            |k| Ok::<_, Infallible>(records.get(k).cloned()),
        )
        .unwrap();
        response.held = vec![status; request.held.len()];
        response.position = Some(position.to_wire());
        self.answer(Ok(Answer::Reconcile(response)));
    }

    /// Puts clean records into the store, as if received at `point`, before
    /// the engine goes online.
    pub fn hold(&mut self, records: Vec<Record>, at: Cursor) {
        let put = records.into_iter().map(|r| Stored::new(r, at.point, 0));
        let put: Vec<_> = put.collect();
        block_on(self.store.transact(Reads::meta(), move |view| {
            let mut meta = view.meta.clone();
            for held in &mut meta.ranges {
                held.cursor = Some(at);
            }
            let changes = Changes {
                put,
                meta: Some(meta),
                ..Changes::default()
            };
            (changes, ())
        }))
        .unwrap();
    }

    /// Before it goes online.
    pub fn know_horizon(&mut self, horizon: Time) {
        block_on(self.store.transact(Reads::meta(), move |view| {
            let meta = Meta {
                horizon,
                ..view.meta.clone()
            };
            let changes = Changes {
                meta: Some(meta),
                ..Changes::default()
            };
            (changes, ())
        }))
        .unwrap();
    }

    /// What is stored, whatever the engine remembers.
    pub fn meta(&self) -> Meta {
        let read = |view: &View| (Changes::default(), view.meta.clone());
        block_on(self.store.transact(Reads::meta(), read)).unwrap()
    }

    pub fn clean(&self) -> Vec<Record> {
        let page = block_on(self.store.page(&KeyRange::all(), None, 10_000)).unwrap();
        page.clean.into_iter().map(|s| s.record).collect()
    }

    pub fn writes(&self) -> Vec<Write> {
        block_on(self.store.writes(None, 10_000)).unwrap()
    }

    pub fn fates(&self) -> Vec<Fate> {
        self.notices
            .iter()
            .filter_map(|n| match n {
                Notice::Changed(outcome) => Some(outcome),
                _ => None,
            })
            .flat_map(|o| o.settled.iter().map(|s| s.fate.clone()))
            .collect()
    }

    /// What readers were told that changed, each time.
    pub fn changed(&self) -> Vec<Vec<Key>> {
        self.notices
            .iter()
            .filter_map(|n| match n {
                Notice::Changed(outcome) => Some(outcome.changed.clone()),
                _ => None,
            })
            .filter(|keys| !keys.is_empty())
            .collect()
    }

    pub fn verified(&self) -> bool {
        let states = self.notices.iter().rev().find_map(|n| match n {
            Notice::State(state) => Some(state.verified),
            _ => None,
        });
        states.unwrap_or(false)
    }

    /// Lets the pause pass.
    pub fn wait(&mut self) -> u64 {
        let at = self.engine.wake_at().expect("something to wait for");
        let pause = at - self.now.mono_ms;
        self.now.mono_ms = at;
        self.now.wall_ms += pause;
        self.event(Event::Tick);
        pause
    }
}

pub fn held(sequence: u64) -> wire::Verdict {
    wire::Verdict {
        outcome: wire::Outcome::Applied as i32,
        sequence,
        ..wire::Verdict::default()
    }
}

pub fn rejected(reason: Reason) -> wire::Verdict {
    wire::Verdict {
        outcome: wire::Outcome::Rejected as i32,
        reason: reason.to_wire() as i32,
        detail: "no".into(),
        ..wire::Verdict::default()
    }
}
