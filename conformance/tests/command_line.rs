//! The command line: what it was called wrongly with, or cannot work with, is
//! said in a line, before anything runs, and is never a verdict.

use gosync_conformance::crude::{Crude, CrudeServer};
use gosync_conformance::peer::{Peer, Quirk, Settings};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const CONFORMANT: i32 = 0;
const NOT_CONFORMANT: i32 = 1;
const USAGE: i32 = 2;
const INCONCLUSIVE: i32 = 3;
const STALE: i32 = 4;

/// Nobody gets as far as to call it.
const URL: &[&str] = &["server", "--url", "http://127.0.0.1:9"];
const DRIVER: &[&str] = &["client", "--exec", "no-such-driver"];
const MUTANTS: &[&str] = &["mutants", "--side", "server", "--exec", "no-such-adapter"];

fn suite() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gosync-conformance"))
}

fn call(parts: &[&[&str]]) -> Output {
    suite().args(parts.concat()).output().unwrap()
}

/// The exit code is that, a line on stderr says why, and no case has run.
fn refused(code: i32, parts: &[&[&str]], says: &str) {
    let output = call(parts);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{parts:?}: {said}");
    let line = said.lines().find(|line| line.starts_with("error: "));
    let told = line.is_some_and(|line| line.contains(says));
    assert!(told, "{parts:?}: no {says:?} in: {said}");
    assert!(output.stdout.is_empty(), "{parts:?}");
    assert!(!said.contains(" ms"), "{parts:?}: {said}");
}

fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    shown(&path)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_space_prefix_that_begins_no_space_id_is_refused() {
    for bad in ["bad space", "ä", "a/b"] {
        refused(USAGE, &[URL, &["--space-prefix", bad]], "ASCII letters");
    }
    let long = "x".repeat(107);
    refused(USAGE, &[URL, &["--space-prefix", &long]], "more than 106");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_space_prefix_leaves_room_for_every_case() {
    let peer = Peer::start(Settings::default(), 7).await.unwrap();
    let url = peer.url();
    let long = "x".repeat(106);
    for prefix in ["", &long] {
        let options = ["--space-prefix", prefix, "--only", "hello/*"];
        let output = call(&[&["server", "--url", &url, "--quiet"], &options]);
        assert_eq!(output.status.code(), Some(CONFORMANT), "{output:?}");
    }
}

#[test]
fn numbers_that_let_nothing_run_are_refused() {
    for command in [URL, DRIVER] {
        for bad in ["0", "-1", "1.5", "soon", "4294967296", ""] {
            let option = format!("--timeout={bad}");
            refused(USAGE, &[command, &[&option]], "expected milliseconds");
        }
    }
    for command in [URL, DRIVER, MUTANTS] {
        for bad in ["0", "-1", "all", "65536"] {
            let option = format!("--jobs={bad}");
            refused(USAGE, &[command, &[&option]], "expected a number from 1");
        }
        refused(USAGE, &[command, &["--seed=x"]], "'--seed <SEED>'");
    }
}

#[test]
fn a_token_file_without_a_token_is_refused_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    for (text, says) in [
        ("", "is empty"),
        (" \n", "is empty"),
        ("sesame\nopen", "no header can carry"),
        ("sesame open", "no header can carry"),
        ("sesame\u{7}", "no header can carry"),
        ("sésame", "no header can carry"),
    ] {
        let file = file(&dir, "token", text);
        refused(USAGE, &[URL, &["--token-file", &file]], says);
        let said = call(&[URL, &["--token-file", &file]]).stderr;
        assert!(!String::from_utf8_lossy(&said).contains("same"));
    }
    let none = shown(&dir.path().join("none"));
    refused(USAGE, &[URL, &["--token-file", &none]], "cannot be read");
}

#[test]
fn a_url_that_names_no_server_is_refused() {
    for (bad, says) in [
        ("nonsense", "expected http://HOST:PORT"),
        ("http://[::1", "expected http://HOST:PORT"),
        ("https://127.0.0.1:9", "no TLS"),
        ("http://127.0.0.1:9/path", "and nothing more"),
        ("http://127.0.0.1:9?query", "and nothing more"),
        ("http://127.0.0.1:99999", "a port from 1"),
    ] {
        refused(USAGE, &[&["server", "--url", bad]], says);
    }
}

