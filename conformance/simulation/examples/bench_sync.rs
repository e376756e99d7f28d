//! `cargo xtask bench sync`: the first push and the first pull of a whole data set between the native client
//! (SQLite) and the server (SQLite, a process of its own) over loopback, beside what SQLite alone takes for the
//! same rows.
//!
//! The raw rate is that of `INSERT` into a table of key and value, WAL, `synchronous=FULL`, 1,000 rows to a
//! transaction: once before, once between and once after the syncs of a round, and the median of the three. Of
//! several rounds, each with databases of its own, the median counts, since disks and machines have moods. A
//! sync ends when the client has seen that both sides hold the same.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use gosync_client::platform::TokioRuntime;
use gosync_client::replica::edit::Edit;
use gosync_client::store::SqliteStore;
use gosync_client::transport::GrpcTransport;
use gosync_client::{Client, Config};
use gosync_proto::{Key, KeyRange};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// First push and first pull of many records, beside the rate of SQLite alone
#[derive(Parser)]
struct Args {
    /// Also write the results to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many records
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 219, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    bytes: u64,
    /// How often everything is measured; the median of an odd number counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Where the databases go; a new folder in it is removed afterwards
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Rows of one transaction, of the raw rate and of local writes.
const BATCH: usize = 1_000;
/// At least this share of the raw rate.
const GOAL: f64 = 0.2;
/// A sync that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<ExitCode> {
    // the server's process is this program too, but then exactly as gosync-server
    if std::env::args().nth(1).as_deref() == Some("serve") {
        let cli = gosync_server::cli::Cli::parse();
        return Ok(gosync_server::commands::run(cli.command));
    }
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(bench(&args))?;
    Ok(ExitCode::SUCCESS)
}

/// Keys in the order of creation, as time-ordered identifiers give them, and values that look like documents.
fn rows(args: &Args) -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..args.records)
        .map(|i| {
            // scattered bits of i: no two alike, nothing to compress
            let noise = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let key = format!(
                "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
                0x0190_0000 + (i >> 16),
                i & 0xffff,
                noise & 0xfff,
                (noise >> 12) & 0xfff,
                noise >> 16
            );
            let mut value = format!(r#"{{"id":{i},"title":"item {i}","noise":""#).into_bytes();
            let mut x = noise;
            while value.len() < args.bytes as usize {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                value.extend_from_slice(format!("{x:016x}").as_bytes());
            }
            value.truncate(args.bytes as usize);
            (key.into_bytes(), value)
        })
        .collect()
}

