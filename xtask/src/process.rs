//! Running other programs: announced, checked, and with an error that names the command line.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs `command` with its output shown; an exit status other than zero is an error.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("  $ {}", line(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", program(command)))?;
    check(command, status)
}

/// Runs `command` and returns what it wrote to standard output, without the end of line.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start `{}`", program(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            line(command),
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// Runs `command` with its output shown, for at most `limit`; past it the program is killed.
///
/// Returns whether it ended well in time.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<bool> {
    eprintln!("  $ {}", line(command));
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", program(command)))?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Whether `program` can be started at all (asked with `--version`, its output discarded).
pub fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    bail!("`{}` failed ({status})", line(command))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The command line as a person would type it, without the folder of the program.
pub fn line(command: &Command) -> String {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let mut words = vec![name.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| {
        let arg = arg.to_string_lossy();
        if arg.is_empty()
            || arg.contains(|c: char| c.is_whitespace() || "\"'$&|;<>()*?".contains(c))
        {
            format!("'{}'", arg.replace('\'', r"'\''"))
        } else {
            arg.into_owned()
        }
    }));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_quoted_so_that_it_can_be_pasted() {
        let mut command = Command::new("/opt/rust/bin/cargo");
        command.args(["test", "two words", "it's", ""]);
        assert_eq!(line(&command), r"cargo test 'two words' 'it'\''s' ''");
    }

    #[test]
    fn a_failing_program_is_an_error_that_names_the_command() {
        let error = output(crate::workspace::cargo().arg("no-such-command")).unwrap_err();
        assert!(error.to_string().contains("no-such-command"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_that_names_it() {
        let error = run(&mut Command::new("gosync-no-such-program")).unwrap_err();
        assert!(
            format!("{error:#}").contains("gosync-no-such-program"),
            "{error:#}"
        );
        assert!(!exists("gosync-no-such-program"));
    }
}
