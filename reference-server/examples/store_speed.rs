//! How fast the store takes and gives records, without a network: 100,000
//! records of 219 bytes through the request logic over SQLite.
//!
//! `cargo run --release -p gosync-server --example store_speed [FOLDER]`

use gosync_proto::{KeyRange, Time, wire};
use gosync_server::service::{Access, Service, ServiceConfig};
use gosync_server::store::sqlite::{SqliteOptions, SqliteStore};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

const RECORDS: u64 = 100_000;
const NOW: u64 = 1_800_000_000_000;

fn record(i: u64, scattered: bool, age: u64) -> wire::Record {
    let n = if scattered {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    } else {
        i
    };
    wire::Record {
        key: format!("todos/{n:020}").into_bytes(),
        version: Some(wire::Version {
            time: Time::from_millis(NOW - age).0,
            replica: 1,
        }),
        flags: 0,
        value: vec![b'x'; 219].into(),
    }
}

/// A stretch of time, on the wall and in processors.
struct Stretch {
    began: Instant,
    cpu: Option<f64>,
}

impl Stretch {
    fn begin() -> Stretch {
        Stretch {
            began: Instant::now(),
            cpu: cpu_seconds(),
        }
    }

    fn rate(&self, what: &str) {
        let wall = RECORDS as f64 / self.began.elapsed().as_secs_f64();
        print!("{what:40} {wall:>9.0} records/s");
        match (self.cpu, cpu_seconds()) {
            (Some(before), Some(now)) if now > before => {
                println!(
                    ", {:>9.0} by processor time",
                    RECORDS as f64 / (now - before)
                );
            }
            _ => println!(),
        }
    }
}

/// What this process has used of the processors, where the system tells: on a
/// busy machine it is the steadier figure. In hundredths, as Linux counts.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

fn all(cursor: Option<wire::Cursor>) -> Vec<wire::HeldRanges> {
    vec![wire::HeldRanges {
        ranges: vec![(&KeyRange::all()).into()],
        cursor,
    }]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    for (batch, scattered) in [(1_000, false), (1_000, true), (5_000, false), (5_000, true)] {
        let path =
            std::path::Path::new(&folder).join(format!("store_speed_{batch}_{scattered}.db"));
        let options = SqliteOptions {
            readers: 4,
            new_epoch: 1,
            now_ms: NOW,
        };
        let store = Arc::new(SqliteStore::open(&path, options)?);
        let service = Service::new(store.clone(), ServiceConfig::default(), Box::new(|| 7));
        let access = Access::full();
        let order = if scattered { "scattered" } else { "ordered" };
        println!("{order} keys, {batch} records a push");
        for (what, age) in [("push, new", 1_000), ("push, replacing", 0)] {
            let batches: Vec<wire::PushRequest> = (0..RECORDS / batch)
                .map(|b| wire::PushRequest {
                    space: "space".into(),
                    records: (0..batch)
                        .map(|i| record(b * batch + i, scattered, age))
                        .collect(),
                    held: all(None),
                    ..Default::default()
                })
                .collect();
            let stretch = Stretch::begin();
            for request in batches {
                service.push(&access, request, NOW)?;
            }
            stretch.rate(what);
        }
        let stretch = Stretch::begin();
        let request = wire::WatchRequest {
            space: "space".into(),
            held: all(None),
            ..Default::default()
        };
        let mut watch = service.watch(&access, request)?;
        let mut messages = 0;
        while watch.step(NOW)?.is_some() {
            messages += 1;
        }
        stretch.rate(&format!("watch from the start, {messages} messages"));
        let stretch = Stretch::begin();
        watch.want_checkpoint();
        watch.step(NOW)?;
        println!(
            "checkpoint, tree at hand {:>31.1} us",
            stretch.began.elapsed().as_secs_f64() * 1e6
        );
        let stretch = Stretch::begin();
        let request = wire::SnapshotRequest {
            space: "space".into(),
            held: all(None),
            ..Default::default()
        };
        service.snapshot(&access, &request, NOW, &mut |_| ControlFlow::Continue(()))?;
        stretch.rate("snapshot");
        service
            .spaces()
            .forget(&gosync_proto::SpaceId::new("space")?);
        let stretch = Stretch::begin();
        watch.want_checkpoint();
        watch.step(NOW)?;
        stretch.rate("tree from nothing");
        let stats = store.writer_stats();
        println!("{} commits", stats.commits.load(Ordering::Relaxed));
        drop((watch, service, store));
        println!("{} bytes in the file\n", std::fs::metadata(&path)?.len());
        std::fs::remove_file(&path)?;
    }
    Ok(())
}
