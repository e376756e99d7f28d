//! Programs that say on their first line where they listen: servers, and the suite that browsers dial in to.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// A running one; it ends with this value.
pub struct Serving {
    process: Child,
    stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub url: String,
}

impl Serving {
    /// Starts it, and waits until it listens.
    pub fn start(mut command: Command) -> Result<Serving> {
        eprintln!("  $ {}", process::line(&command));
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(&command)))?;
        let Some(stdout) = process.stdout.take() else {
            bail!("`{}` has no output", process::line(&command));
        };
        let mut serving = Serving {
            process,
            stdout: BufReader::new(stdout),
            url: String::new(),
        };
        let mut line = String::new();
        serving.stdout.read_line(&mut line)?;
        serving.url = line
            .split_whitespace()
            .find(|word| word.contains("://"))
            .unwrap_or_default()
            .to_owned();
        if serving.url.is_empty() {
            bail!(
                "`{}` did not say where it listens: {:?}",
                process::line(&command),
                line.trim()
            );
        }
        Ok(serving)
    }

    /// Shows what else it says until it ends by itself.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line)? > 0 {
            print!("{line}");
            line.clear();
        }
        Ok(self.process.wait()?)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left of it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
