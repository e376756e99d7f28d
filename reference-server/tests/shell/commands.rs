//! The program's commands beside `serve`: settings, tokens, and what looks after
//! a database.

use crate::program::*;
use crate::server::*;
use gosync_proto::wire;
use std::time::{Duration, Instant};

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

#[test]
fn an_expiry_without_a_date_is_refused_and_no_file_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let mint = ["token", "mint", "--name", "a", "--space", "s"];
    for far in ["8000y", "584542047y"] {
        let output = run(dir.path(), &[&mint[..], &["--expires-in", far]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("9999-12-31"), "{said}");
        assert!(!dir.path().join("tokens.toml").exists());
    }
}

/// A pipe that nobody reads.
fn unread() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn a_reader_that_has_gone_ends_no_command_but_one_whose_result_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mint = ["token", "mint", "--name", "a", "--space", "s"];
    assert!(run(dir.path(), &mint).status.success());
    for args in [&["token", "list"][..], &["config", "check"]] {
        let output = run_into(dir.path(), args, unread());
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
    }
    let output = run_into(dir.path(), &mint, unread());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("could not be shown"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let output = run_into(dir.path(), &["config", "check"], full.unwrap());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output"), "{said}");
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

/// Whether the running server says that a replica with this fingerprint of
/// everything, at this horizon, holds what it holds.
async fn says_equal(url: &str, horizon: u64, fingerprint: &str) -> bool {
    let hex = |i: usize| u8::from_str_radix(&fingerprint[i..i + 2], 16).unwrap();
    let request = wire::HelloRequest {
        held: all(None),
        horizon,
        fingerprints: vec![(0..fingerprint.len()).step_by(2).map(hex).collect()],
        ..hello("s")
    };
    let answer = connect(url).await.hello(request).await.unwrap();
    answer.into_inner().equal == [true]
}

#[tokio::test(flavor = "multi_thread")]
async fn compact_removes_old_tombstones_beside_a_server_that_answers_what_verify_finds() {
    let dir = tempfile::tempdir().unwrap();
    let program = serve(dir.path(), &[]);
    let tombstone = |key: &str, time: u64| wire::Record {
        flags: gosync_proto::record::FLAG_TOMBSTONE,
        ..record(key, time << 16, "")
    };
    let mut client = connect(&program.url).await;
    let records = vec![
        tombstone("a", 1),
        tombstone("b", 2),
        record("c", 3 << 16, "v"),
    ];
    let request = |records| v1(push("s", records));
    client.push(request(records)).await.unwrap();
    let command = |args: &[&str]| {
        let done = run(dir.path(), &[args, &["--db", "sqlite:test.db"]].concat());
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let fingerprint = || {
        let (code, out, _) = command(&["verify"]);
        assert_eq!(code, Some(0), "{out}");
        assert!(out.contains("everything is as it must be"), "{out}");
        let (_, after) = out.split_once("fingerprint ").unwrap();
        after.split([',', '\n']).next().unwrap().to_owned()
    };
    let with_tombstones = fingerprint();
    assert!(says_equal(&program.url, 0, &with_tombstones).await);

    // they are younger than what is kept by default
    let (code, out, _) = command(&["compact"]);
    let nothing = "s: 0 tombstones removed, horizon stays at the beginning\n";
    assert_eq!((code, &out[..]), (Some(0), nothing));
    // nor is there a retention so long that it counts as none, as 2^64 ms might
    let (code, out, _) = command(&["compact", "--retention", "18446744073709551s 616ms"]);
    assert_eq!((code, &out[..]), (Some(0), nothing));
    let (code, out, _) = command(&["compact", "--space", "s", "--retention", "0s"]);
    let both =
        "s: 2 tombstones removed, horizon moved from the beginning to 1970-01-01T00:00:00.002Z\n";
    assert_eq!((code, &out[..]), (Some(0), both));
    let (code, out, _) = command(&["compact", "--retention", "0s"]);
    let no_more = "s: 0 tombstones removed, horizon stays at 1970-01-01T00:00:00.002Z\n";
    assert_eq!((code, &out[..]), (Some(0), no_more));

    let horizon = (2 << 16) + 1;
    let without = fingerprint();
    assert_ne!(without, with_tombstones);
    assert!(says_equal(&program.url, horizon, &without).await);
    assert!(!says_equal(&program.url, horizon, &with_tombstones).await);
    client
        .push(request(vec![record("d", 4 << 16, "v")]))
        .await
        .unwrap();
    assert!(says_equal(&program.url, horizon, &fingerprint()).await);
    let held: Vec<_> = contents(&program.url, "s").await.into_keys().collect();
    assert_eq!(held, [b"c", b"d"]);

    let (code, _, err) = command(&["compact", "--space", "absent"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("there is no space absent"), "{err}");
}
