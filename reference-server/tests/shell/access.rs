//! Tokens: who may do what, and what happens when that changes.

use crate::server::*;
use gosync_proto::Reason;
use gosync_proto::wire::{self, Outcome};
use gosync_server::auth::tokens::{self, Grant};
use gosync_server::service::Right;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::{Code, Status};

/// A server with a token file of three tokens: all of `team-*`, reading `todos/`
/// of `team-1`, and one that expires in a moment.
struct Guarded {
    running: Running,
    file: PathBuf,
    writer: String,
    reader: String,
    brief: String,
    _dir: tempfile::TempDir,
}

async fn guarded() -> Guarded {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.toml");
    let grant = |space, prefix: &[u8], right| Grant::new(space, prefix.to_vec(), right).unwrap();
    let all = [grant("team-*", b"", Right::Write)];
    let todos = [grant("team-1", b"todos/", Right::Read)];
    let soon = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
        + 1_500;
    let writer = tokens::mint(&file, "writer", None, &all).unwrap();
    let reader = tokens::mint(&file, "reader", None, &todos).unwrap();
    let brief = tokens::mint(&file, "brief", Some(soon), &all).unwrap();
    let running = start(|c| c.auth.tokens = Some(file.clone())).await;
    Guarded {
        running,
        file,
        writer,
        reader,
        brief,
        _dir: dir,
    }
}

