//! The server's process as the adapter sees it: started from the adapter's own
//! program, told what to do in lines, killed without ceremony.

use anyhow::{Context, Result, bail};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a server is started with.
pub struct Setup {
    /// Its database file.
    pub database: PathBuf,
    /// Its token file; `None`: no authentication.
    pub tokens: Option<PathBuf>,
    /// Limits that differ from the defaults, by name.
    pub limits: Vec<(String, u64)>,
    /// What its clock reads beyond the system's.
    pub clock_offset_ms: i64,
    /// Which mutant it is; empty: none.
    pub mutant: String,
}

/// A running server.
pub struct Process {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    url: String,
}

impl Process {
    /// Starts it and waits until it listens.
    pub fn start(setup: &Setup) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("child").arg(setup.clock_offset_ms.to_string());
        command.arg(&setup.mutant);
        command.arg(format!("db=sqlite:{}", setup.database.display()));
        if let Some(tokens) = &setup.tokens {
            command.arg(format!("auth.tokens={}", tokens.display()));
        }
        for (name, value) in &setup.limits {
            command.arg(format!("limits.{name}={value}"));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take().context("the server has no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("the server has no stdout")?);
        let mut process = Process {
            child,
            commands,
            answers,
            url: String::new(),
        };
        process.url = process.answer("listening ")?;
        Ok(process)
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Moves its clock.
    pub fn set_clock(&mut self, offset_ms: i64) -> Result<()> {
        self.tell(&format!("clock {offset_ms}"))
    }

    /// Makes it read its token file now.
    pub fn reload_tokens(&mut self) -> Result<()> {
        self.tell("reload")
    }

    /// Ends it in good order.
    pub fn stop(&mut self) -> Result<()> {
        self.tell("stop")?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it at once.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.commands, "{command}").context("the server is gone")?;
        self.commands.flush()?;
        self.answer("ok").map(drop)
    }

    /// The rest of the next line, which begins with `expected`.
    fn answer(&mut self, expected: &str) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim_end().strip_prefix(expected) {
            Some(rest) => Ok(rest.to_owned()),
            None if line.is_empty() => bail!("the server ended; its log says why"),
            None => bail!("the server says: {}", line.trim_end()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // already gone after stop() and kill()
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
