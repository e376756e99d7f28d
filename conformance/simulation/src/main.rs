//! The program of the simulation: runs seeds of the simulated worlds and shows
//! what fails, with a line that replays it.

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use gosync_proto::mutant::{self, Entry};
use gosync_simulation::campaign::{CHUNK, Failure, Summary, Tell, Way, go_on, run_again};
use gosync_simulation::hunt::{self, Hunt, hunt_all};
use gosync_simulation::run::{Options, Outcome, Part, run};
use gosync_simulation::shrink::shrink;
use gosync_simulation::world::{self, BY_NAME, WORLDS, World};
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Run simulated worlds: the real client and server in one thread, under one seed, in virtual time
#[derive(Parser)]
#[command(bin_name = "cargo xtask simulate")]
struct Args {
    /// How many seeds, each world in turn: 200, or 2,000 for each mutant, if not given
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this world; may be given several times
    #[arg(long, value_name = "NAME")]
    world: Vec<String>,
    /// Only the worlds that seeds otherwise do not take in turn
    #[arg(long, conflicts_with = "world")]
    by_name: bool,
    /// Show everything that happens
    #[arg(long)]
    trace: bool,
    /// Faults end after so many virtual seconds, if not before
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Only these devices are ever switched on, by their numbers in the trace
    #[arg(long, value_name = "N,..", value_parser = numbers)]
    devices: Option<BTreeSet<u64>>,
    /// Only these faults happen, by their numbers in the trace
    #[arg(long, value_name = "N,..", value_parser = numbers)]
    faults: Option<BTreeSet<u64>>,
    /// Show a failing run as it is: do not look for the least part of it that fails
    #[arg(long)]
    whole: bool,
    /// Go on after failures
    #[arg(long)]
    keep_going: bool,
    /// Every so many seeds, run one twice: its trace must be the same
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    twice: Option<u64>,
    /// Threads, each with worlds of its own; by default as many as there are processors
    #[arg(long)]
    jobs: Option<usize>,
    /// Keep the sums in this file, and go on where it ended
    #[arg(long, value_name = "FILE")]
    campaign: Option<PathBuf>,
    /// Run again each run of a campaign's file that failed once, whatever the build
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "seeds", "from", "world", "by_name", "trace", "seconds", "devices", "faults", "campaign",
            "mutant", "mutants",
        ]
    )]
    failed: Option<PathBuf>,
    /// The commit that is tried, for the campaign's file
    #[arg(long, value_name = "COMMIT", requires = "campaign")]
    build: Option<String>,
    /// Make the implementations wrong on purpose, and tell after how many seeds it is noticed: this
    /// mutant of the list, or `all`
    #[arg(long, value_name = "NAME")]
    mutant: Vec<String>,
    /// All mutants that are to be noticed
    #[arg(long)]
    mutants: bool,
    /// Renew the table of mutants in the README
    #[arg(long, requires = "mutants", conflicts_with = "mutant")]
    write: bool,
    /// List the worlds
    #[arg(long)]
    list: bool,
}

/// How many seeds, if nobody says.
const SEEDS: u64 = 200;

/// `1,4,9`; nothing at all is none.
fn numbers(text: &str) -> Result<BTreeSet<u64>, std::num::ParseIntError> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(str::parse).collect()
}

fn main() -> ExitCode {
    match simulate(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(args: &Args) -> Result<bool> {
    if args.list {
        for world in WORLDS.iter().chain(BY_NAME) {
            println!("{:<14} {}", world.name, world.about);
        }
        return Ok(true);
    }
    let worlds = chosen(args)?;
    let options = options(args)?;
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if args.trace {
        return traced(args, &worlds, &options);
    }
    if args.mutants || !args.mutant.is_empty() {
        return hunted(args, &worlds, jobs);
    }
    let way = Way {
        options: options.clone(),
        twice: args.twice,
        jobs,
    };
    let failed = match &args.failed {
        Some(file) => Some(all_failures(file)?),
        None => None,
    };
    let count = match &failed {
        Some(failures) => failures.len() as u64,
        None => args.seeds.unwrap_or(SEEDS),
    };
    let keep_going = args.keep_going || args.campaign.is_some() || args.failed.is_some();
    let bar = Bar::new(count);
    let first = Mutex::new(None);
    let tell = |world: &'static World, outcome: &Outcome, sums: &Summary| {
        let failed = !outcome.violations.is_empty();
        if failed && keep_going {
            bar.clear();
            report(world, outcome, &options, true);
        } else if failed && sums.total().failed == 1 {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            *first = Some((world, outcome.clone()));
        }
        bar.show(&sums.total());
        keep_going || !failed
    };
    let summary = match &failed {
        Some(failures) => run_again(failures, &way, &tell)?,
        None => in_turn(args, &worlds, &way, count, keep_going, &tell)?,
    };
    bar.clear();
    if let Some((world, outcome)) = first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        shrunk(args, world, outcome, &options)?;
    }
    show(&summary);
    Ok(summary.total().failed == 0)
}