fn todos() -> wire::WatchRequest {
    let mut request = watch("team-1", None);
    request.held[0].ranges[0] = wire::Range {
        start: b"todos/".to_vec(),
        end: Some(b"todos0".to_vec()),
    };
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_no_call_says_anything() {
    let server = guarded().await;
    let mut client = server.running.client().await;
    let mut refused: Vec<Status> = Vec::new();
    for token in ["", "gosync_guess"] {
        let t = token;
        refused.push(
            client
                .hello(with_token(t, hello("team-1")))
                .await
                .unwrap_err(),
        );
        refused.push(
            client
                .push(with_token(t, push("team-1", vec![])))
                .await
                .unwrap_err(),
        );
        refused.push(
            client
                .watch(with_token(t, watch("team-1", None)))
                .await
                .unwrap_err(),
        );
        refused.push(
            client
                .snapshot(with_token(t, snapshot("team-1")))
                .await
                .unwrap_err(),
        );
        let reconcile = wire::ReconcileRequest::default();
        refused.push(
            client
                .reconcile(with_token(t, reconcile))
                .await
                .unwrap_err(),
        );
    }
    refused.push(client.hello(hello("team-1")).await.unwrap_err());
    for status in refused {
        assert_eq!(
            (status.code(), &*reason(&status)),
            (Code::Unauthenticated, "UNAUTHENTICATED")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_tokens_is_not_listened_to_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.toml");
    let grant = Grant::new("team-1", Vec::new(), Right::Write).unwrap();
    let good = tokens::mint(&file, "good", None, &[grant]).unwrap();
    for (behind_proxy, expected) in [(false, "RATE_LIMITED"), (true, "UNAUTHENTICATED")] {
        let running = start(|c| {
            c.auth.tokens = Some(file.clone());
            c.auth.wrong_tokens_per_minute = 3;
            c.behind_proxy = behind_proxy;
        })
        .await;
        let mut client = running.client().await;
        let mut call = async |token: &str| match token {
            "" => client.hello(hello("team-1")).await,
            token => client.hello(with_token(token, hello("team-1"))).await,
        };
        for n in 0..6 {
            // who shows none, or a good one, does not guess
            call(&good).await.unwrap();
            call("").await.unwrap_err();
            let status = call(&format!("gosync_guess{n}")).await.unwrap_err();
            assert_eq!(&*reason(&status), "UNAUTHENTICATED");
        }
        let status = call("gosync_guess").await.unwrap_err();
        assert_eq!(&*reason(&status), expected);
        assert_eq!(call(&good).await.is_err(), !behind_proxy);
        let status = call("").await.unwrap_err();
        assert_eq!(&*reason(&status), "UNAUTHENTICATED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_token_is_refused_before_its_request_is_read() {
    let server = guarded().await;
    let address = server.running.address();
    // a body of 4 MB is announced, none of it comes
    let head = crate::browser::post(address, "Push", 4 << 20, "");
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let answer = crate::browser::exchange(stream, &head, &[]).await;
    assert_eq!(answer.header("grpc-status"), Some("16"), "{}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_token_reads_its_prefix_and_writes_nothing() {
    let server = guarded().await;
    let mut client = server.running.client().await;
    let batch = vec![
        record("todos/1", 1 << 16, "a"),
        record("secret/1", 1 << 16, "b"),
    ];
    client
        .push(with_token(&server.writer, push("team-1", batch.clone())))
        .await
        .unwrap();

    let r = &*server.reader;
    let answer = client
        .push(with_token(
            r,
            push("team-1", vec![record("todos/1", 2 << 16, "c")]),
        ))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.verdicts[0].outcome(), Outcome::Rejected);
    assert_eq!(answer.verdicts[0].reason(), Reason::NoAccess.to_wire());
    assert_eq!(
        answer.position.unwrap().head.unwrap().sequence,
        2,
        "nothing was written"
    );
    let status = client
        .watch(with_token(r, watch("team-1", None)))
        .await
        .unwrap_err();
    assert_eq!(
        reason(&status),
        "NO_ACCESS",
        "all keys are more than the prefix"
    );
    let status = client
        .snapshot(with_token(r, snapshot("team-1")))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "NO_ACCESS");

    let grants = client
        .hello(with_token(r, hello("team-1")))
        .await
        .unwrap()
        .into_inner()
        .grants;
    assert_eq!(
        grants,
        [wire::Grant {
            key_prefix: b"todos/".to_vec(),
            access: wire::Access::Read as i32,
        }]
    );
    let mut stream = client
        .watch(with_token(r, todos()))
        .await
        .unwrap()
        .into_inner();
    let Event::Changes(changes) = next(&mut stream).await else {
        panic!("a change is due");
    };
    assert_eq!(changes.records.len(), 1);
    assert_eq!(changes.records[0].key, b"todos/1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_outside_a_write_grant_is_rejected_alone() {
    let server = guarded().await;
    let grant = Grant::new("s", b"mine/".to_vec(), Right::Write).unwrap();
    let token = tokens::mint(&server.file, "mine", None, &[grant]).unwrap();
    let mut client = server.running.client().await;
    let batch = vec![
        record("mine/1", 1 << 16, "a"),
        record("yours/1", 1 << 16, "b"),
    ];
    // the running server notices the new token
    let verdicts = loop {
        match client
            .push(with_token(&token, push("s", batch.clone())))
            .await
        {
            Ok(answer) => break answer.into_inner().verdicts,
            Err(status) => assert_eq!(reason(&status), "UNAUTHENTICATED"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(verdicts[0].outcome(), Outcome::Applied);
    assert_eq!(verdicts[1].outcome(), Outcome::Rejected);
    assert_eq!(verdicts[1].reason(), Reason::NoAccess.to_wire());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_without_a_grant_looks_like_one_that_does_not_exist() {
    let server = guarded().await;
    let mut client = server.running.client().await;
    let batch = vec![record("k", 1 << 16, "v")];
    client
        .push(with_token(&server.writer, push("team-2", batch)))
        .await
        .unwrap();
    let exists = client
        .hello(with_token(&server.reader, hello("team-2")))
        .await
        .unwrap_err();
    let absent = client
        .hello(with_token(&server.reader, hello("team-3")))
        .await
        .unwrap_err();
    assert_eq!(reason(&exists), "NO_ACCESS");
    assert_eq!(exists.code(), absent.code());
    assert_eq!(exists.message(), absent.message());
    assert_eq!(exists.details(), absent.details());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_watch_and_nobody_elses() {
    let server = guarded().await;
    let mut client = server.running.client().await;
    let mut theirs = client
        .watch(with_token(&server.reader, todos()))
        .await
        .unwrap()
        .into_inner();
    let mut ours = client
        .watch(with_token(&server.writer, watch("team-1", None)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(tokens::revoke(&server.file, "reader").unwrap(), 1);
    assert_eq!(
        end_of(&mut theirs).await.reason(),
        Reason::TokenExpired.to_wire()
    );
    let status = client
        .watch(with_token(&server.reader, todos()))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "UNAUTHENTICATED");

    let batch = vec![record("k", 1 << 16, "v")];
    client
        .push(with_token(&server.writer, push("team-1", batch)))
        .await
        .unwrap();
    let key = until(&mut ours, |e| match e {
        Event::Changes(c) => Some(c.records[0].key.clone()),
        _ => None,
    })
    .await;
    assert_eq!(key, b"k");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiring_token_ends_its_watch() {
    let server = guarded().await;
    let mut client = server.running.client().await;
    let request = with_token(&server.brief, watch("team-1", None));
    let mut stream = client.watch(request).await.unwrap().into_inner();
    assert_eq!(
        end_of(&mut stream).await.reason(),
        Reason::TokenExpired.to_wire()
    );
    let status = client
        .hello(with_token(&server.brief, hello("team-1")))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::Unauthenticated, "TOKEN_EXPIRED")
    );
}
