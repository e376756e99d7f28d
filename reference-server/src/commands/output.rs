//! Where commands write: results to standard output, remarks to standard
//! error. Knows no command.
//!
//! A reader may go while a command works (`… | head -1`). What the command
//! does to a database or a file is done to its end all the same.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// A result that nobody will see.
#[derive(Debug, thiserror::Error)]
#[error("the result could not be written to standard output: {0}")]
pub(super) struct Unwritten(std::io::Error);

/// Writes a result that must be seen.
pub(super) fn show(result: Arguments<'_>) -> Result<(), Unwritten> {
    let mut out = std::io::stdout().lock();
    out.write_fmt(result)
        .and_then(|()| out.flush())
        .map_err(Unwritten)
}

/// Writes a result, if somebody still reads.
pub(super) fn tell(result: Arguments<'_>) -> Result<(), Unwritten> {
    match show(result) {
        Err(Unwritten(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes to standard error, where nothing is left to be said about a failure.
pub(super) fn remark(text: Arguments<'_>) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_fmt(text).and_then(|()| err.flush());
}

/// [`tell`] for one line, written as `println!` is.
macro_rules! say {
    ($($line:tt)*) => {
        $crate::commands::output::tell(format_args!("{}\n", format_args!($($line)*)))
    };
}

/// [`remark`] for one line, written as `eprintln!` is.
macro_rules! note {
    ($($line:tt)*) => {
        $crate::commands::output::remark(format_args!("{}\n", format_args!($($line)*)))
    };
}

pub(super) use {note, say};
