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

/// What befalls so many records.
#[derive(Clone, Copy)]
struct Damage {
    /// Both, in turn, if none.
    side: Option<Side>,
    /// Every kind, in turn, if none.
    kind: Option<Kind>,
    /// They lie side by side, not here and there.
    neighbours: bool,
    records: u64,
}

impl Damage {
    const fn scattered(side: Side, kind: Kind, records: u64) -> Damage {
        Damage {
            side: Some(side),
            kind: Some(kind),
            neighbours: false,
            records,
        }
    }

    /// All rows of the table.
    fn all() -> Vec<Damage> {
        let mut all = Vec::new();
        for side in [Side::Server, Side::Device] {
            for kind in Kind::ALL {
                all.extend(AMOUNTS.map(|records| Damage::scattered(side, kind, records)));
            }
        }
        for neighbours in [false, true] {
            all.extend(AMOUNTS[1..].iter().map(|records| Damage {
                side: None,
                kind: None,
                neighbours,
                records: *records,
            }));
        }
        all
    }

    /// What befalls the nth of them, and where.
    fn of(&self, n: usize) -> (Side, Kind) {
        let side = [Side::Server, Side::Device][n / Kind::ALL.len() % 2];
        let kind = Kind::ALL[n % Kind::ALL.len()];
        (self.side.unwrap_or(side), self.kind.unwrap_or(kind))
    }

    fn place(&self) -> String {
        self.side
            .map_or("both".into(), |side| format!("{side:?}").to_lowercase())
    }

    fn about(&self) -> String {
        let about = self.kind.map_or("every kind", Kind::about);
        let near = if self.neighbours { ", neighbours" } else { "" };
        format!("{about}{near}")
    }
}

/// What `--check` repeats of it: filling both sides takes far longer than healing so few.
const CHECKED: [Damage; 5] = [
    Damage::scattered(Side::Server, Kind::Drop, 100),
    Damage::scattered(Side::Server, Kind::RollBack, 100),
    Damage::scattered(Side::Device, Kind::Corrupt, 100),
    Damage::scattered(Side::Device, Kind::Add, 100),
    Damage {
        side: None,
        kind: None,
        neighbours: true,
        records: 100,
    },
];

const TEXT: &str = "# What healing costs

Written by `cargo xtask bench heal -- --write`. A server and a device hold the same {records} records with values of {bytes} bytes, \
under the default limits. Then records here and there are damaged on one side, or by turns on both and in every way, also side by \
side, behind the back of everything that would note it. \
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
    let all = Damage::all().into_iter();
    for damage in all.filter(|d| d.records * 2 <= args.records) {
        let (cost, damaged_bytes) = heal(&args, damage)?;
        let row = row(damage, &cost, damaged_bytes);
        println!("{row}");
        writeln!(table, "{row}")?;
        results.push(json!({
            "side": damage.place(), "damage": damage.about(), "records": damage.records,
            "sessions": cost.sessions, "rounds": cost.rounds, "calls": cost.calls,
            "bytes": cost.bytes, "moved": cost.moved, "equal": true,
        }));
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
fn row(damage: Damage, cost: &Cost, damaged_bytes: u64) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | yes |",
        damage.place(),
        damage.about(),
        damage.records,
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
    for damage in CHECKED {
        let (cost, damaged_bytes) = heal(args, damage)?;
        let row = row(damage, &cost, damaged_bytes);
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

/// Fills both sides, damages so many records, and lets the two meet; also tells how much was damaged.
fn heal(args: &Args, damage: Damage) -> Result<(Cost, u64)> {
    let mut pair = filled(args)?;
    let keys: Vec<Key> = pair.records().keys().cloned().collect();
    let chance = Chance::new(2);
    let count = usize::try_from(damage.records)?;
    let mut chosen = BTreeSet::new();
    if damage.neighbours {
        let first = (keys.len() - count) / 3;
        chosen.extend(keys[first..first + count].iter().cloned());
    }
    while chosen.len() < count {
        chosen.insert(chance.pick(&keys).context("there are no records")?.clone());
    }
    pair.part()?;
    let mut damaged = Vec::new();
    for (n, mut key) in chosen.into_iter().enumerate() {
        let (side, kind) = damage.of(n);
        if matches!(kind, Kind::Add) {
            key = Key::new([key.as_bytes(), b"+"].concat())?;
        }
        pair.damage(side, kind, &key)?;
        damaged.push(key);
    }
    let expected = pair.expected();
    let damaged = damaged.iter().filter_map(|key| expected.get(key));
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
