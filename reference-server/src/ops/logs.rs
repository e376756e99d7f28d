//! Where log lines go: standard error, as text for people or JSON for
//! machines. Standard output is left to the ready line.

use crate::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The filter is not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "log.filter {filter:?} is not usable: {error}; write \"info\" or \"gosync_server=debug,info\""
)]
pub struct BadFilter {
    filter: String,
    error: ParseError,
}

/// Starts logging for the whole process. A second call changes nothing.
///
/// # Errors
/// [`BadFilter`].
pub fn start(config: &LogConfig) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|error| BadFilter {
        filter: config.filter.clone(),
        error,
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // fails only when somebody else has already started logging
    let _ = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Auto => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    Ok(())
}
