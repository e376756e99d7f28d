//! The program itself: its signals, its sudden deaths, and backups under load.

use crate::program::*;
use crate::server::*;
use gosync_proto::Reason;
use gosync_proto::wire::{self, Outcome};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

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
    let mut pushed_meanwhile = 0;
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
            if args[0] == "backup" {
                pushed_meanwhile += acknowledged.lock().unwrap().len() - before.len();
            }
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
        // and it is written to like any other
        let batch = vec![record("later", 1 << 40, "v")];
        let answer = connect(&second.url).await.push(v1(push("s", batch))).await;
        let verdicts = answer.unwrap().into_inner().verdicts;
        assert_eq!(verdicts[0].outcome(), Outcome::Applied);
        std::fs::remove_file(dir.path().join(copy)).unwrap();
    }
    assert!(
        pushed_meanwhile > 20,
        "only {pushed_meanwhile} records were pushed while backups were made"
    );
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
