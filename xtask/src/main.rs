//! Every command of the project, in one place: `cargo xtask help`.
//!
//! One module per command. Each command asks [`setup`] for just the tools that it needs, so that a fresh
//! machine with nothing but a Rust toolchain can start with any of them. Nothing here knows a rule of the
//! protocol: those live in `proto/`.

mod bench;
mod book;
mod browsers;
mod build_wasm;
mod check;
mod conformance;
mod demo;
mod examples;
mod files;
mod generate;
mod mutants;
mod package;
mod process;
mod serving;
mod setup;
mod simulate;
mod steps;
mod test;
mod web_tests;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Every command of the GoSync project.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Start with `cargo xtask demo`. Every command installs what it needs the first time, \
                  and announces system packages before it does."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Test(test::Args),
    Bench(bench::Args),
    Book(book::Args),
    Browsers(browsers::Args),
    Check(check::Args),
    Generate(generate::Args),
    Mutants(mutants::Args),
    Package(package::Args),
    Setup(setup::Args),
    Simulate(simulate::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Book(args) => book::run(&args),
        Command::Browsers(args) => browsers::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Mutants(args) => mutants::run(&args),
        Command::Package(args) => package::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Simulate(args) => simulate::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
