//! `cargo xtask bench reconcile`: reconciliation of this protocol and of the `negentropy` crate on the same
//! records, side by side.
//!
//! Both sides of a session run in this thread, and both are summed. Bytes and round trips are exact. What
//! counts: encoded requests and answers with everything that a real replica and server put into them, the
//! final full comparison included (in bytes, not in round trips), without the bodies of the records that the
//! answers carry to the replica. CPU is that of a session over trees (for negentropy: over sorted vectors)
//! that are there already, encoding and decoding included. Negentropy names what has to move and leaves moving
//! it to the application, while our answers carry the records: what it takes to load, encode, decode and check
//! these alone is measured in the same run ("moving") and taken off. Each CPU figure is the median of several
//! alternating runs.
//!
//! A missed goal is marked in its line, and fails only with `--check`: CPU is that of the machine at this
//! moment, and whoever measures wants the numbers first of all.
//!
//! Memory is how much the process grows by while it builds a tree of a million records, per record.

use clap::Parser;
use gosync_proto::limits::Limits;
use gosync_proto::merkle::Tree;
use gosync_proto::reconcile::Options;
use gosync_proto::record::{Digest, Record};
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use serde_json::json;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[path = "../tests/support/workload.rs"]
mod workload;
use workload::{
    Outcome, Random, SPAN_MS, START_MS, Spread, Workload, move_records, session, uuid_v7,
};

/// Bytes, round trips and CPU of a reconciliation, beside the `negentropy` crate on the same records
#[derive(Parser)]
struct Args {
    /// Also write the results to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only cases whose name (records/differences/spread) contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Runs of each session for the CPU median
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Bytes of a short digest; 0: the default
    #[arg(long, default_value_t = 0)]
    digest_len: usize,
    /// Exit with 1 when a goal is missed
    #[arg(long)]
    check: bool,
}

/// CPU time of this thread; wall-clock time where the system does not tell.
fn cpu_time() -> Duration {
    #[cfg(unix)]
    {
        use nix::time::{ClockId, clock_gettime};
        if let Ok(spent) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) {
            return spent.into();
        }
    }
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, f64) {
    let before = cpu_time();
    let result = run();
    (result, (cpu_time() - before).as_secs_f64() * 1e3)
}

/// Ids with times in seconds, as its users have them: coarser times cost it fewer bytes.
fn storage<'a>(records: impl Iterator<Item = &'a Record>) -> NegentropyStorageVector {
    let mut storage = NegentropyStorageVector::new();
    for r in records {
        let id = Id::from_slice(&r.digest().0).expect("32 bytes");
        storage
            .insert(r.version.time.millis() / 1000, id)
            .expect("not sealed");
    }
    storage.seal().expect("distinct");
    storage
}

/// A session of negentropy without a limit on its frames.
fn peer_session(replica: &NegentropyStorageVector, server: &NegentropyStorageVector) -> Outcome {
    let mut outcome = Outcome::default();
    let mut client = Negentropy::borrowed(replica, 0).expect("no limit");
    let mut relay = Negentropy::borrowed(server, 0).expect("no limit");
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let mut question = Some(client.initiate().expect("sealed"));
    while let Some(sent) = question {
        let answer = relay.reconcile(&sent).expect("a correct question");
        outcome.bytes += sent.len() + answer.len();
        outcome.round_trips += 1;
        question = client
            .reconcile_with_ids(&answer, &mut have, &mut need)
            .expect("a correct answer");
    }
    outcome.received = need.len();
    outcome.to_offer = have.len();
    outcome
}

/// Resident memory of this process in bytes; `None` where the system does not tell.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Bytes of memory for each record of a tree of `n`, whose keys are UUIDs in text form.
fn tree_memory(n: u64) -> Option<f64> {
    let mut random = Random(n);
    let before = resident()?;
    // one at a time, so that the tree is all that stays
    let tree = Tree::from_sorted((0..n).map(|i| {
        let key = uuid_v7(START_MS + i * (SPAN_MS / n), &mut random);
        let digest = std::array::from_fn(|_| random.next() as u8);
        (key, Digest(digest))
    }));
    let grown = resident()?.saturating_sub(before);
    assert_eq!(tree.len() as u64, n);
    Some(grown as f64 / n as f64)
}

