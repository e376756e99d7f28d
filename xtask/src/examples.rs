//! The conformance suite, pointed at the implementations in other languages under `conformance/examples/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::serving::Serving;
use crate::setup::{node, python};
use crate::{conformance, process, test, workspace};

/// What the client in Python claims.
const PYTHON: &[&str] = &["--profile", "core,heal", "--transport", "grpc"];

/// What the client in TypeScript claims.
const TYPESCRIPT: &[&str] = &[
    "--profile",
    "core,heal,live,hardened",
    "--transport",
    "grpc",
];

/// What the example server claims.
const SERVER: &[&str] = &["--profile", "core", "--transport", "grpc"];

/// Judges each example for the profiles and transports that it claims, and lets them and the reference meet.
pub fn run() -> Result<()> {
    test::programs()?;
    let python = python::ensure()?;
    let python = python.interpreter();
    process::run(Command::new(python).arg(folder().join("python/vectors.py")))?;
    let of_python = driver(python, "python/driver.py");
    conformance::suite("client", &["--exec", &of_python], PYTHON)?;
    let server = Serving::start(example_server(python))?;
    conformance::suite("server", &["--url", &server.url], SERVER)?;
    let of_typescript = typescript()?;
    conformance::suite("client", &["--exec", &of_typescript], TYPESCRIPT)?;
    let reference = workspace::program("debug", "gosync-adapter-client");
    let drivers = [of_python, of_typescript, conformance::word(&reference)];
    together(python, example_server(python), &drivers)?;
    let mut command = Command::new(workspace::program("debug", "gosync-server"));
    command.args(["serve", "--db", "memory:", "--listen", "127.0.0.1:0"]);
    together(python, command, &drivers)
}

fn folder() -> PathBuf {
    workspace::root().join("conformance/examples")
}

/// The command of a driver.
fn driver(interpreter: &Path, script: &str) -> String {
    let script = folder().join(script);
    let words = [interpreter, script.as_path()].map(conformance::word);
    words.join(" ")
}

fn typescript() -> Result<String> {
    let dir = folder().join("typescript");
    let node = node::packages(&dir)?;
    process::run(
        node.npm()?
            .current_dir(&dir)
            .args(["run", "--silent", "build"]),
    )?;
    process::run(
        node.npm()?
            .current_dir(&dir)
            .args(["run", "--silent", "vectors"]),
    )?;
    Ok(driver(&node.program(), "typescript/dist/driver.js"))
}

fn example_server(python: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .arg(folder().join("python/server.py"))
        .args(["--listen", "127.0.0.1:0"]);
    command
}

/// All clients on one server must end with the same records.
fn together(python: &Path, server: Command, drivers: &[String]) -> Result<()> {
    let server = Serving::start(server)?;
    let mut command = Command::new(python);
    command
        .arg(folder().join("interop.py"))
        .args(["--url", &server.url]);
    for driver in drivers {
        command.args(["--driver", driver]);
    }
    process::run(&mut command)
}
