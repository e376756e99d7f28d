//! The calls over a store in memory and, where it matters, over SQLite.

use super::*;
use crate::maintenance::{CompactOptions, Reach, compact};
use crate::store::contract::{self, Subject};
use crate::store::memory::MemoryStore;
use gosync_proto::history::Epoch;
use gosync_proto::record::{Content, FLAG_TOMBSTONE};
use gosync_proto::version::{ReplicaId, Time, Version};
use gosync_proto::wire::watch_response::Event;
use gosync_proto::wire::{HeldRanges, Outcome, Range};
use gosync_proto::{Key, Reason, Record};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;

mod history;
mod laws;
mod push;
mod reading;

/// Noon of some day, Unix milliseconds.
const NOW: u64 = 1_800_000_000_000;

struct World {
    service: Service,
    subject: Subject,
}

fn counter() -> Entropy {
    let next = AtomicU64::new(1);
    Box::new(move || next.fetch_add(1, Ordering::Relaxed) << 32 | 0xabc)
}

fn world() -> World {
    world_on(contract::memory(), Limits::default())
}

fn world_on(subject: Subject, limits: Limits) -> World {
    let config = ServiceConfig {
        limits,
        ..Default::default()
    };
    World {
        service: Service::new(subject.store.clone(), config, counter()),
        subject,
    }
}

fn space() -> SpaceId {
    SpaceId::new("space").unwrap()
}

fn time(ms: u64) -> u64 {
    Time::from_millis(ms).0
}

fn put(key: &str, ms: u64, value: &str) -> wire::Record {
    wire::Record {
        key: key.into(),
        version: Some(wire::Version {
            time: time(ms),
            replica: 7,
        }),
        flags: 0,
        value: value.to_owned().into(),
    }
}

fn tombstone(key: &str, ms: u64) -> wire::Record {
    wire::Record {
        flags: FLAG_TOMBSTONE,
        ..put(key, ms, "")
    }
}

fn all_from(cursor: Option<wire::Cursor>) -> Vec<HeldRanges> {
    vec![HeldRanges {
        ranges: vec![(&KeyRange::all()).into()],
        cursor,
    }]
}

fn range(start: &str, end: &str) -> Range {
    Range {
        start: start.into(),
        end: Some(end.into()),
    }
}

impl World {
    fn push(&self, records: Vec<wire::Record>) -> wire::PushResponse {
        self.push_at(records, NOW)
    }

    fn push_at(&self, records: Vec<wire::Record>, now: u64) -> wire::PushResponse {
        let request = wire::PushRequest {
            space: "space".into(),
            records,
            ..Default::default()
        };
        self.service.push(&Access::full(), request, now).unwrap()
    }

    fn head(&self) -> wire::Cursor {
        let mut tx = self.subject.store.read(&space()).unwrap();
        tx.state().unwrap().position.head.to_wire()
    }

    fn watch(&self, held: Vec<HeldRanges>) -> Result<Watch, Refusal> {
        let request = wire::WatchRequest {
            space: "space".into(),
            held,
            ..Default::default()
        };
        self.service.watch(&Access::full(), request)
    }

    fn hello(&self, held: Vec<HeldRanges>) -> wire::HelloResponse {
        let request = wire::HelloRequest {
            versions: vec![1],
            features: vec![1, 2, 77],
            space: "space".into(),
            held,
            ..Default::default()
        };
        self.service.hello(&Access::full(), request, NOW).unwrap()
    }

    fn snapshot(&self, request: wire::SnapshotRequest) -> (Vec<SnapshotEvent>, Option<Refusal>) {
        let mut events = Vec::new();
        let request = wire::SnapshotRequest {
            space: "space".into(),
            ..request
        };
        let outcome = self
            .service
            .snapshot(&Access::full(), &request, NOW, &mut |message| {
                events.push(message.event.unwrap());
                ControlFlow::Continue(())
            });
        (events, outcome.err())
    }

    fn compact_until(&self, ms: u64) {
        let options = CompactOptions {
            retention_ms: 0,
            max_step_ms: u64::MAX,
            reach: Reach::Until(Time::from_millis(ms)),
        };
        compact(&*self.subject.store, &space(), NOW, options).unwrap();
    }
}

type SnapshotEvent = wire::snapshot_response::Event;

fn outcomes(response: &wire::PushResponse) -> Vec<Outcome> {
    response.verdicts.iter().map(|v| v.outcome()).collect()
}

fn reasons(response: &wire::PushResponse) -> Vec<Option<Reason>> {
    let reason = |v: &wire::Verdict| Reason::from_wire(v.reason);
    response.verdicts.iter().map(reason).collect()
}

/// Every message until the watch has nothing more.
fn drain(watch: &mut Watch) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(message) = watch.step(NOW).unwrap() {
        events.push(message.event.unwrap());
    }
    events
}

fn keys(records: &[wire::Record]) -> Vec<&str> {
    let text = |r| std::str::from_utf8(r).unwrap();
    records.iter().map(|r| text(&r.key)).collect()
}

fn changed(events: &[Event]) -> Vec<wire::Record> {
    let mut records = Vec::new();
    for event in events {
        if let Event::Changes(c) = event {
            records.extend(c.records.iter().cloned());
        }
    }
    records
}
