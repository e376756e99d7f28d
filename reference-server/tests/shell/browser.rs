//! gRPC-web over HTTP/1.1 as a browser speaks it, CORS, static files, probes.
//! Raw sockets, so that no library smooths anything over.

use crate::server::*;
use gosync_proto::wire::{self, snapshot_response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// An HTTP/1.1 answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The messages and the trailers of a gRPC-web body.
    pub fn frames(&self) -> (Vec<Vec<u8>>, String) {
        let (mut messages, mut trailers) = (Vec::new(), String::new());
        let mut rest = &self.body[..];
        while let [flags, a, b, c, d, tail @ ..] = rest {
            let (frame, after) = tail.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            match flags {
                0 => messages.push(frame.to_vec()),
                0x80 => trailers += std::str::from_utf8(frame).unwrap(),
                other => panic!("frame with flags {other}"),
            }
            rest = after;
        }
        assert!(rest.is_empty(), "half a frame");
        (messages, trailers)
    }
}

/// Sends one request on a connection and reads until it is closed.
pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    head: &str,
    body: &[u8],
) -> Answer {
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut raw = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut raw))
        .await
        .expect("an answer in time")
        .unwrap();
    let split = raw
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(raw[..split].to_vec()).unwrap();
    let mut answer = Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        body: raw[split + 4..].to_vec(),
        head,
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunk(&answer.body);
    }
    answer
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest
            .windows(2)
            .position(|w| w == b"\r\n")
            .expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
}

