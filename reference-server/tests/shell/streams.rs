//! Watch and Snapshot over time: live, heartbeats, checkpoints, and each way
//! in which a stream ends.

use crate::server::*;
use gosync_proto::Reason;
use gosync_proto::wire::{self, snapshot_response};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_a_push_of_another_connection_at_once() {
    // no heartbeat and no timer can bring it: the feed must
    let server = start(|c| c.limits.heartbeat_interval_ms = 15_000).await;
    let (mut writer, mut reader) = (server.client().await, server.client().await);
    let mut stream = reader
        .watch(v1(watch("s", None)))
        .await
        .unwrap()
        .into_inner();
    assert!(matches!(next(&mut stream).await, Event::Checkpoint(_)));
    let mut slowest = Duration::ZERO;
    for i in 0..20u64 {
        let pushed = Instant::now();
        let batch = vec![record(&format!("k{i}"), (i + 1) << 16, "v")];
        writer.push(v1(push("s", batch))).await.unwrap();
        let Event::Changes(changes) = next(&mut stream).await else {
            panic!("a change is due");
        };
        slowest = slowest.max(pushed.elapsed());
        assert_eq!(changes.records[0].key, format!("k{i}").as_bytes());
        assert_eq!(changes.cursor.unwrap().sequence, i + 1);
    }
    assert!(slowest < Duration::from_secs(3), "slowest was {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_carries_heartbeats_and_a_changed_one_checkpoints() {
    let server = start(|c| c.limits.heartbeat_interval_ms = 100).await;
    let mut client = server.client().await;
    let mut stream = client
        .watch(v1(watch("s", None)))
        .await
        .unwrap()
        .into_inner();
    assert!(matches!(next(&mut stream).await, Event::Checkpoint(_)));
    for _ in 0..6 {
        let Event::Heartbeat(beat) = next(&mut stream).await else {
            panic!("nothing changed, so no checkpoint is due");
        };
        assert!(beat.server_time_ms > 0 && beat.cursor.is_some());
    }
    client
        .push(v1(push("s", vec![record("k", 1 << 16, "v")])))
        .await
        .unwrap();
    let checkpoint = until(&mut stream, |e| match e {
        Event::Checkpoint(c) => Some(c),
        _ => None,
    })
    .await;
    assert_eq!(checkpoint.ranges[0].count, 1);
    assert_eq!(checkpoint.position.unwrap().head.unwrap().sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_until_caught_up_ends_after_its_checkpoint() {
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    client
        .push(v1(push("s", vec![record("k", 1 << 16, "v")])))
        .await
        .unwrap();
    let request = wire::WatchRequest {
        until_caught_up: true,
        ..watch("s", None)
    };
    let mut stream = client.watch(v1(request)).await.unwrap().into_inner();
    assert!(matches!(next(&mut stream).await, Event::Changes(_)));
    assert!(matches!(next(&mut stream).await, Event::Checkpoint(_)));
    assert_eq!(end_of(&mut stream).await.reason, 0);
    assert!(stream.message().await.unwrap().is_none(), "and status OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_at_its_lifetime_or_at_the_callers_deadline() {
    let server = start(|c| c.limits.max_stream_lifetime_ms = 300).await;
    let mut client = server.client().await;
    let mut stream = client
        .watch(v1(watch("s", None)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        end_of(&mut stream).await.reason(),
        Reason::StreamExpired.to_wire()
    );

    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let mut request = v1(watch("s", None));
    request
        .metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let mut stream = client.watch(request).await.unwrap().into_inner();
    assert_eq!(
        end_of(&mut stream).await.reason(),
        Reason::StreamExpired.to_wire()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_asked_to_end() {
    let server = start(|c| c.connections.max_age = Duration::from_millis(300)).await;
    let mut client = server.client().await;
    let mut stream = client
        .watch(v1(watch("s", None)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        end_of(&mut stream).await.reason(),
        Reason::StreamExpired.to_wire()
    );
    // the client connects again by itself
    let begun = Instant::now();
    while client.hello(hello("s")).await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
    }
}

/// Fills a space with more than any buffer on the way holds.
async fn fill(client: &mut Client, megabytes: usize) {
    let value = "x".repeat(500_000);
    for i in 0..megabytes {
        let batch = vec![
            record(&format!("k{i}a"), 1 << 16, &value),
            record(&format!("k{i}b"), 1 << 16, &value),
        ];
        client.push(v1(push("s", batch))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_too_long_is_sent_away_with_slow_reader() {
    // the pause is one and a half patiences: the end is due, and not yet overdue
    let patience = Duration::from_secs(1);
    let server = start(|c| c.watch.slow_reader_timeout = patience).await;
    let mut writer = server.client().await;
    fill(&mut writer, 24).await;
    let mut reader = server.client().await;
    let mut watching = reader
        .watch(v1(watch("s", None)))
        .await
        .unwrap()
        .into_inner();
    tokio::time::sleep(patience.mul_f32(1.5)).await;
    let end = end_of(&mut watching).await;
    assert_eq!(end.reason(), Reason::SlowReader.to_wire());

    let mut reader = server.client().await;
    let mut stream = reader
        .snapshot(v1(snapshot("s")))
        .await
        .unwrap()
        .into_inner();
    tokio::time::sleep(patience.mul_f32(1.5)).await;
    let mut last = None;
    while let Some(message) = stream.message().await.unwrap() {
        last = message.event;
    }
    let Some(snapshot_response::Event::End(end)) = last else {
        panic!("the last message is not an end");
    };
    assert_eq!(end.reason(), Reason::SlowReader.to_wire());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_never_reads_loses_its_connection() {
    let server = start(|c| c.watch.slow_reader_timeout = Duration::from_millis(300)).await;
    let mut writer = server.client().await;
    fill(&mut writer, 24).await;
    let mut reader = server.client().await;
    let mut stream = reader
        .watch(v1(watch("s", None)))
        .await
        .unwrap()
        .into_inner();
    // neither the batch nor the end are taken within two patiences
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let broken = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(broken.is_err(), "the connection was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_streams_and_refuses_calls() {
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(
            client
                .watch(v1(watch("s", None)))
                .await
                .unwrap()
                .into_inner(),
        );
    }
    let stopped = Instant::now();
    server.stop.cancel();
    for stream in &mut streams {
        let end = end_of(stream).await;
        assert_eq!(end.reason(), Reason::Unavailable.to_wire());
        assert!(end.retry_after_ms > 0);
    }
    server.done.await.unwrap();
    assert!(
        stopped.elapsed() < Duration::from_secs(5),
        "{:?}",
        stopped.elapsed()
    );
    client.hello(hello("s")).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_only_so_many_streams() {
    let server = start(|c| c.limits.max_streams_per_connection = 8).await;
    let mut client = server.client().await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(
            client
                .watch(v1(watch("s", None)))
                .await
                .unwrap()
                .into_inner(),
        );
    }
    let ninth = client.watch(v1(watch("s", None)));
    let mut ninth = Box::pin(ninth);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut ninth)
            .await
            .is_err()
    );
    streams.pop();
    tokio::time::timeout(PATIENCE, ninth)
        .await
        .expect("now there is room")
        .unwrap();
}
