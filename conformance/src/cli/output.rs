//! Where commands write: results to standard output, remarks to standard
//! error. Knows no command.
//!
//! A reader may go while a command works (`list | head -1`): the command goes
//! on, and its exit code says what it found.

use super::Problem;
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Writes a result, if somebody still reads.
pub(super) fn tell(result: Arguments<'_>) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(result).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Problem::Fault(format!(
            "the result cannot be written to standard output: {e}"
        ))),
        _ => Ok(()),
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
        $crate::cli::output::tell(format_args!("{}\n", format_args!($($line)*)))
    };
}

/// [`remark`] for one line, written as `eprintln!` is.
macro_rules! note {
    ($($line:tt)*) => {
        $crate::cli::output::remark(format_args!("{}\n", format_args!($($line)*)))
    };
}

pub(super) use {note, say};