pub fn frame(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

pub fn post(host: &str, method: &str, length: usize, more: &str) -> String {
    format!(
        "POST /gosync.v1.SyncService/{method} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\nGosync-Version: 1\r\n\
         Content-Length: {length}\r\n{more}\r\n"
    )
}

async fn call(server: &Running, method: &str, message: &impl Message) -> Answer {
    let body = frame(message);
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let head = post(
        server.address(),
        method,
        body.len(),
        "Origin: http://localhost:3000\r\n",
    );
    exchange(stream, &head, &body).await
}

/// The one message of a unary answer.
fn unary<M: Message + Default>(answer: &Answer) -> M {
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/grpc-web+proto")
    );
    let (messages, trailers) = answer.frames();
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
    M::decode(&*messages[0]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_works_over_http1() {
    let server = start(|_| {}).await;
    let answer: wire::HelloResponse = unary(&call(&server, "Hello", &hello("s")).await);
    assert_eq!(answer.version, 1);

    let batch = push("s", vec![record("k", 1 << 16, "v")]);
    let answer: wire::PushResponse = unary(&call(&server, "Push", &batch).await);
    assert_eq!(answer.verdicts[0].outcome(), wire::Outcome::Applied);

    let request = wire::ReconcileRequest {
        space: "s".into(),
        held: all(None),
        ..Default::default()
    };
    let answer = call(&server, "Reconcile", &request).await;
    // no part is named, which is malformed or answered with none
    assert_eq!(answer.status, 200);

    let request = wire::WatchRequest {
        until_caught_up: true,
        ..watch("s", None)
    };
    let answer = call(&server, "Watch", &request).await;
    let (messages, trailers) = answer.frames();
    let events: Vec<Event> = messages
        .iter()
        .map(|m| wire::WatchResponse::decode(&**m).unwrap().event.unwrap())
        .collect();
    assert!(matches!(
        &events[..],
        [Event::Changes(_), Event::Checkpoint(_), Event::End(_)]
    ));
    assert!(trailers.contains("grpc-status:0"), "{trailers}");

    let (messages, _) = call(&server, "Snapshot", &snapshot("s")).await.frames();
    let last = wire::SnapshotResponse::decode(&**messages.last().unwrap()).unwrap();
    assert!(matches!(last.event, Some(snapshot_response::Event::End(_))));
    assert_eq!(messages.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_reach_a_page_with_their_details() {
    let server = start(|_| {}).await;
    let answer = call(&server, "Hello", &hello("no such id!")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("grpc-status"), Some("3"));
    assert!(answer.header("grpc-status-details-bin").is_some());
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("grpc-status-details-bin"), "{exposed}");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://localhost:3000")
    );
}

async fn preflight(server: &Running, origin: &str) -> Answer {
    let head = format!(
        "OPTIONS /gosync.v1.SyncService/Push HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type,gosync-version,x-grpc-web\r\n\r\n",
        server.address()
    );
    let stream = TcpStream::connect(server.address()).await.unwrap();
    exchange(stream, &head, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_allowed_origins_pass_the_preflight() {
    let server = start(|c| c.cors.allow_origins = vec!["https://app.example".into()]).await;
    for good in [
        "http://localhost:8080",
        "http://127.0.0.1:1",
        "https://app.example",
    ] {
        let answer = preflight(&server, good).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some(good));
        let headers = answer.header("access-control-allow-headers").unwrap();
        assert!(headers.contains("gosync-version"), "{headers}");
    }
    for bad in [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
    ] {
        let answer = preflight(&server, bad).await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_lets_no_page_into_a_server_without_tokens() {
    let server = start(|c| c.cors.allow_origins = vec!["*".into()]).await;
    let answer = preflight(&server, "https://evil.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tokens_answers_to_loopback_names_only() {
    let server = start(|_| {}).await;
    let body = frame(&hello("s"));
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let answer = exchange(
        stream,
        &post("evil.example", "Hello", body.len(), ""),
        &body,
    )
    .await;
    assert_eq!(answer.status, 421);
}

async fn get(address: &str, path: &str) -> Answer {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    exchange(TcpStream::connect(address).await.unwrap(), &head, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn static_files_are_served_beside_the_calls() {
    let site = tempfile::tempdir().unwrap();
    std::fs::write(site.path().join("index.html"), "<h1>hi</h1>").unwrap();
    std::fs::write(site.path().join("a.wasm"), "\0asm").unwrap();
    let server = start(|c| c.static_files = Some(site.path().to_owned())).await;
    let page = get(server.address(), "/").await;
    assert_eq!((page.status, &page.body[..]), (200, &b"<h1>hi</h1>"[..]));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let wasm = get(server.address(), "/a.wasm").await;
    assert_eq!(wasm.header("content-type"), Some("application/wasm"));
    assert_eq!(get(server.address(), "/nothing").await.status, 404);
    assert_eq!(get(server.address(), "/../test.db").await.status, 404);
    let answer: wire::HelloResponse = unary(&call(&server, "Hello", &hello("s")).await);
    assert_eq!(answer.version, 1);
}

/// Posts a gRPC-web body of one empty message to any path.
async fn post_empty(server: &Running, path: &str) -> Answer {
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Content-Type: application/grpc-web+proto\r\nContent-Length: 5\r\n\r\n",
        server.address()
    );
    exchange(
        TcpStream::connect(server.address()).await.unwrap(),
        &head,
        &[0; 5],
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_health_says_serving() {
    let server = start(|_| {}).await;
    let answer = post_empty(&server, "grpc.health.v1.Health/Check").await;
    let (messages, _) = answer.frames();
    assert_eq!(messages[0], [8, 1], "status: SERVING");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_can_be_asked_for_only_where_that_is_switched_on() {
    const PATH: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let closed = start(|_| {}).await;
    assert_eq!(
        post_empty(&closed, PATH).await.header("grpc-status"),
        Some("12")
    );
    let open = start(|c| c.reflection = true).await;
    assert_ne!(
        post_empty(&open, PATH).await.header("grpc-status"),
        Some("12")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_neither_kept_nor_buffered_on_the_way() {
    let server = start(|_| {}).await;
    let answer = call(&server, "Hello", &hello("s")).await;
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store, no-transform")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_tell_how_the_server_is() {
    let server = start(|c| c.metrics.listen = Some("127.0.0.1:0".parse().unwrap())).await;
    assert_eq!(get(server.address(), "/readyz").await.status, 200);
    let _: wire::HelloResponse = unary(&call(&server, "Hello", &hello("s")).await);
    let operator = server.metrics_url.clone().unwrap();
    let page = get(operator.strip_prefix("http://").unwrap(), "/metrics").await;
    let text = String::from_utf8(page.body).unwrap();
    assert!(
        text.contains("gosync_calls_total{method=\"Hello\",code=\"0\"} 1"),
        "{text}"
    );
    assert!(text.contains("gosync_connections"), "{text}");
    // they are no part of the public port
    assert_eq!(get(server.address(), "/metrics").await.status, 404);
}
