//! `gosync-adapter-client`: the native reference client behind `driver.proto`.
//! Stores lie in the working directory.

use std::process::ExitCode;

fn main() -> ExitCode {
    match gosync_adapters::client::run(&mut std::io::stdin().lock(), &mut std::io::stdout().lock())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gosync-adapter-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}
