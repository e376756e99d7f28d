//! Peers that do not behave: too much, too little, too slow, nonsense.

use crate::browser::{exchange, frame, post};
use crate::server::*;
use gosync_proto::wire;
use prost::Message;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_refused_with_the_limit() {
    let server = start(|c| c.limits.max_message_bytes = 1 << 20).await;
    let mut client = server.client().await;
    let big = push("s", vec![record("k", 1 << 16, &"x".repeat(1 << 20))]);
    let status = client.push(v1(big)).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::ResourceExhausted, "LIMIT_EXCEEDED")
    );
    let limit: wire::LimitDetail = detail(&status, "LimitDetail");
    assert_eq!(
        (&*limit.limit, limit.allowed),
        ("max_message_bytes", 1 << 20)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_grows_over_the_limit_when_unpacked_is_refused() {
    use tonic::codec::CompressionEncoding::Gzip;
    let server = start(|_| {}).await;
    let mut client = server
        .client()
        .await
        .send_compressed(Gzip)
        .max_encoding_message_size(usize::MAX);
    // 40 MB of zeros in 40 KB
    let bomb = push("s", vec![record("k", 1 << 16, &"\0".repeat(40_000_000))]);
    let status = client.push(v1(bomb)).await.unwrap_err();
    assert_eq!(reason(&status), "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_is_still_sending_over_http1() {
    // more than the sockets' buffers hold, so that an early close would break
    // the sender's write
    let server = start(|c| c.limits.max_message_bytes = 1 << 20).await;
    let big = frame(&push(
        "s",
        vec![record("k", 1 << 16, &"x".repeat(30 << 20))],
    ));
    let answer = post_raw(&server, &big).await;
    assert_eq!(answer.header("grpc-status"), Some("8"), "{}", answer.head);
}

async fn post_raw(server: &Running, body: &[u8]) -> crate::browser::Answer {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    exchange(
        stream,
        &post(server.address(), "Push", body.len(), ""),
        body,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_place_of_a_message_is_malformed() {
    let server = start(|_| {}).await;
    let whole = frame(&push("s", vec![record("k", 1 << 16, "v")]));
    let mut flag = whole.clone();
    flag[0] = 1;
    for (what, body) in [
        ("no protobuf", [&[0, 0, 0, 0, 3][..], &[0xff; 3]].concat()),
        (
            "cut off within the message",
            whole[..whole.len() - 3].to_vec(),
        ),
        ("compressed without saying how", flag),
        ("no frame at all", b"hello".to_vec()),
    ] {
        let answer = post_raw(&server, &body).await;
        assert_eq!(answer.status, 200, "{what}");
        assert_eq!(
            answer.header("grpc-status"),
            Some("3"),
            "{what}: {}",
            answer.head
        );
        assert!(answer.header("grpc-status-details-bin").is_some(), "{what}");
    }
    // and the server goes on
    server.client().await.hello(hello("s")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_methods_and_services_are_unimplemented() {
    let server = start(|_| {}).await;
    for path in ["gosync.v1.SyncService/Nope", "gosync.v9.SyncService/Hello"] {
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/grpc-web+proto\r\nContent-Length: 5\r\n\r\n",
            server.address()
        );
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let answer = exchange(stream, &head, &[0; 5]).await;
        assert_eq!(
            answer.header("grpc-status"),
            Some("12"),
            "{path}: {}",
            answer.head
        );
    }
}

/// How long the server leaves a connection open on which we say `greeting` and
/// nothing more.
async fn patience_with(server: &Running, greeting: &[u8]) -> Duration {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let begun = Instant::now();
    stream.write_all(greeting).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection is closed")
        .ok();
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_or_half_of_it_are_closed() {
    let server = start(|c| {
        c.connections.first_byte_timeout = Duration::from_millis(300);
        c.connections.header_timeout = Duration::from_millis(300);
        c.connections.keepalive_interval = Duration::from_millis(300);
        c.connections.keepalive_timeout = Duration::from_millis(300);
    })
    .await;
    for greeting in [
        &b""[..],
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /gosync.v1.SyncService/Hello HTTP/1.1\r\nHost: localhost\r\nX-Drip: ",
    ] {
        let took = patience_with(&server, greeting).await;
        assert!(took >= Duration::from_millis(200), "{took:?} {greeting:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_waited_for_until_the_deadline() {
    let server = start(|c| c.request_timeout = Duration::from_millis(400)).await;
    let head = post(server.address(), "Push", 1_000, "");
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let answer = exchange(stream, &head, &[0, 0, 0]).await;
    assert_eq!(answer.header("grpc-status"), Some("14"), "{}", answer.head);
    // the caller set no deadline: it is a refusal, and has a reason (ERR-001)
    assert!(answer.header("grpc-status-details-bin").is_some());

    // that of the caller is no refusal
    let server = start(|_| {}).await;
    let head = post(server.address(), "Push", 1_000, "Grpc-Timeout: 200m\r\n");
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let answer = exchange(stream, &head, &[0, 0, 0]).await;
    assert_eq!(answer.header("grpc-status"), Some("4"), "{}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let server = start(|c| {
        c.connections.max = 2;
        c.connections.first_byte_timeout = Duration::from_secs(60);
    })
    .await;
    let first = TcpStream::connect(server.address()).await.unwrap();
    let _second = TcpStream::connect(server.address()).await.unwrap();
    let body = frame(&hello("s"));
    let head = post(server.address(), "Hello", body.len(), "");
    let third = TcpStream::connect(server.address()).await.unwrap();
    let mut third = tokio::spawn(async move { exchange(third, &head, &body).await });
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut third)
            .await
            .is_err()
    );
    drop(first);
    assert_eq!(third.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_very_many_ranges_is_refused() {
    let server = start(|_| {}).await;
    let mut client = server.client().await;
    let mut request = watch("s", None);
    request.held[0].ranges = (0..100_000u32)
        .map(|i| wire::Range {
            start: i.to_be_bytes().to_vec(),
            end: Some([&i.to_be_bytes()[..], &[1]].concat()),
        })
        .collect();
    assert!(request.encoded_len() < 4 << 20);
    let status = client.watch(v1(request)).await.unwrap_err();
    assert_eq!(reason(&status), "LIMIT_EXCEEDED");
    let limit: wire::LimitDetail = detail(&status, "LimitDetail");
    assert_eq!(&*limit.limit, "max_ranges");
}
