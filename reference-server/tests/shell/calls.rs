//! Each call over gRPC, its errors and their details.

use crate::server::*;
use gosync_proto::wire::{self, Outcome, snapshot_response};
use gosync_proto::{Reason, Version};
use tonic::{Code, Request};

#[tokio::test(flavor = "multi_thread")]
async fn hello_tells_version_limits_grants_and_clock() {
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let answer = client.hello(hello("s")).await.unwrap().into_inner();
    assert_eq!(answer.version, 1);
    assert_eq!(answer.features, [1, 2], "only what both sides know");
    assert_eq!(answer.limits.unwrap().max_push_records, 5_000);
    assert_eq!(answer.grants[0].access, wire::Access::Write as i32);
    assert!(answer.server_time_ms > 1_700_000_000_000);
    assert!(answer.position.unwrap().head.unwrap().epoch != 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_spoken_is_refused_with_those_that_are() {
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let request = wire::HelloRequest {
        versions: vec![7],
        ..hello("s")
    };
    let status = client.hello(request).await.unwrap_err();
    assert_eq!(reason(&status), "UNSUPPORTED_VERSION");
    let detail: wire::ServerDetail = detail(&status, "ServerDetail");
    assert_eq!(detail.versions, [1]);
    assert!(detail.server_time_ms > 0);
    // and on later calls
    let status = client
        .push(Request::new(push("s", vec![])))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "UNSUPPORTED_VERSION");
    let mut request = v1(push("s", vec![]));
    request
        .metadata_mut()
        .insert("gosync-version", "2".parse().unwrap());
    let status = client.push(request).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::FailedPrecondition, "UNSUPPORTED_VERSION")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn push_answers_each_record_and_snapshot_returns_them() {
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let batch = vec![
        record("a", 1 << 16, "one"),
        record("", 1 << 16, "no key"),
        record("b", u64::MAX, "from the future"),
    ];
    let answer = client
        .push(v1(push("s", batch)))
        .await
        .unwrap()
        .into_inner();
    let outcomes: Vec<_> = answer
        .verdicts
        .iter()
        .map(|v| (v.outcome(), v.reason()))
        .collect();
    assert_eq!(
        outcomes,
        [
            (Outcome::Applied, wire::Reason::Unspecified),
            (Outcome::Rejected, Reason::Malformed.to_wire()),
            (Outcome::Rejected, Reason::ClockSkew.to_wire()),
        ]
    );
    let again = client
        .push(v1(push("s", vec![record("a", 1 << 16, "one")])))
        .await
        .unwrap();
    assert_eq!(again.into_inner().verdicts[0].outcome(), Outcome::Unchanged);

    let mut stream = client
        .snapshot(v1(snapshot("s")))
        .await
        .unwrap()
        .into_inner();
    let mut kinds = Vec::new();
    let mut keys = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        kinds.push(match message.event.unwrap() {
            snapshot_response::Event::Start(start) => {
                assert_eq!(start.total_records, 1);
                "start"
            }
            snapshot_response::Event::Chunk(chunk) => {
                keys.extend(chunk.records.into_iter().map(|r| r.key));
                "chunk"
            }
            snapshot_response::Event::Complete(_) => "complete",
            snapshot_response::Event::End(end) => {
                assert_eq!(end.reason, 0);
                "end"
            }
        });
    }
    assert_eq!(kinds, ["start", "chunk", "complete", "end"]);
    assert_eq!(keys, [b"a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_finds_equal_what_is_equal() {
    use gosync_proto::merkle::Tree;
    use gosync_proto::reconcile::{Initiator, Options};
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let records: Vec<_> = (0..300)
        .map(|i| record(&format!("k{i:04}"), 1 << 16, "v"))
        .collect();
    client.push(v1(push("s", records.clone()))).await.unwrap();
    let mut sorted: Vec<gosync_proto::Record> =
        records.into_iter().map(|r| r.try_into().unwrap()).collect();
    let missing = sorted.remove(17);
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let digests: Vec<_> = sorted
        .iter()
        .map(|r| (r.key.as_bytes().to_vec(), r.digest()))
        .collect();
    let tree = Tree::from_sorted(digests.iter().map(|(k, d)| (&k[..], *d)));
    let limits = gosync_proto::limits::Limits::default();
    let ranges = gosync_proto::RangeSet::all();
    let mut session = Initiator::new(&ranges, 5, Options::new(&limits));
    let mut found = Vec::new();
    while let Some(mut request) = session.next_request(&tree).unwrap() {
        request.space = "s".into();
        request.held = all(None);
        let answer = client.reconcile(v1(request)).await.unwrap().into_inner();
        assert!(answer.position.is_some());
        let step = session.handle_response(&tree, answer).unwrap();
        found.extend(step.records);
    }
    assert_eq!(found, [missing]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_another_horizon_is_refused_with_the_history() {
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let request = wire::ReconcileRequest {
        space: "s".into(),
        held: all(None),
        horizon: 77,
        ..Default::default()
    };
    let status = client.reconcile(v1(request)).await.unwrap_err();
    assert_eq!(reason(&status), "HORIZON_CHANGED");
    let history: wire::HistoryDetail = detail(&status, "HistoryDetail");
    assert_eq!(history.position.unwrap().horizon, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_names_the_field() {
    use tonic_types::StatusExt;
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let status = client.hello(hello("no such id!")).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::InvalidArgument, "MALFORMED")
    );
    let bad = status.get_details_bad_request().unwrap();
    assert_eq!(bad.field_violations[0].field, "space");

    let twice = push("s", vec![record("a", 1, "x"), record("a", 2, "y")]);
    let status = client.push(v1(twice)).await.unwrap_err();
    assert_eq!(reason(&status), "MALFORMED");

    let nothing_held = wire::WatchRequest {
        held: vec![],
        ..watch("s", None)
    };
    let status = client.watch(v1(nothing_held)).await.unwrap_err();
    assert_eq!(reason(&status), "MALFORMED");

    let unknown_cursor = wire::Cursor {
        epoch: 1,
        sequence: 5,
        tag: 9,
    };
    let status = client
        .watch(v1(watch("s", Some(unknown_cursor))))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::FailedPrecondition, "HISTORY_CHANGED")
    );
    let history: wire::HistoryDetail = detail(&status, "HistoryDetail");
    assert_eq!(history.held[0].lineage(), wire::Lineage::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_limit_names_the_limit() {
    let server = start(|c| c.limits.max_push_records = 100).await;
    let mut client = server.client().await;
    let records = (0..101)
        .map(|i| record(&format!("k{i}"), 1 << 16, ""))
        .collect();
    let status = client.push(v1(push("s", records))).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::ResourceExhausted, "LIMIT_EXCEEDED")
    );
    let limit: wire::LimitDetail = detail(&status, "LimitDetail");
    assert_eq!(
        (&*limit.limit, limit.allowed, limit.actual),
        ("max_push_records", 100, Some(101))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_the_rate_are_told_when_to_come_back() {
    use tonic_types::StatusExt;
    let server = start(|c| c.limits.max_calls_per_second = 5).await;
    let mut client = server.client().await;
    let mut refused = None;
    for _ in 0..50 {
        if let Err(status) = client.hello(hello("s")).await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("50 calls at once are over 5 a second");
    assert_eq!(reason(&status), "RATE_LIMITED");
    let delay = status
        .get_details_retry_info()
        .unwrap()
        .retry_delay
        .unwrap();
    assert!(delay.as_millis() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_requests_and_answers_are_understood() {
    use tonic::codec::CompressionEncoding::Gzip;
    let server = start(|_| {}).await;
    let mut client = server
        .client()
        .await
        .send_compressed(Gzip)
        .accept_compressed(Gzip);
    let value = "a".repeat(100_000);
    let version = Version {
        time: gosync_proto::Time(1 << 16),
        replica: gosync_proto::ReplicaId(7),
    };
    client
        .push(v1(push("s", vec![record("k", version.time.0, &value)])))
        .await
        .unwrap();
    let mut stream = client
        .watch(v1(watch("s", None)))
        .await
        .unwrap()
        .into_inner();
    let records = until(&mut stream, |e| match e {
        Event::Changes(c) => Some(c.records),
        _ => None,
    })
    .await;
    assert_eq!(records[0].value.len(), value.len());
}