fn main() {
    let args = Args::parse();
    let mut options = Options::new(&Limits::default());
    if args.digest_len != 0 {
        options.digest_len = args.digest_len;
    }
    let mut results = Vec::new();
    let mut met = true;
    // first, while nothing that was freed can be used again
    const MEMORY: &str = "1000000/memory";
    if MEMORY.contains(&args.only)
        && let Some(bytes) = tree_memory(1_000_000)
    {
        println!("{MEMORY}: {bytes:.0} bytes a record in a tree");
    }
    println!(
        "{:<22} {:>10} {:>10} {:>6}  {:>3} {:>3}  {:>9} {:>9} {:>6}  {:>9}",
        "case", "bytes", "negentropy", "ratio", "RT", "neg", "cpu ms", "neg", "ratio", "moving ms"
    );
    for n in [10_000, 100_000, 1_000_000] {
        for d in [1, 10, 100, 1_000, 10_000] {
            for spread in [Spread::Uniform, Spread::Recent] {
                let case = format!("{n}/{d}/{}", spread.name());
                if d >= n || !case.contains(&args.only) {
                    continue;
                }
                eprint!("{case} ...\r");
                let workload = Workload::new(n, d, spread);
                let held = |on: &[bool]| {
                    storage(
                        workload
                            .records
                            .iter()
                            .zip(on)
                            .filter(|(_, on)| **on)
                            .map(|(r, _)| r),
                    )
                };
                let (replica, server) = (held(&workload.on_replica), held(&workload.on_server));
                let (mut ours, mut theirs, mut moving) = (Vec::new(), Vec::new(), Vec::new());
                let (mut us, mut peer) = (Outcome::default(), Outcome::default());
                for _ in 0..args.runs.max(1) {
                    let ms;
                    (us, ms) = timed(|| session(&workload, options));
                    ours.push(ms);
                    moving.push(timed(|| move_records(&workload)).1);
                    let ms;
                    (peer, ms) = timed(|| peer_session(&replica, &server));
                    theirs.push(ms);
                }
                assert_eq!(
                    (us.received, us.to_offer),
                    (peer.received, peer.to_offer),
                    "{case}: both find the same"
                );
                assert_eq!(
                    us.received + us.to_offer,
                    d,
                    "{case}: all that differs is found"
                );
                let (moving, peer_cpu) = (median(moving), median(theirs));
                let cpu = (median(ours) - moving).max(0.0);
                let bytes_ratio = us.bytes as f64 / peer.bytes as f64;
                let goal = if spread == Spread::Uniform && d >= 100 {
                    0.5
                } else {
                    0.85
                };
                let good =
                    bytes_ratio <= goal && us.round_trips <= peer.round_trips && cpu <= peer_cpu;
                met &= good;
                println!(
                    "{case:<22} {:>10} {:>10} {:>5.2}x  {:>3} {:>3}  {cpu:>9.2} {peer_cpu:>9.2} {:>5.2}x  {moving:>9.2}{}",
                    us.bytes,
                    peer.bytes,
                    bytes_ratio,
                    us.round_trips,
                    peer.round_trips,
                    cpu / peer_cpu,
                    if good { "" } else { "  goal missed" },
                );
                for (metric, ours, theirs) in [
                    ("bytes", us.bytes as f64, peer.bytes as f64),
                    (
                        "round_trips",
                        us.round_trips as f64,
                        peer.round_trips as f64,
                    ),
                    ("cpu_ms", cpu, peer_cpu),
                ] {
                    results.push(json!({
                        "case": case, "metric": metric, "ours": ours, "peer": "negentropy",
                        "peer_value": theirs, "ratio": ours / theirs,
                    }));
                }
            }
        }
    }
    if results.is_empty() {
        eprintln!("error: no case has {:?} in its name", args.only);
        std::process::exit(2);
    }
    println!(
        "goals: at most 0.85x the bytes, 0.5x where 100 or more differences are scattered; no more round trips; no more CPU: {}",
        if met { "met" } else { "missed" }
    );
    if let Some(file) = args.json {
        let json = serde_json::to_string_pretty(&results).expect("plain values");
        if let Err(error) = std::fs::write(&file, json + "\n") {
            eprintln!("error: cannot write {}: {error}", file.display());
            std::process::exit(1);
        }
    }
    if args.check && !met {
        std::process::exit(1);
    }
}
