//! `gosync-adapter-server`: the reference server behind `control.proto`.
//! Started with `child` it is that server, otherwise the adapter.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("child") => gosync_adapters::server::child::run(args.collect()),
        _ => gosync_adapters::server::run(
            &mut std::io::stdin().lock(),
            &mut std::io::stdout().lock(),
        ),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gosync-adapter-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
