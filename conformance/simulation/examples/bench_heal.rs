//! `cargo xtask bench heal`: what healing costs. A server and a device hold the same records; some of them are
//! damaged on one side while nobody looks; then the two find out and mend it. Real client, real server logic,
//! virtual time: the figures are the same in every run.

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use gosync_client::engine::Phase;
use gosync_client::replica::edit::Edit;
use gosync_proto::limits::Limits;
use gosync_proto::{Content, Key, Record, ReplicaId, SpaceId, Time, Version};
use gosync_simulation::chance::Chance;
use gosync_simulation::device::{Device, Habits};
use gosync_simulation::executor::Executor;
use gosync_simulation::household::Household;
use gosync_simulation::ledger::Ledger;
use gosync_simulation::net::Net;
use gosync_simulation::server::{EPOCH_MS, Server};
use gosync_simulation::trace::Trace;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Damage to many records, and what mending it costs
#[derive(Parser)]
struct Args {
    /// Also write the results to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many records
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(10..))]
    records: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 219)]
    bytes: usize,
    /// Write the table to HEALING.md beside the simulation
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Server,
    Device,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Corrupt,
    Drop,
    RollBack,
    Add,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Corrupt, "content spoilt"),
    (Kind::Drop, "gone without a trace"),
    (Kind::RollBack, "an older version is back"),
    (Kind::Add, "added without a commit"),
];
const AMOUNTS: [u64; 3] = [1, 100, 10_000];
/// Virtual milliseconds after which a sync has hung.
const PATIENCE_MS: u64 = 3_600_000;
/// By then the device has given up the stream that a dead server left open.
const NOTICED_MS: u64 = 60_000;

const TEXT: &str = "# What healing costs

Written by `cargo xtask bench heal -- --write`. A server and a device hold the same {records} records with values of {bytes} bytes, \
under the default limits. Then records here and there are damaged on one side, behind the back of everything that would note it. \
Spoilt content is found by whoever reads it: the device is asked to verify, the server's operator scrubs; the rest shows in \
fingerprints as soon as the two meet again. The simulation's own network carries the real messages in virtual time, so the figures \
are the same in every run.

- *Sessions* and *rounds*: reconciliations, and their Reconcile calls.
- *Calls*: all calls from the moment that the two meet again until the device knows that both sides are equal: Hello, Reconcile, Push, Watch.
- *Bytes*: of all their messages both ways. *Sound*: what of it remains when the damaged records themselves, once, are subtracted.
- *Records*: how many passed, either way. What a device gives back to the server returns to it by Watch, and counts twice.
- *Equal*: both sides hold every undamaged record and, of each damaged one, what the protocol says.
";