#[test]
fn where_nobody_listens_nobody_is_judged() {
    // a port that was free a moment ago
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let says = format!("nobody answers at {url}: is the server running?");
    refused(INCONCLUSIVE, &[&["server", "--url", &url]], &says);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_server_is_not_judged() {
    for kind in [Crude::HangUp, Crude::Silent, Crude::Random] {
        let server = CrudeServer::start(kind).await.unwrap();
        let url = server.url();
        let command = ["server", "--url", &url, "--timeout", "300"];
        let says = format!("no gRPC server answers at {url}");
        refused(INCONCLUSIVE, &[&command], &says);
    }
    // it speaks gRPC: that it does nothing right is a verdict
    let server = CrudeServer::start(Crude::AlwaysError).await.unwrap();
    let url = server.url();
    let command = ["server", "--url", &url, "--only", "push/one"];
    assert_eq!(call(&[&command]).status.code(), Some(NOT_CONFORMANT));
}

#[test]
fn a_web_server_is_not_judged() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            let _ = tcp.read(&mut [0; 4096]);
            let _ = tcp.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let command = ["server", "--url", &url];
    refused(INCONCLUSIVE, &[&command], "grpc-web: HTTP status 404");
}

#[test]
fn reports_that_could_not_be_written_are_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, "file", "");
    let below = format!("{file}/below");
    for command in [URL, DRIVER] {
        for out in [&file, &below] {
            let options = ["--report", "json", "--out", out];
            refused(USAGE, &[command, &options], "it is to be a folder");
        }
    }
}

#[test]
fn a_baseline_that_cannot_be_read_is_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let folder = shown(dir.path());
    let none = shown(&dir.path().join("none"));
    for command in [URL, DRIVER] {
        for bad in [&none, &folder] {
            let options = ["--baseline", bad.as_str()];
            refused(USAGE, &[command, &options], "it cannot be read");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_excuses_what_fails_and_is_stale_where_nothing_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, "baseline", "# why\npush/batch@grpc known\n");
    for (quirk, code) in [(Quirk::VerdictsSorted, CONFORMANT), (Quirk::Nothing, STALE)] {
        let settings = Settings {
            quirks: BTreeSet::from([quirk]),
            ..Settings::default()
        };
        let peer = Peer::start(settings, 7).await.unwrap();
        let command = ["server", "--url", &peer.url(), "--transport", "grpc"];
        // with others, and by itself: then nothing is left that counts
        let both = ["--only", "push/one", "--only", "push/batch"];
        for only in [&both[..], &both[2..]] {
            let output = call(&[&command, only, &["--baseline", &file]]);
            assert_eq!(output.status.code(), Some(code), "{output:?}");
        }
    }
}

#[test]
fn a_command_that_is_none_is_refused() {
    for command in [
        &["server"][..],
        &["client"],
        &["mutants", "--side", "client"],
    ] {
        refused(USAGE, &[command, &["--exec", " "]], "the command is empty");
        refused(USAGE, &[command, &["--exec", "a 'b"]], "an open quote");
        let missing = ["--exec", "no-such-program-anywhere"];
        refused(INCONCLUSIVE, &[command, &missing], "cannot start");
        let ends = ["--exec", "sh -c 'echo no database >&2; exit 7'"];
        let says = "ended (exit status: 7); its last line on stderr: no database";
        refused(INCONCLUSIVE, &[command, &ends], says);
        let noise = ["--exec", "sh -c 'echo hello; read line'"];
        refused(INCONCLUSIVE, &[command, &noise], "than framed messages");
    }
}

#[test]
fn a_mutant_that_the_driver_does_not_list_is_refused() {
    // one that knows none would run what it has, and a verdict come out
    let crude = env!("CARGO_BIN_EXE_gosync-conformance");
    let crude = format!("'{crude}' crude-driver always-ok");
    let command = ["client", "--exec", &crude, "--mutant", "Nobody"];
    refused(USAGE, &[&command], "lists no such mutant");
    let command = ["mutants", "--side", "client", "--exec", &crude];
    refused(USAGE, &[&command], "the adapter lists no mutants");
    refused(USAGE, &[&command, &["--only", "x"]], "no such mutant");
    refused(USAGE, &[URL, &["--mutant", "Nobody"]], "'--mutant <NAME>'");
}

