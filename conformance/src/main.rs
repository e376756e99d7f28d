//! The command line of the suite.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
