//! `cargo xtask bench heal`: what healing costs. A server and a device hold the same records; some of them are
//! damaged on one side while nobody looks; then the two find out and mend it. Real client, real server logic,
//! virtual time: the figures are the same in every run.

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use gosync_client::replica::edit::Edit;
use gosync_proto::limits::Limits;
use gosync_proto::{Key, Record};
use gosync_simulation::chance::Chance;
use gosync_simulation::healing::{Cost, Kind, Pair, Side};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

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
    /// Heal what is cheap to heal, and fail unless HEALING.md says the same of it, bytes apart
    #[arg(long, conflicts_with_all = ["write", "json"])]
    check: bool,
}

const AMOUNTS: [u64; 3] = [1, 100, 10_000];
/// What `--check` repeats of it: filling both sides takes far longer than healing so few.
const CHECKED: [(Side, Kind, u64); 4] = [
    (Side::Server, Kind::Drop, 100),
    (Side::Server, Kind::RollBack, 100),
    (Side::Device, Kind::Corrupt, 100),
    (Side::Device, Kind::Add, 100),
];

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
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("HEALING.md");
    if args.check {
        return check(&args, &file);
    }
    let mut table = String::from(
        "| Damaged side | Damage | Records | Sessions | Rounds | Calls | Bytes | Sound | Records moved | Equal |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    let mut results = Vec::new();
    for side in [Side::Server, Side::Device] {
        for kind in Kind::ALL {
            let about = kind.about();
            for amount in AMOUNTS.into_iter().filter(|a| a * 2 <= args.records) {
                let (cost, damaged_bytes) = heal(&args, side, kind, amount)?;
                let row = row(side, kind, amount, &cost, damaged_bytes);
                println!("{row}");
                writeln!(table, "{row}")?;
                results.push(json!({
                    "side": format!("{side:?}").to_lowercase(), "damage": about, "records": amount,
                    "sessions": cost.sessions, "rounds": cost.rounds, "calls": cost.calls,
                    "bytes": cost.bytes, "moved": cost.moved, "equal": true,
                }));
            }
        }
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&results)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if args.write {
        let text = TEXT
            .replace("{records}", &grouped(args.records))
            .replace("{bytes}", &args.bytes.to_string());
        std::fs::write(&file, format!("{text}\n{table}"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// One row of the table, for two sides that came to be equal.
fn row(side: Side, kind: Kind, amount: u64, cost: &Cost, damaged_bytes: u64) -> String {
    let about = kind.about();
    format!(
        "| {} | {about} | {amount} | {} | {} | {} | {} | {} | {} | yes |",
        format!("{side:?}").to_lowercase(),
        cost.sessions,
        cost.rounds,
        cost.calls,
        grouped(cost.bytes),
        grouped(cost.bytes.saturating_sub(damaged_bytes)),
        grouped(cost.moved),
    )
}

/// Compares some rows with those of the committed table.
fn check(args: &Args, file: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    for (side, kind, amount) in CHECKED {
        let (cost, damaged_bytes) = heal(args, side, kind, amount)?;
        let row = row(side, kind, amount, &cost, damaged_bytes);
        println!("{row}");
        ensure!(
            text.lines()
                .any(|line| without_bytes(line) == without_bytes(&row)),
            "{} says something else of it: run `cargo xtask bench heal -- --write`, and see whether more passes \
             than before",
            file.display()
        );
    }
    Ok(())
}

/// The columns of a row, but those that change with each field of a message.
fn without_bytes(row: &str) -> Vec<&str> {
    let columns = row.split('|').map(str::trim).enumerate();
    let kept = columns.filter(|(n, _)| !(7..=8).contains(n));
    kept.map(|(_, column)| column).collect()
}

/// Fills both sides, damages so many records of one, and lets the two meet; also tells how much was damaged.
fn heal(args: &Args, side: Side, kind: Kind, amount: u64) -> Result<(Cost, u64)> {
    let mut pair = filled(args)?;
    let keys: Vec<Key> = pair.records().keys().cloned().collect();
    let chance = Chance::new(2);
    let mut damage = BTreeSet::new();
    while (damage.len() as u64) < amount {
        let key = chance.pick(&keys).context("there are no records")?;
        damage.insert(match kind {
            Kind::Add => Key::new([key.as_bytes(), b"+"].concat())?,
            _ => key.clone(),
        });
    }
    pair.part()?;
    for key in &damage {
        pair.damage(side, kind, key)?;
    }
    let expected = pair.expected();
    let damaged = damage.iter().filter_map(|key| expected.get(key));
    let damaged_bytes = damaged.map(|r| Record::size(r) as u64).sum();
    Ok((pair.meet()?, damaged_bytes))
}

/// The device's user writes all records.
fn filled(args: &Args) -> Result<Pair> {
    let rows: Vec<u64> = (0..args.records).collect();
    let put = |i: &u64| {
        let noise = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = Key::new(format!("{noise:016x}-{i:08x}").into_bytes())?;
        let mut value = format!(r#"{{"id":{i},"title":"item {i}"}}"#).into_bytes();
        value.resize(args.bytes, b'.');
        Ok(Edit::Put(key, value.into()))
    };
    let batches = rows
        .chunks(1_000)
        .map(|batch| batch.iter().map(put).collect());
    let batches = batches.collect::<Result<Vec<Vec<Edit>>>>()?;
    let mut pair = Pair::new(Limits::default())?;
    pair.write(batches)?;
    let held = pair.records().len() as u64;
    ensure!(held == args.records, "the server holds {held} records");
    Ok(pair)
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
