//! The program itself: its ready line, signals, sudden deaths, and the
//! commands around a database.

use crate::server::*;
use gosync_proto::Reason;
use gosync_proto::wire::{self, Outcome, snapshot_response};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gosync-server");

/// The program, serving; killed when the test ends.
struct Program {
    child: Child,
    url: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it in `dir` and waits for the ready line.
fn serve(dir: &Path, more: &[&str]) -> Program {
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
    fn signal(&self, name: &str) {
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
    fn wait(&mut self) -> (Duration, std::process::ExitStatus) {
        let begun = Instant::now();
        let status = self.child.wait().unwrap();
        (begun.elapsed(), status)
    }
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything in a space.
async fn contents(url: &str, space: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
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

/// Pushes without end, to wherever the server is at the moment, and notes what
/// was acknowledged.
async fn push_without_end(
    who: usize,
    url: Arc<RwLock<String>>,
    acknowledged: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
) {
    let mut n = 0u64;
    loop {
        let target = url.read().unwrap().clone();
        let Ok(channel) = tonic::transport::Endpoint::from_shared(target)
            .unwrap()
            .connect()
            .await
        else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut client = Client::new(channel);
        loop {
            n += 1;
            let batch: Vec<_> = (0..3)
                .map(|i| {
                    record(
                        &format!("{who}/{n:06}/{i}"),
                        (n + 1) << 16,
                        &format!("{who}.{n}.{i}"),
                    )
                })
                .collect();
            let Ok(answer) = client.push(v1(push("s", batch.clone()))).await else {
                break;
            };
            let mut acknowledged = acknowledged.lock().unwrap();
            for (verdict, record) in answer.into_inner().verdicts.into_iter().zip(batch) {
                assert_eq!(verdict.outcome(), Outcome::Applied);
                acknowledged.insert(record.key, record.value.to_vec());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time_the_server_loses_nothing_that_it_acknowledged() {
    const KILLS: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let mut program = serve(dir.path(), &[]);
    let url = Arc::new(RwLock::new(program.url.clone()));
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let writers: Vec<_> = (0..8)
        .map(|who| tokio::spawn(push_without_end(who, url.clone(), acknowledged.clone())))
        .collect();
    for kill in 0..KILLS {
        // not before something was acknowledged since the last start
        let before = acknowledged.lock().unwrap().len();
        let begun = Instant::now();
        while acknowledged.lock().unwrap().len() == before {
            assert!(
                begun.elapsed() < PATIENCE,
                "nothing is acknowledged any more"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(kill * 37 % 120)).await;
        program.child.kill().unwrap();
        program.child.wait().unwrap();
        program = serve(dir.path(), &[]);
        *url.write().unwrap() = program.url.clone();
    }
    for writer in writers {
        writer.abort();
        assert!(
            writer.await.unwrap_err().is_cancelled(),
            "a writer saw a wrong verdict"
        );
    }
    let kept = contents(&program.url, "s").await;
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() as u64 > KILLS);
    for (key, value) in acknowledged.iter() {
        assert_eq!(kept.get(key), Some(value), "lost {}", key.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_backups_under_load_hold_what_was_acknowledged_before_them_and_whole_pushes() {
    let dir = tempfile::tempdir().unwrap();
    let program = serve(dir.path(), &[]);
    let url = Arc::new(RwLock::new(program.url.clone()));
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let writers: Vec<_> = (0..4)
        .map(|who| tokio::spawn(push_without_end(who, url.clone(), acknowledged.clone())))
        .collect();
    for round in 0..20 {
        let before = acknowledged.lock().unwrap().clone();
        let copy = format!("copy{round}.db");
        let restored = tempfile::tempdir().unwrap();
        let from = dir.path().join(&copy).display().to_string();
        for (place, args) in [
            (dir.path(), vec!["backup", "--db", "sqlite:test.db", &copy]),
            (
                restored.path(),
                vec!["restore", "--db", "sqlite:test.db", &from],
            ),
            (restored.path(), vec!["verify", "--db", "sqlite:test.db"]),
        ] {
            let done = run(place, &args);
            assert!(done.status.success(), "{args:?}: {}", text(&done.stderr));
        }
        let second = serve(restored.path(), &[]);
        let kept = contents(&second.url, "s").await;
        for (key, value) in &before {
            assert_eq!(kept.get(key), Some(value), "lost {}", key.escape_ascii());
        }
        for key in kept.keys() {
            for i in b"012" {
                let mut of_one_push = key.clone();
                *of_one_push.last_mut().unwrap() = *i;
                assert!(kept.contains_key(&of_one_push), "half of a push");
            }
        }
        std::fs::remove_file(dir.path().join(copy)).unwrap();
    }
    for writer in writers {
        writer.abort();
        assert!(
            writer.await.unwrap_err().is_cancelled(),
            "a writer saw a wrong verdict"
        );
    }
    assert!(acknowledged.lock().unwrap().len() > 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_and_sigint_drain_the_watchers_and_end_the_program() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut program = serve(dir.path(), &[]);
        let mut streams = Vec::new();
        for _ in 0..4 {
            let mut client = connect(&program.url).await;
            for _ in 0..5 {
                streams.push(
                    client
                        .watch(v1(watch("s", None)))
                        .await
                        .unwrap()
                        .into_inner(),
                );
            }
        }
        program.signal(signal);
        for stream in &mut streams {
            assert_eq!(end_of(stream).await.reason(), Reason::Unavailable.to_wire());
        }
        let (took, status) = program.wait();
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_database_comes_back_as_another_lineage() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = serve(dir.path(), &[]);
    let mut client = connect(&program.url).await;
    let batch = vec![record("k", 1 << 16, "v")];
    let answer = client
        .push(v1(push("s", batch.clone())))
        .await
        .unwrap()
        .into_inner();
    let head = answer.position.unwrap().head.unwrap();
    // its log stays behind, as when somebody removes the one file that they know
    std::fs::remove_file(dir.path().join("test.db")).unwrap();
    program.child.kill().unwrap();
    program.child.wait().unwrap();

    let program = serve(dir.path(), &[]);
    let mut client = connect(&program.url).await;
    let request = wire::HelloRequest {
        held: all(Some(head)),
        ..hello("s")
    };
    let answer = client.hello(request).await.unwrap().into_inner();
    assert_eq!(answer.held[0].lineage(), wire::Lineage::Unknown);
    assert_ne!(answer.position.unwrap().head.unwrap().epoch, head.epoch);
    let status = client.watch(v1(watch("s", Some(head)))).await.unwrap_err();
    assert_eq!(reason(&status), "HISTORY_CHANGED");
    // and it can be filled again
    let answer = client
        .push(v1(push("s", batch)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.verdicts[0].outcome(), Outcome::Applied);
}

#[test]
fn a_server_for_others_without_tokens_or_tls_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("token mint"),
        "{}",
        text(&output.stderr)
    );
    std::fs::write(dir.path().join("t.toml"), "").unwrap();
    let output = run(
        dir.path(),
        &["serve", "--listen", "0.0.0.0:0", "--tokens", "t.toml"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("--tls-cert"),
        "{}",
        text(&output.stderr)
    );
    assert!(
        !dir.path().join("gosync.db").exists(),
        "nothing was touched"
    );
}

#[test]
fn wrong_settings_and_files_are_refused_with_the_place_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("bad.toml"),
        "listen = \"127.0.0.1:0\"\ntoken = \"x\"\n",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("no.db"),
        "this is no database, whatever its name says",
    )
    .unwrap();
    for (args, hint) in [
        (&["serve", "--config", "bad.toml"][..], "line 2"),
        (&["serve", "--config", "absent.toml"], "absent.toml"),
        (
            &["serve", "--listen", "127.0.0.1:0", "--db", "sqlite:no.db"],
            "no.db is not a GoSync database",
        ),
        (
            &[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--db",
                "sqlite:no/such/dir.db",
            ],
            "no/such",
        ),
        (
            &["serve", "--listen", "127.0.0.1:0", "--static", "nowhere"],
            "nowhere",
        ),
        (
            &["config", "check", "--set", "limits.max_value_byte=70000"],
            "max_value_bytes",
        ),
        (
            &["healthcheck", "--address", "127.0.0.1:1"],
            "does not answer",
        ),
        (&["verify", "--db", "sqlite:absent.db"], "absent.db"),
        (&["token", "mint", "--name", "x", "--space", "a b"], "a b"),
    ] {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            text(&output.stderr).contains(hint),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
    let output = run(dir.path(), &["serve", "--listen", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minted_token_opens_a_running_server_and_a_revoked_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mint = ["token", "mint", "--name", "a", "--space", "s"];
    let first = run(dir.path(), &mint);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let token = text(&first.stdout).trim().to_owned();
    let program = serve(dir.path(), &["--tokens", "tokens.toml"]);
    let mut client = connect(&program.url).await;
    client.hello(with_token(&token, hello("s"))).await.unwrap();
    assert!(
        run(dir.path(), &["token", "revoke", "--name", "a"])
            .status
            .success()
    );
    let begun = Instant::now();
    while let Ok(_still) = client.hello(with_token(&token, hello("s"))).await {
        assert!(
            begun.elapsed() < PATIENCE,
            "the revocation was never noticed"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_while_serving_can_be_restored_as_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = serve(dir.path(), &["--ready-file", "ready"]);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("ready"))
            .unwrap()
            .trim(),
        program.url
    );
    let address = program.url.strip_prefix("http://").unwrap();
    assert!(
        run(dir.path(), &["healthcheck", "--address", address])
            .status
            .success()
    );
    let mut client = connect(&program.url).await;
    client
        .push(v1(push("s", vec![record("a", 1 << 16, "1")])))
        .await
        .unwrap();
    let backup = run(dir.path(), &["backup", "--db", "sqlite:test.db", "copy.db"]);
    assert!(backup.status.success(), "{}", text(&backup.stderr));
    let answer = client
        .push(v1(push("s", vec![record("b", 1 << 16, "2")])))
        .await
        .unwrap();
    let head = answer.into_inner().position.unwrap().head.unwrap();
    program.signal("-TERM");
    program.wait();

    let refused = run(
        dir.path(),
        &["restore", "--db", "sqlite:test.db", "copy.db"],
    );
    assert!(
        text(&refused.stderr).contains("--overwrite"),
        "{}",
        text(&refused.stderr)
    );
    let restored = run(
        dir.path(),
        &[
            "restore",
            "--db",
            "sqlite:test.db",
            "--overwrite",
            "copy.db",
        ],
    );
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let verified = run(dir.path(), &["verify", "--db", "sqlite:test.db"]);
    assert!(
        text(&verified.stdout).contains("everything is as it must be"),
        "{}",
        text(&verified.stdout)
    );
    let inspected = run(
        dir.path(),
        &["inspect", "--db", "sqlite:test.db", "--space", "s"],
    );
    assert!(
        text(&inspected.stdout).contains("restored at  1 of epoch"),
        "{}",
        text(&inspected.stdout)
    );

    let program = serve(dir.path(), &[]);
    let mut client = connect(&program.url).await;
    let request = wire::HelloRequest {
        held: all(Some(head)),
        ..hello("s")
    };
    let answer = client.hello(request).await.unwrap().into_inner();
    assert_eq!(answer.held[0].lineage(), wire::Lineage::Rewound);
    assert_eq!(answer.held[0].mapped_sequence, 1);
    assert_eq!(contents(&program.url, "s").await.len(), 1);
}
