//! What each command does, and with which code the program exits: 0 when it
//! worked, 1 when it did not or found damage, 2 for a wrong command line (from
//! the parser). Results go to standard output, everything else to standard
//! error.

// they panic when nobody reads; `output` is for that
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod data;
mod output;
mod token;

use crate::cli::{Command, ConfigCommand, ServeArgs};
use crate::config::{Config, ConfigError};
use crate::ops::{logs, signals};
use crate::server::Server;
use output::{note, say, tell};
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Runs one command to its end.
pub fn run(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Serve(args) => serve(&args),
        Command::Token { command } => token::run(command),
        Command::Config {
            command: ConfigCommand::Check(args),
        } => config_check(&args),
        Command::Healthcheck { address } => healthcheck(address),
        Command::Data(command) => data::run(command),
    };
    outcome.unwrap_or_else(|error| {
        note!("gosync-server: {error}");
        ExitCode::FAILURE
    })
}

fn load(args: &ServeArgs) -> Result<Config, ConfigError> {
    Config::load(args.config.as_deref(), &args.overrides())
}

fn serve(args: &ServeArgs) -> Outcome {
    let config = load(args)?;
    logs::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = signals::stop_token()?;
        let db = config.db.clone();
        let open_to_all = config.open_to_all();
        let server = Server::bind(config).await?;
        let url = server.url();
        tracing::info!(
            %url,
            %db,
            metrics = server.metrics_address().map(tracing::field::display),
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
        if open_to_all {
            tracing::info!("no token file: every program on this machine may read and write");
        }
        ready(&url, args.ready_file.as_deref())?;
        server.run(stop).await?;
        Ok::<_, Box<dyn Error>>(())
    })?;
    // calls that are still on blocking threads hold the store; what they wrote
    // is durable or was never acknowledged
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Tells whoever waits for it that calls are taken.
fn ready(url: &str, file: Option<&Path>) -> Result<(), ReadyError> {
    if let Some(path) = file {
        let beside = path.with_extension("new");
        std::fs::write(&beside, format!("{url}\n"))
            .and_then(|()| std::fs::rename(&beside, path))
            .map_err(|error| ReadyError(path.display().to_string(), error))?;
    }
    // nobody may be there to read it
    let _ = writeln!(std::io::stdout(), "listening on {url}");
    let _ = std::io::stdout().flush();
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write the ready file {0}: {1}")]
struct ReadyError(String, std::io::Error);

fn config_check(args: &ServeArgs) -> Outcome {
    let config = load(args)?;
    if let Some(path) = &config.auth.tokens {
        let tokens = crate::auth::tokens::read(path)?;
        note!("{}: {} tokens", path.display(), tokens.len());
    }
    tell(format_args!("{}", config.to_toml()))?;
    Ok(ExitCode::SUCCESS)
}

fn healthcheck(address: SocketAddr) -> Outcome {
    match ask_readiness(address) {
        Ok(line) if line.contains(" 200 ") => {
            say!("{address} is ready")?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(line) => Err(format!("{address} is not ready: it answered {line:?}").into()),
        Err(error) => Err(format!("{address} does not answer: {error}").into()),
    }
}

/// The status line of `GET /readyz`.
fn ask_readiness(address: SocketAddr) -> std::io::Result<String> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4_096).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