fn main() -> Result<()> {
    let args = Args::parse();
    let mut table = String::from(
        "| Damaged side | Damage | Records | Sessions | Rounds | Calls | Bytes | Sound | Records moved | Equal |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    let mut results = Vec::new();
    for side in [Side::Server, Side::Device] {
        for (kind, about) in KINDS {
            for amount in AMOUNTS.into_iter().filter(|a| a * 2 <= args.records) {
                let cost = Bench::new(&args)?.heal(side, kind, amount)?;
                let row = format!(
                    "| {side:?} | {about} | {amount} | {} | {} | {} | {} | {} | {} | {} |",
                    cost.sessions,
                    cost.rounds,
                    cost.calls,
                    grouped(cost.bytes),
                    grouped(cost.bytes.saturating_sub(cost.damaged_bytes)),
                    grouped(cost.moved),
                    if cost.equal { "yes" } else { "**no**" },
                );
                println!("{row}");
                writeln!(table, "{}", row.to_lowercase())?;
                results.push(json!({
                    "side": format!("{side:?}").to_lowercase(), "damage": about, "records": amount,
                    "sessions": cost.sessions, "rounds": cost.rounds, "calls": cost.calls,
                    "bytes": cost.bytes, "moved": cost.moved, "equal": cost.equal,
                }));
                ensure!(cost.equal, "the two sides do not come to be equal");
            }
        }
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&results)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if args.write {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("HEALING.md");
        let text = TEXT
            .replace("{records}", &grouped(args.records))
            .replace("{bytes}", &args.bytes.to_string());
        std::fs::write(&file, format!("{text}\n{table}"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What one healing took.
struct Cost {
    sessions: usize,
    rounds: u32,
    calls: u64,
    bytes: u64,
    damaged_bytes: u64,
    moved: u64,
    equal: bool,
}

struct Bench {
    executor: Executor,
    server: Server,
    net: Net,
    device: Device,
    space: SpaceId,
    ledger: Ledger,
    chance: Chance,
    value_bytes: usize,
}

impl Bench {
    /// Both sides hold the same.
    fn new(args: &Args) -> Result<Bench> {
        let chance = Chance::new(1);
        let executor = Executor::new(chance.fork());
        let space = SpaceId::new("bench")?;
        let ledger = Ledger::new(false);
        let trace = Trace::new(false);
        let server = Server::new(executor.clone(), chance.fork(), Limits::default(), 1, false)?;
        let net = Net::new(
            executor.clone(),
            chance.fork(),
            server.clone(),
            1,
            BTreeMap::from([(space.to_string(), ledger.clone())]),
            trace.clone(),
        );
        let habits = Habits {
            hot_keys: 1,
            pause_ms: 60_000,
            imports: 0,
            documents: 0,
        };
        let device = Device::new(
            0,
            space.clone(),
            Household::new(0),
            executor.clone(),
            chance.fork(),
            net.clone(),
            ledger.clone(),
            trace,
            habits,
            0,
        );
        device.set_writing(false);
        let bench = Bench {
            executor,
            server,
            net,
            device,
            space,
            ledger,
            chance,
            value_bytes: args.bytes,
        };
        bench.device.open();
        bench.rest()?;
        bench.fill(args)?;
        Ok(bench)
    }

    /// The device's user writes all records.
    fn fill(&self, args: &Args) -> Result<()> {
        let client = self.device.client().context("the device is not open")?;
        let rows: Vec<u64> = (0..args.records).collect();
        for batch in rows.chunks(1_000) {
            let edits: Vec<Edit> = batch
                .iter()
                .map(|i| {
                    let noise = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let key = Key::new(format!("{noise:016x}-{i:08x}").into_bytes())?;
                    let mut value = format!(r#"{{"id":{i},"title":"item {i}"}}"#).into_bytes();
                    value.resize(args.bytes, b'.');
                    Ok(Edit::Put(key, value.into()))
                })
                .collect::<Result<_>>()?;
            let client = client.clone();
            let process = self.executor.new_process();
            self.executor.spawn(process, async move {
                // what did not come to be written is missed below
                let _ = client.batch(edits).await;
            });
            self.wait(100)?;
        }
        self.rest()?;
        let held = self.server.records(&self.space)?.len() as u64;
        ensure!(held == args.records, "the server holds {held} records");
        Ok(())
    }

    fn wait(&self, ms: u64) -> Result<()> {
        Ok(self.executor.run_until(self.executor.now_ms() + ms)?)
    }

    /// Until the device knows that both sides are equal.
    fn rest(&self) -> Result<()> {
        for _ in 0..PATIENCE_MS / 100 {
            self.wait(100)?;
            let status = self.device.client().map(|c| c.status());
            if status.is_some_and(|s| s.phase == Phase::Live && s.verified && s.pending == 0) {
                return Ok(());
            }
        }
        bail!("the two sides do not come to rest")
    }

    fn heal(&self, side: Side, kind: Kind, amount: u64) -> Result<Cost> {
        let mut expected = self.server.records(&self.space)?;
        let keys: Vec<Key> = expected.keys().cloned().collect();
        let mut damage = BTreeSet::new();
        while (damage.len() as u64) < amount {
            let key = self.chance.pick(&keys).context("there are no records")?;
            damage.insert(match kind {
                Kind::Add => Key::new([key.as_bytes(), b"+"].concat())?,
                _ => key.clone(),
            });
        }
        match side {
            Side::Server => self.server.stop()?,
            Side::Device => self.device.crash(),
        }
        for key in &damage {
            self.damage(side, kind, key, &mut expected);
        }
        self.device.take_healings();
        self.net.meter();
        match side {
            Side::Server => self.server.start(),
            Side::Device => self.device.open(),
        }
        if kind == Kind::Corrupt {
            match side {
                Side::Server => {
                    let found = self.server.scrub(&self.space)?;
                    ensure!(found == damage.len(), "{found} damaged records were found");
                }
                Side::Device => {
                    self.rest()?;
                    self.device.verify();
                    self.wait(1)?;
                }
            }
        }
        self.wait(NOTICED_MS)?;
        self.rest()?;
        let traffic = self.net.take_traffic();
        let traffic = traffic.get(&0).copied().unwrap_or_default();
        let healings = self.device.take_healings();
        let damaged = damage.iter().filter_map(|key| expected.get(key));
        Ok(Cost {
            sessions: healings.len(),
            rounds: healings.iter().map(|h| h.rounds).sum(),
            calls: traffic.requests,
            bytes: traffic.bytes,
            damaged_bytes: damaged.map(|r| r.size() as u64).sum(),
            moved: traffic.records,
            equal: self.device.records() == expected
                && self.server.records(&self.space)? == expected,
        })
    }

    fn damage(&self, side: Side, kind: Kind, key: &Key, expected: &mut BTreeMap<Key, Record>) {
        let record = match (kind, expected.get(key)) {
            (Kind::Corrupt, _) => {
                match side {
                    Side::Server => drop(self.server.damage(&self.space, key)),
                    Side::Device => self.device.damage(key),
                }
                return;
            }
            (Kind::Drop, _) => None,
            (_, Some(now)) => Some(Record {
                version: Version {
                    time: Time(now.version.time.0 - 1),
                    ..now.version
                },
                content: Content::Put("before".into()),
                key: key.clone(),
            }),
            (_, None) => Some(Record {
                key: key.clone(),
                version: Version {
                    time: Time::from_millis(EPOCH_MS + self.executor.now_ms()),
                    replica: ReplicaId(self.chance.bits()),
                },
                content: Content::Put(vec![b'+'; self.value_bytes].into()),
            }),
        };
        if let Some(record) = &record {
            self.ledger.planted(record);
            expected
                .entry(key.clone())
                .or_insert_with(|| record.clone());
        }
        match side {
            Side::Server => self.server.tamper(&self.space, key, record.as_ref()),
            Side::Device => self.device.tamper(key, record.as_ref()),
        }
    }
}