#[test]
fn options_that_choose_nothing_are_refused() {
    let list: &[&str] = &["list"];
    for command in [URL, DRIVER, list] {
        for option in ["--only", "--skip"] {
            for bad in ["nobody/*", "", "[a-"] {
                let options = ["--only", "*/*", option, bad];
                refused(USAGE, &[command, &options], "no case is called so");
            }
        }
        for bad in ["PUSH-999", "push-001", "nonsense", ""] {
            let options = ["--requirement", bad];
            refused(USAGE, &[command, &options], "no such requirement");
        }
        refused(USAGE, &[command, &["--skip", "*"]], "no case is selected");
        refused(USAGE, &[command, &["--profile", "x"]], "'x'");
    }
    for command in [URL, DRIVER] {
        refused(USAGE, &[command, &["--transport", "tcp"]], "'tcp'");
        refused(USAGE, &[command, &["--report", "pdf"]], "'pdf'");
    }
    // a client's
    let options = ["--requirement", "CLIENT-001"];
    refused(USAGE, &[URL, &options], "no case guards it");
    refused(USAGE, &[&["explain", "nobody"]], "no case is called");
    for bad in ["3/2", "2/2", "1", "0/0", ""] {
        refused(USAGE, &[MUTANTS, &["--share", bad]], "no share");
    }
    let command = ["client", "--listen", "here"];
    refused(USAGE, &[&command], "an IP address and a port");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_twice_runs_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = shown(dir.path());
    let peer = Peer::start(Settings::default(), 7).await.unwrap();
    let url = peer.url();
    let command = ["server", "--url", &url, "--report", "json", "--out", &out];
    let options = ["--transport", "grpc,grpc", "--profile", "live,live"];
    assert_eq!(call(&[&command, &options]).status.code(), Some(CONFORMANT));
    let report = fs::read_to_string(dir.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let cases = report["cases"].as_array().unwrap();
    let named: Vec<&str> = cases.iter().map(|c| c["name"].as_str().unwrap()).collect();
    let mut once = named.clone();
    once.sort_unstable();
    once.dedup();
    assert!(!once.is_empty());
    assert_eq!(named.len(), once.len());
}

#[test]
fn a_table_that_is_none_is_neither_judged_nor_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let other = file(&dir, "README.md", "# Something else\n");
    let folder = shown(dir.path());
    let none = shown(&dir.path().join("none.md"));
    let nowhere = shown(&dir.path().join("none/none.md"));
    let missing = ["--missing", "--table"];
    refused(USAGE, &[MUTANTS, &missing, &[&other]], "no table");
    refused(USAGE, &[MUTANTS, &missing, &[&none]], "no --table FILE");
    refused(USAGE, &[MUTANTS, &["--table", &other]], "no table");
    refused(USAGE, &[MUTANTS, &["--table", &folder]], "cannot be read");
    refused(USAGE, &[MUTANTS, &["--table", &nowhere]], "its folder");
    assert_eq!(fs::read_to_string(other).unwrap(), "# Something else\n");
}

#[test]
fn files_that_hold_no_vectors_and_no_reports_are_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let folder = shown(dir.path());
    let none = shown(&dir.path().join("none"));
    let binary = dir.path().join("binary");
    fs::write(&binary, [0xff, 0xfe]).unwrap();
    let check: &[&str] = &["vectors", "check"];
    for bad in [&none, &folder, &shown(&binary)] {
        refused(USAGE, &[check, &[bad]], "cannot be read");
    }
    for text in ["", "no json", "{}", r#"{"kind":"odd","cases":[{}]}"#] {
        let bad = file(&dir, "bad", text);
        refused(USAGE, &[check, &[&bad]], "is no file of vectors");
    }
    for bad in [&none, &folder, &shown(&binary), &file(&dir, "bad", "{}")] {
        let output = call(&[&["report", "verify", bad.as_str()]]);
        assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
    }
}

/// Calls the suite with pipes that nobody reads.
fn unheard(parts: &[&[&str]]) -> Option<i32> {
    let mut child = suite()
        .args(parts.concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().unwrap().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_changes_no_exit_code() {
    assert_eq!(unheard(&[&["list"]]), Some(CONFORMANT));
    assert_eq!(unheard(&[&["explain", "*"]]), Some(CONFORMANT));
    assert_eq!(unheard(&[&["explain", "nobody"]]), Some(USAGE));
    assert_eq!(unheard(&[&["--help"]]), Some(CONFORMANT));
    let peer = Peer::start(Settings::default(), 7).await.unwrap();
    let only = ["--only", "push/*"];
    let run = ["server", "--url", &peer.url()];
    assert_eq!(unheard(&[&run, &only]), Some(CONFORMANT));
    let wrong = CrudeServer::start(Crude::AlwaysError).await.unwrap();
    let run = ["server", "--url", &wrong.url()];
    assert_eq!(unheard(&[&run, &only]), Some(NOT_CONFORMANT));
    let crude = env!("CARGO_BIN_EXE_gosync-conformance");
    let crude = format!("'{crude}' crude-driver hang-up");
    let run = ["client", "--exec", &crude, "--only", "sync/first"];
    assert_eq!(unheard(&[&run]), Some(INCONCLUSIVE));
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/MUTANTS.md");
    let missing = ["mutants", "--side", "server", "--missing", "--table", table];
    assert_eq!(unheard(&[&missing]), call(&[&missing]).status.code());
    let dir = tempfile::tempdir().unwrap();
    let report = file(&dir, "report.json", "{}");
    assert_eq!(unheard(&[&["report", "verify", &report]]), Some(USAGE));
}

/// A disk that is full is no verdict.
#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_a_fault() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let output = suite().arg("list").stdout(full.unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(INCONCLUSIVE));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("cannot be written to standard output"),
        "{said}"
    );
}