/// Each failure of a campaign: none must be left out unseen.
fn all_failures(file: &Path) -> Result<Vec<Failure>> {
    let summary = kept(file)?;
    let (all, kept) = (summary.total().failed, summary.failures.len());
    let file = file.display();
    if kept == 0 {
        bail!("{file} has no failure that could be run again");
    }
    if all > kept as u64 {
        bail!("{file} keeps only {kept} of {all} failures: run its seeds again");
    }
    Ok(summary.failures)
}

/// So many seeds, or so many more of a campaign.
fn in_turn(
    args: &Args,
    worlds: &[&'static World],
    way: &Way,
    seeds: u64,
    keep_going: bool,
    tell: &Tell<'_>,
) -> Result<Summary> {
    let mut summary = match &args.campaign {
        Some(file) if file.exists() => kept(file)?,
        _ => Summary::new(args.from),
    };
    let end = summary.from.saturating_add(seeds);
    while summary.next < end {
        let count = match args.campaign {
            Some(_) => CHUNK.min(end - summary.next),
            None => end - summary.next,
        };
        go_on(&mut summary, worlds, way, count, tell)?;
        if let Some(file) = &args.campaign {
            if let Some(commit) = &args.build {
                summary.tried(commit, count);
            }
            keep(file, &summary)?;
        }
        if summary.total().failed > 0 && !keep_going {
            break;
        }
    }
    Ok(summary)
}

fn chosen(args: &Args) -> Result<Vec<&'static World>> {
    if args.by_name {
        return Ok(BY_NAME.iter().collect());
    }
    if args.world.is_empty() {
        return Ok(WORLDS.iter().collect());
    }
    let find = |name: &String| match world::find(name) {
        Some(world) => Ok(world),
        None => bail!("there is no world {name:?}; --list shows them"),
    };
    args.world.iter().map(find).collect()
}

/// How runs are carried out.
fn options(args: &Args) -> Result<Options> {
    let mutant = match &args.mutant[..] {
        [name] if args.trace => match mutant::find(name) {
            Some(entry) => Some(entry.mutant),
            None => bail!("there is no mutant {name:?}"),
        },
        _ => None,
    };
    Ok(Options {
        print: args.trace,
        mutant,
        part: Part {
            seconds: args.seconds,
            devices: args.devices.clone(),
            faults: args.faults.clone(),
        },
    })
}

/// Each seed in each of the worlds, with everything that happens.
fn traced(args: &Args, worlds: &[&'static World], options: &Options) -> Result<bool> {
    let mut sound = true;
    for seed in args.from..args.from.saturating_add(args.seeds.unwrap_or(SEEDS)) {
        for world in worlds {
            let outcome = run(world, seed, options)?;
            println!("trace {}", outcome.hash);
            if !outcome.violations.is_empty() {
                report(world, &outcome, options, true);
                sound = false;
            }
        }
    }
    Ok(sound)
}

/// A failing run, and the least part of it that fails in the same way.
fn shrunk(args: &Args, world: &'static World, outcome: Outcome, options: &Options) -> Result<()> {
    if args.whole {
        report(world, &outcome, options, false);
        return Ok(());
    }
    report(world, &outcome, options, true);
    eprintln!("looking for the least part of it that fails ...");
    let (least, outcome) = shrink(world, outcome, options)?;
    report(world, &outcome, &least, false);
    Ok(())
}

/// One line for each mutant; with `--write` the table in the README.
fn hunted(args: &Args, worlds: &[&'static World], jobs: usize) -> Result<bool> {
    let entries: Vec<&Entry> = match &args.mutant[..] {
        [] => hunt::entries(hunt::NOTICED)?,
        [all] if all == "all" => mutant::ALL.iter().collect(),
        names => hunt::entries(names)?,
    };
    std::panic::set_hook(Box::new(|_| ()));
    let tell = |entry: &Entry, result: &Hunt| match result {
        Hunt::Found {
            seed,
            world,
            violation,
        } => println!("{}: {} seeds, {world}: {violation}", entry.name, seed + 1),
        Hunt::Survived(seeds) => println!("{}: NOT in {seeds} seeds", entry.name),
    };
    let seeds = args.seeds.unwrap_or(2_000);
    let results = hunt_all(&entries, worlds, seeds, jobs, &tell)?;
    if args.write {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let old = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let new = hunt::with_table(&old, &hunt::table(&results))?;
        std::fs::write(&file, new).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let survived = |(_, result): &(&Entry, Hunt)| matches!(result, Hunt::Survived(_));
    Ok(!results.iter().any(survived))
}

fn kept(file: &Path) -> Result<Summary> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no summary", file.display()))
}

fn keep(file: &Path, summary: &Summary) -> Result<()> {
    let mut text = serde_json::to_string_pretty(summary)?;
    text.push('\n');
    // whole or not at all: it may be ended at any time
    let new = file.with_extension("new");
    std::fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))
}

