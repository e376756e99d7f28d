//! The commands that look after a database.

use super::Outcome;
use crate::cli::Command;

pub(super) fn run(command: Command) -> Outcome {
    Err(format!("{command:?} comes with maintenance").into())
}