/// Seconds that SQLite alone takes.
fn raw(folder: &Path, name: &str, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<f64> {
    let mut db = rusqlite::Connection::open(folder.join(name))?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.execute_batch(
        "CREATE TABLE records (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    )?;
    let start = Instant::now();
    for batch in rows.chunks(BATCH) {
        let tx = db.transaction()?;
        {
            let mut insert = tx.prepare_cached("INSERT INTO records VALUES (?1, ?2)")?;
            for (key, value) in batch {
                insert.execute((key, value))?;
            }
        }
        tx.commit()?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The server's process; ended when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--db"])
            .arg(format!("sqlite:{}", folder.join("server.db").display()))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut server = Server {
            child,
            url: String::new(),
        };
        match line.trim_end().strip_prefix("listening on ") {
            Some(url) => server.url = url.to_owned(),
            None => bail!("the server did not start; its log says why"),
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // already gone, at worst
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn open(folder: &Path, name: &str, url: &str, online: bool) -> Result<Client<SqliteStore>> {
    let store = SqliteStore::open(folder.join(name))?;
    let config = Config {
        online,
        ..Config::new("bench")?
    };
    Ok(Client::open(
        store,
        GrpcTransport::new(url)?,
        TokioRuntime::current()?,
        config,
    )
    .await?)
}

async fn sync(client: &Client<SqliteStore>) -> Result<()> {
    let synced = tokio::time::timeout(PATIENCE, client.sync()).await;
    synced.context("the sync hangs")??;
    Ok(())
}

/// Seconds of everything that one round measures.
struct Round {
    raw: f64,
    local: f64,
    push: f64,
    pull: f64,
}

/// A part of a round.
type Part = fn(&Round) -> f64;

/// What is reported, and which part of a round it is.
const MEASURED: [(&str, Part); 3] = [
    ("local write", |round| round.local),
    ("push", |round| round.push),
    ("pull", |round| round.pull),
];

async fn bench(args: &Args) -> Result<()> {
    let rows = rows(args);
    let mut rounds = Vec::new();
    for n in 1..=args.rounds {
        eprintln!("round {n} of {}", args.rounds);
        rounds.push(round(args, &rows).await?);
    }
    report(args, &rounds)
}

async fn round(args: &Args, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<Round> {
    let folder = match &args.folder {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .context("no folder for the databases")?;
    let folder = folder.path();

    let mut raws = vec![raw(folder, "raw-1.db", rows)?];

    let server = Server::start(folder)?;
    let writer = open(folder, "writer.db", &server.url, false).await?;
    let start = Instant::now();
    for batch in rows.chunks(BATCH) {
        let edit = |(key, value): &(Vec<u8>, Vec<u8>)| -> Result<Edit> {
            Ok(Edit::Put(Key::new(key.as_slice())?, value.clone().into()))
        };
        let edits = batch.iter().map(edit).collect::<Result<Vec<_>>>()?;
        let _durable = writer.batch(edits).await?;
    }
    let local = start.elapsed().as_secs_f64();

    let start = Instant::now();
    writer.set_online(true);
    sync(&writer).await?;
    let push = start.elapsed().as_secs_f64();

    raws.push(raw(folder, "raw-2.db", rows)?);

    let start = Instant::now();
    let reader = open(folder, "reader.db", &server.url, true).await?;
    sync(&reader).await?;
    let pull = start.elapsed().as_secs_f64();

    raws.push(raw(folder, "raw-3.db", rows)?);

    let held = reader.list_all(&KeyRange::all()).await?;
    ensure!(
        held.len() == rows.len(),
        "the reader holds {} records of {}",
        held.len(),
        rows.len()
    );
    for (row, (key, value)) in held.iter().zip(rows) {
        ensure!(
            row.key.as_bytes() == key && row.value == *value,
            "a record differs"
        );
    }
    ensure!(
        writer.status().pending == 0,
        "something was left to be pushed"
    );
    Ok(Round {
        raw: median(raws),
        local,
        push,
        pull,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(args: &Args, rounds: &[Round]) -> Result<()> {
    let rate = |seconds: f64| args.records as f64 / seconds;
    let of = |part: &dyn Fn(&Round) -> f64| rounds.iter().map(part).collect::<Vec<_>>();
    let case = format!("{}x{}", args.records, args.bytes);
    println!(
        "{:<28} {:>8} {:>12} {:>12} {:>7}  rounds",
        "case", "seconds", "records/s", "raw SQLite", "ratio"
    );
    let raw = median(of(&|round| round.raw));
    let mut results = Vec::new();
    let mut met = true;
    for (name, part) in MEASURED {
        let seconds = median(of(&part));
        let mut ratios = of(&|round| round.raw / part(round));
        ratios.sort_by(f64::total_cmp);
        let ratio = median(ratios.clone());
        let good = ratio >= GOAL;
        met &= good;
        println!(
            "{:<28} {seconds:>8.2} {:>12.0} {:>12.0} {ratio:>6.2}x  {:.2} to {:.2}{}",
            format!("{case} {name}"),
            rate(seconds),
            rate(raw),
            ratios[0],
            ratios[ratios.len() - 1],
            if good { "" } else { "  goal missed" },
        );
        results.push(json!({
            "case": format!("{case}/{}", name.replace(' ', "_")), "metric": "records_per_second",
            "ours": rate(seconds), "peer": "raw_sqlite", "peer_value": rate(raw), "ratio": ratio,
        }));
    }
    println!(
        "goal: at least {GOAL}x the rate of SQLite alone (WAL, synchronous=FULL, {BATCH} rows to a transaction): {}",
        if met { "met" } else { "missed" }
    );
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&results)?;
        std::fs::write(file, json + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
