//! The program of the simulation: runs seeds of the simulated worlds and shows what
//! fails, with a line that replays it.

use anyhow::{Result, bail};
use clap::Parser;
use gosync_simulation::run::{Outcome, run};
use gosync_simulation::world::{self, WORLDS, World};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Run simulated worlds: the real client and server in one thread, under one seed, in virtual time
#[derive(Parser)]
#[command(bin_name = "gosync-simulation")]
struct Args {
    /// How many seeds of each world
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this world; may be given several times
    #[arg(long, value_name = "NAME")]
    world: Vec<String>,
    /// Show everything that happens
    #[arg(long)]
    trace: bool,
    /// Go on after failures
    #[arg(long)]
    keep_going: bool,
    /// Threads, each with worlds of its own; by default as many as there are processors
    #[arg(long)]
    jobs: Option<usize>,
    /// List the worlds
    #[arg(long)]
    list: bool,
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
        for world in WORLDS {
            println!("{:<14} {}", world.name, world.about);
        }
        return Ok(true);
    }
    let mut worlds = Vec::new();
    for name in &args.world {
        match world::find(name) {
            Some(world) => worlds.push(world),
            None => bail!("there is no world {name:?}; --list shows them"),
        }
    }
    if worlds.is_empty() {
        worlds.extend(WORLDS);
    }
    let mut sound = true;
    for world in worlds {
        sound &= all_seeds(args, world)?;
    }
    Ok(sound)
}

/// Returns whether all went well.
fn all_seeds(args: &Args, world: &'static World) -> Result<bool> {
    let jobs = match args.jobs {
        _ if args.trace => 1,
        Some(jobs) => jobs.max(1),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let next = AtomicU64::new(args.from);
    let stop = AtomicBool::new(false);
    let sums = Mutex::new((0u64, 0u64, 0u64, 0u64));
    let fault = Mutex::new(None);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from.saturating_add(args.seeds) {
                        return;
                    }
                    let outcome = match run(world, seed, args.trace) {
                        Ok(outcome) => outcome,
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            *locked(&fault) = Some(error);
                            return;
                        }
                    };
                    let failed = !outcome.violations.is_empty();
                    let mut sums = locked(&sums);
                    sums.0 += 1;
                    sums.1 += u64::from(failed);
                    sums.2 += outcome.virtual_ms;
                    sums.3 += outcome.writes;
                    if failed {
                        if !stop.load(Ordering::Relaxed) {
                            report(world, &outcome, args.keep_going || args.trace);
                        }
                        stop.store(!args.keep_going, Ordering::Relaxed);
                    }
                    if args.trace {
                        println!("trace {}", outcome.hash);
                    }
                }
            });
        }
    });
    if let Some(error) = locked(&fault).take() {
        return Err(error);
    }
    let (seeds, failed, virtual_ms, writes) = *locked(&sums);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:<14} {seeds:>6} seeds, {failed} failed, {writes} writes, {:.1} virtual hours in {seconds:.1} s: {:.0} times real time",
        world.name,
        virtual_ms as f64 / 3_600_000.0,
        virtual_ms as f64 / 1_000.0 / seconds,
    );
    Ok(failed == 0)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn report(world: &World, outcome: &Outcome, brief: bool) {
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
        "  replay: cargo run --release -p gosync-simulation -- --world {} --from {} --seeds 1 --trace",
        world.name, outcome.seed
    );
}
