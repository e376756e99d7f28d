//! The program as a process of its own, in a folder of its own.

use crate::server::*;
use gosync_proto::wire::snapshot_response;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gosync-server");

/// The program, serving; killed when the test ends.
pub struct Program {
    pub child: Child,
    pub url: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it in `dir` and waits for the ready line.
pub fn serve(dir: &Path, more: &[&str]) -> Program {
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--db", "sqlite:test.db"])
        .args(more)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap_or_else(|| panic!("no ready line but {line:?}"))
        .to_owned();
    Program { child, url }
}

impl Program {
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// How long it takes to end, and with what.
    pub fn wait(&mut self) -> (Duration, std::process::ExitStatus) {
        let begun = Instant::now();
        let status = self.child.wait().unwrap();
        (begun.elapsed(), status)
    }
}

pub fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

/// Runs it with a standard output of the caller's choice.
pub fn run_into(dir: &Path, args: &[&str], stdout: impl Into<Stdio>) -> Output {
    Command::new(PROGRAM)
        .args(args)
        .current_dir(dir)
        .stdout(stdout)
        .output()
        .unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything in a space.
pub async fn contents(url: &str, space: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut client = connect(url).await;
    let mut stream = client
        .snapshot(v1(snapshot(space)))
        .await
        .unwrap()
        .into_inner();
    let mut all = BTreeMap::new();
    let mut complete = false;
    while let Some(message) = stream.message().await.unwrap() {
        match message.event.unwrap() {
            snapshot_response::Event::Chunk(chunk) => {
                all.extend(chunk.records.into_iter().map(|r| (r.key, r.value.to_vec())));
            }
            snapshot_response::Event::Complete(_) => complete = true,
            _ => {}
        }
    }
    assert!(complete);
    all
}
