//! `cargo xtask browsers`: the WASM client in real browsers, judged by the conformance suite, which they dial in to.
//! Knows no case, and drives no browser: it opens one page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::serving::Serving;
use crate::setup::browser;
use crate::{build_wasm, conformance, files, process, test, workspace};

/// Run the conformance suite against the WASM client in real browsers
#[derive(clap::Args)]
pub struct Args {
    /// Which [default: all]
    #[arg(value_enum)]
    engines: Vec<Engine>,
    /// Write the table to conformance/BROWSERS.md
    #[arg(long)]
    write: bool,
}

/// A browser; the page runs as many drivers at once as the suite runs cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Engine {
    /// Chromium or Chrome
    Chromium,
    /// Firefox
    Firefox,
    /// WebKitGTK's MiniBrowser, in a virtual X server
    Webkit,
}

const SLOTS: &str = "4";

const HEAD: &str = "# Browsers

The reference client's WASM build in real browsers, judged by the suite: `cargo xtask browsers --write` made this. Each
browser dials in as [`README.md`](README.md) says; a browser speaks gRPC-web only.

| Browser | Verdict | Passed | Non-strict | Failed | Inconclusive | Not run |
|---|---|---|---|---|---|---|
";

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let engines = match args.engines.as_slice() {
        [] => Engine::value_variants(),
        some => some,
    };
    ensure!(
        !args.write || engines == Engine::value_variants(),
        "the table is written from a run in all browsers"
    );
    let site = site()?;
    let mut table = HEAD.to_owned();
    let mut bad = Vec::new();
    for engine in engines {
        let run = judge(*engine, &site)?;
        table.push_str(&run.row());
        if run.verdict != CONFORMANT {
            bad.push(run.browser);
        }
    }
    print!("{table}");
    if args.write {
        let path = workspace::root().join("conformance/BROWSERS.md");
        fs::write(&path, table).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(bad.is_empty(), "not conformant: {}", bad.join(", "));
    Ok(())
}

/// The one that runs with the tests.
pub fn chromium() -> Result<()> {
    let run = judge(Engine::Chromium, &site()?)?;
    ensure!(
        run.verdict == CONFORMANT,
        "{}: {}",
        run.browser,
        run.verdict
    );
    Ok(())
}

const CONFORMANT: &str = "conformant";

/// What came out.
struct Run {
    browser: String,
    verdict: &'static str,
    passed: usize,
    non_strict: usize,
    failed: usize,
    inconclusive: usize,
    not_run: Vec<String>,
}

impl Run {
    /// Reads the suite's JSON report.
    fn read(browser: String, code: Option<i32>, report: &Value) -> Result<Run> {
        let cases = report["cases"]
            .as_array()
            .context("no cases in the report")?;
        let count = |verdict| cases.iter().filter(|c| c["verdict"] == verdict).count();
        let not_run = cases.iter().filter(|c| c["verdict"] == "not-run");
        Ok(Run {
            browser,
            verdict: match code {
                Some(0) => CONFORMANT,
                Some(1) => "not conformant",
                _ => "inconclusive",
            },
            passed: count("passed"),
            non_strict: count("non-strict"),
            failed: count("failed"),
            inconclusive: count("inconclusive"),
            not_run: not_run
                .map(|c| format!("`{}` {}", word(&c["name"]), word(&c["reason"])))
                .collect(),
        })
    }