fn show(summary: &Summary) {
    let total = summary.total();
    let rows = summary.worlds.iter().map(|(name, sums)| (&name[..], sums));
    for (name, s) in rows.chain([("all", &total)]) {
        println!(
            "{name:<14} {:>7} seeds, {} failed, {:>8} writes, {:>8.1} virtual hours: {:>5} times real time",
            s.seeds,
            s.failed,
            s.writes,
            s.virtual_seconds as f64 / 3_600.0,
            s.times_real_time,
        );
    }
}

fn report(world: &World, outcome: &Outcome, options: &Options, brief: bool) {
    if !brief {
        println!("... the end of the trace:");
        for line in &outcome.tail {
            println!("{line}");
        }
    }
    println!("FAILED: world {}, seed {}:", world.name, outcome.seed);
    for violation in outcome.violations.iter().take(20) {
        println!("  - {violation}");
    }
    println!(
        "  replay: cargo xtask simulate --world {} --from {} --seeds 1 --trace{}",
        world.name,
        outcome.seed,
        flags(&options.part)
    );
}

/// The options that leave of a world just this part.
fn flags(part: &Part) -> String {
    fn listed<N: ToString>(numbers: &BTreeSet<N>) -> String {
        let numbers: Vec<String> = numbers.iter().map(N::to_string).collect();
        numbers.join(",")
    }
    let seconds = part.seconds.map(|s| format!(" --seconds {s}"));
    let devices = part.devices.as_ref();
    let devices = devices.map(|d| format!(" --devices={}", listed(d)));
    let faults = part.faults.as_ref();
    let faults = faults.map(|f| format!(" --faults={}", listed(f)));
    let all = [seconds, devices, faults];
    all.into_iter().flatten().collect()
}

/// How far it is, for people who wait.
struct Bar {
    of: u64,
    began: Instant,
    terminal: bool,
}

impl Bar {
    fn new(of: u64) -> Bar {
        Bar {
            of,
            began: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    fn show(&self, done: &gosync_simulation::campaign::Sums) {
        let seconds = self.began.elapsed().as_secs();
        let (of, seeds) = (self.of.max(1), done.seeds.min(self.of));
        let mut to = std::io::stderr().lock();
        // who does not wait in front of a terminal sees every tenth part
        let _ = if self.terminal {
            let full = "#".repeat((seeds * 30 / of) as usize);
            write!(
                to,
                "\r[{full:<30}] {seeds}/{of} seeds, {} failed, {seconds} s ",
                done.failed
            )
        } else if seeds * 10 / of > (seeds - 1) * 10 / of {
            writeln!(
                to,
                "{seeds}/{of} seeds, {} failed, {seconds} s",
                done.failed
            )
        } else {
            return;
        };
        let _ = to.flush();
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r{:78}\r", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_simulation::campaign::NoSuchWorld;
    use std::ffi::OsString;

    fn again(failures: &[(&str, u64)]) -> Result<bool> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("campaign.json");
        let mut campaign = Summary::new(0);
        campaign.failures = failures
            .iter()
            .map(|(world, seed)| Failure {
                world: (*world).to_owned(),
                seed: *seed,
                violations: vec!["something that was mended".into()],
            })
            .collect();
        keep(&file, &campaign)?;
        let words = [OsString::from("simulate"), "--failed".into(), file.into()];
        simulate(&Args::parse_from(words))
    }

    #[test]
    fn what_failed_once_is_run_again_and_passes() {
        assert!(again(&[("calm", 3), ("half-open", 4)]).unwrap());
    }

    #[test]
    fn a_campaign_without_a_failure_is_an_error_and_no_success() {
        let error = again(&[]).unwrap_err();
        assert!(error.to_string().contains("no failure"), "{error}");
    }

    #[test]
    fn a_failure_of_a_world_that_is_no_more_is_an_error_that_names_it() {
        let error = again(&[("calm", 3), ("atlantis", 9)]).unwrap_err();
        let expected = NoSuchWorld {
            world: "atlantis".into(),
            seed: 9,
        };
        assert!(error.to_string().contains("atlantis"), "{error}");
        assert_eq!(error.downcast::<NoSuchWorld>().unwrap(), expected);
    }
}
