//! The conformance suite, pointed at the implementations in other languages under `conformance/examples/`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::{node, python};
use crate::{conformance, process, test, workspace};

/// Judges each example for the profiles and transports that it claims.
pub fn run() -> Result<()> {
    test::programs()?;
    python_client()?;
    python_server()?;
    typescript_client()
}

fn typescript_client() -> Result<()> {
    let dir = workspace::root().join("conformance/examples/typescript");
    node::packages(&dir)?;
    process::run(
        Command::new("npm")
            .current_dir(&dir)
            .args(["run", "--silent", "build"]),
    )?;
    let driver = dir.join("dist/driver.js");
    let exec = format!("node {}", conformance::word(&driver));
    conformance::suite("client", &["--exec", &exec], CLIENT)
}

/// What the example clients claim.
const CLIENT: &[&str] = &[
    "--profile",
    "core,heal,live,hardened",
    "--transport",
    "grpc",
];

fn python_client() -> Result<()> {
    let python = python::ensure()?;
    let driver = workspace::root().join("conformance/examples/python/driver.py");
    let exec = format!(
        "{} {}",
        conformance::word(python.interpreter()),
        conformance::word(&driver)
    );
    conformance::suite("client", &["--exec", &exec], CLIENT)
}

fn python_server() -> Result<()> {
    let python = python::ensure()?;
    let mut command = Command::new(python.interpreter());
    command
        .arg(workspace::root().join("conformance/examples/python/server.py"))
        .args(["--listen", "127.0.0.1:0"]);
    let server = Server::start(command)?;
    conformance::suite(
        "server",
        &["--url", &server.url],
        &["--profile", "core", "--transport", "grpc"],
    )
}

/// A server that says on its first line where it listens; it ends with this value.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(mut command: Command) -> Result<Server> {
        eprintln!("  $ {}", process::line(&command));
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let server = Server {
            process,
            url: line
                .split_whitespace()
                .find(|word| word.starts_with("http://"))
                .unwrap_or_default()
                .to_owned(),
        };
        if server.url.is_empty() {
            bail!("the server did not say where it listens: {:?}", line.trim());
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left of it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