    fn row(&self) -> String {
        let not_run = match self.not_run.as_slice() {
            [] => "0".to_owned(),
            some => format!("{}: {}", some.len(), some.join(", ")),
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {not_run} |\n",
            self.browser,
            self.verdict,
            self.passed,
            self.non_strict,
            self.failed,
            self.inconclusive
        )
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Builds everything, and puts the driver's page together.
fn site() -> Result<PathBuf> {
    build_wasm::build()?;
    test::programs()?;
    let site = workspace::target().join("test/driver-page");
    files::remove_dir(&site)?;
    let wasm = workspace::root().join("conformance/adapters/wasm");
    files::copy_dir(&wasm, &site)?;
    let package = site.join("package");
    files::copy_dir(&build_wasm::js().join("wasm"), &package.join("wasm"))?;
    fs::copy(
        build_wasm::js().join("package.json"),
        package.join("package.json"),
    )?;
    Ok(site)
}

fn judge(engine: Engine, site: &Path) -> Result<Run> {
    let browser = engine.find()?;
    let mut server = Command::new(workspace::program("debug", "gosync-server"));
    server
        .args(["serve", "--listen", "127.0.0.1:0", "--db", "memory:"])
        .args(["--log", "warn", "--static"])
        .arg(site);
    let page = Serving::start(server)?;
    let reports = workspace::target().join("test/browsers");
    let mut suite = conformance::command("client")?;
    suite
        .args(["--listen", "127.0.0.1:0", "--quiet", "--jobs", SLOTS])
        .args(["--report", "text,json,html", "--out"])
        .arg(&reports);
    let mut suite = Serving::start(suite)?;
    let url = format!("{}/browser/?suite={}&slots={SLOTS}", page.url, suite.url);
    let profile = workspace::target().join("test/browser-profile");
    files::remove_dir(&profile)?;
    fs::create_dir_all(&profile)?;
    let window = Window::open(engine.command(&browser, &profile).arg(&url))?;
    let status = suite.end()?;
    drop(window);
    let report = fs::read_to_string(reports.join("report.json"))
        .with_context(|| format!("the suite wrote no report, and ended with {status}"))?;
    Run::read(
        process::output(engine.command(&browser, &profile).arg("--version"))?,
        status.code(),
        &serde_json::from_str(&report)?,
    )
}

impl Engine {
    /// Finds its program, or installs it.
    fn find(self) -> Result<PathBuf> {
        match self {
            Engine::Chromium => Ok(browser::ensure()?.chrome().to_owned()),
            Engine::Firefox => browser::firefox(),
            Engine::Webkit => browser::webkit(),
        }
    }

    /// Without a window that anybody sees, quiet, with everything that it keeps in `profile`.
    fn command(self, program: &Path, profile: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Engine::Chromium => {
                command.args(CHROMIUM_FLAGS);
                command.arg(format!("--user-data-dir={}", profile.display()));
            }
            Engine::Firefox => {
                command.args(["--headless", "--no-remote", "--profile"]);
                command.arg(profile);
            }
            Engine::Webkit => {
                command = Command::new("xvfb-run");
                command.arg("--auto-servernum").arg(program);
                command
                    .env("XDG_DATA_HOME", profile)
                    .env("XDG_CACHE_HOME", profile)
                    .env("WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS", "1")
                    .env("WEBKIT_DISABLE_COMPOSITING_MODE", "1")
                    .env("LIBGL_ALWAYS_SOFTWARE", "1");
            }
        }
        command
    }
}

const CHROMIUM_FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// An open browser with all of its processes; they end with this value.
struct Window(Child);

impl Window {
    fn open(command: &mut Command) -> Result<Window> {
        eprintln!("  $ {}", process::line(command));
        own_group(command.stdin(Stdio::null()));
        // what browsers say there is about the machine
        let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = silent
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(command)))?;
        Ok(Window(child))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        end_group(&self.0);
        // It may have ended by itself; either way nothing is left of it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(unix)]
fn end_group(child: &Child) {
    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::Pid;
    if let Ok(pid @ 1..) = i32::try_from(child.id()) {
        // An error means that it has ended already.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

#[cfg(not(unix))]
fn end_group(_: &Child) {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_counts_verdicts_and_names_what_did_not_run() {
        let report = json!({ "cases": [
            { "name": "a", "verdict": "passed" },
            { "name": "b", "verdict": "failed" },
            { "name": "d", "verdict": "non-strict" },
            { "name": "c", "verdict": "not-run", "reason": "needs wings" },
        ] });
        let run = Run::read("Browser 1".into(), Some(1), &report).unwrap();
        assert_eq!(
            run.row(),
            "| Browser 1 | not conformant | 1 | 1 | 1 | 0 | 1: `c` needs wings |\n"
        );
        assert!(Run::read("Browser 1".into(), None, &json!({})).is_err());
    }
}
