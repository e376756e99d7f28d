//! The peer on HTTP/1.1 and HTTP/2, by hand, so that it can break off, cut and
//! bend what it sends.

use super::metadata;
use super::script::{Action, Script, Seen};
use super::service::{Answer, Caller, Service, Settings};
use crate::net::connection::PREFACE;
use crate::net::framing::{self, Cutter};
use crate::net::{Status, Wire};
use crate::oracle::Code;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// With a connection that says nothing, or only a part: no request with a Host
/// is shorter than HTTP/2's preface.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(20);

type Out = Result<Frame<Bytes>, io::Error>;

/// A response body that is fed through a channel.
struct Channel(mpsc::Receiver<Out>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = io::Error;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Out>> {
        self.0.poll_recv(cx)
    }

    /// A refusal has no body: HTTP/2 then ends the stream with its header, as gRPC's trailers-only answers do.
    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }
}

/// The peer, listening on a loopback port.
pub struct Peer {
    /// The rules and the state; outlives restarts.
    pub service: Service,
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    /// Told to every connection that is open.
    go_away: watch::Sender<()>,
    born: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Peer {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(settings: Settings, seed: u64) -> io::Result<Peer> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script: Mutex::new(Script::default()),
            seen: Mutex::new(Vec::new()),
            go_away: watch::Sender::new(()),
            born: Instant::now(),
        });
        let service = Service::new(settings, seed);
        let accepting = Some(tokio::spawn(accept(
            listener,
            service.clone(),
            shared.clone(),
        )));
        Ok(Peer {
            service,
            shared,
            address,
            accepting,
        })
    }

    /// Since it was made.
    pub fn age(&self) -> Duration {
        self.shared.born.elapsed()
    }

    /// "http://127.0.0.1:PORT".
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the port and every connection at once.
    pub fn stop(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
        }
    }

    /// Listens on the same port again.
    ///
    /// # Errors
    /// When somebody else has taken it.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop();
        let mut last = None;
        for _ in 0..100 {
            match TcpListener::bind(self.address).await {
                Ok(listener) => {
                    let (service, shared) = (self.service.clone(), self.shared.clone());
                    self.accepting = Some(tokio::spawn(accept(listener, service, shared)));
                    return Ok(());
                }
                Err(e) => last = Some(e),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(last.unwrap_or_else(|| io::Error::other("the port cannot be bound again")))
    }

    /// Sends GOAWAY (over HTTP/1.1: closes after the next answer) on every
    /// connection that is open: calls under way go on, new ones need another
    /// connection.
    pub fn go_away(&mut self) {
        self.shared.go_away.send_replace(());
    }

    /// Changes what happens to the next calls.
    pub fn script<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut lock(&self.shared.script))
    }

    /// Every call so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }
}

async fn accept(listener: TcpListener, service: Service, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    connections.spawn(connection(tcp, service.clone(), shared.clone()));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(tcp: TcpStream, service: Service, shared: Arc<Shared>) {
    let _ = tcp.set_nodelay(true);
    let told = service.limits().max_streams_per_connection as u32;
    let streams = if service.quirk(super::Quirk::StreamsUntold) {
        told * 7
    } else {
        told
    };
    let mut told_to_go = shared.go_away.subscribe();
    let handler = hyper::service::service_fn(move |request| {
        let (service, shared) = (service.clone(), shared.clone());
        async move { respond(request, service, shared).await }
    });
    // a broken connection is the other side's business here
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let patience = CONNECTION_PATIENCE;
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(patience / 2)
        .keep_alive_timeout(patience)
        .max_concurrent_streams(streams);
    let (mut incoming, outgoing) = tcp.into_split();
    let mut greeting = [0; PREFACE.len()];
    match tokio::time::timeout(patience, incoming.read_exact(&mut greeting)).await {
        Ok(Ok(_)) => {}
        _ => return,
    }
    let incoming = io::Cursor::new(greeting).chain(incoming);
    let stream = TokioIo::new(tokio::io::join(incoming, outgoing));
    let mut serving = pin!(builder.serve_connection(stream, handler));
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = told_to_go.changed() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// One request on its way through.
struct Turn {
    wire: Wire,
    shared: Arc<Shared>,
    index: usize,
    request: Vec<u8>,
}

impl Turn {
    fn note(&self, act: impl FnOnce(&mut Seen)) {
        if let Some(seen) = lock(&self.shared.seen).get_mut(self.index) {
            act(seen);
        }
    }
}

async fn respond(
    request: Request<Incoming>,
    service: Service,
    shared: Arc<Shared>,
) -> Result<Response<Channel>, io::Error> {
    if request.method() == http::Method::OPTIONS {
        if service.quirk(super::Quirk::NoPreflight) {
            return Ok(head(405, &[]).map(|()| empty()));
        }
        return Ok(with_cors(head(204, &[]), empty()));
    }
    let (head_parts, body) = request.into_parts();
    let headers = fields(&head_parts.headers);
    let get = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
    };
    let web = get("content-type").is_some_and(|t| t.starts_with("application/grpc-web"));
    let method = head_parts
        .uri
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let came = Instant::now();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let (encoding, most) = (get("grpc-encoding"), service.limits().max_message_bytes);
    let inflated = metadata::inflated(body.clone(), encoding.as_deref(), most);
    let body = inflated.unwrap_or(body);
    let (message, problems) = read_request(&body);
    let turn = {
        let mut seen = lock(&shared.seen);
        seen.push(Seen {
            method: method.clone(),
            headers: headers.clone(),
            message: message.clone(),
            problems: problems.clone(),
            answers: Vec::new(),
            end: Seen::UNDER_WAY.into(),
            at: shared.born.elapsed(),
        });
        Turn {
            wire: if web { Wire::GrpcWeb } else { Wire::Grpc },
            index: seen.len() - 1,
            request: message.clone(),
            shared: shared.clone(),
        }
    };
    let action = lock(&shared.script).take(&method);
    match &action {
        Action::Reset => {
            turn.note(|s| s.end = "reset before anything was done".into());
            return Err(io::Error::other("scripted reset"));
        }
        Action::Silent => {
            turn.note(|s| s.end = "never answered".into());
            std::future::pending::<()>().await;
        }
        Action::Html(status) => {
            turn.note(|s| s.end = format!("HTTP {status} with a page"));
            let body = "<html><body><h1>Service Unavailable</h1></body></html>";
            let fields = [("content-type".to_owned(), "text/html".to_owned())];
            return Ok(with_cors(head(*status, &fields), once(Bytes::from(body))));
        }
        Action::Refuse(refusal) => return Ok(refuse(&turn, &refusal.status())),
        Action::RefuseIf(judge, refusal) if judge(&message) => {
            return Ok(refuse(&turn, &refusal.status()));
        }
        Action::RefuseAs(code, refusal) => {
            let mut status = refusal.status();
            status.code = *code as u32;
            return Ok(refuse(&turn, &status));
        }
        Action::Delay(pause) => tokio::time::sleep(*pause).await,
        _ => {}
    }
    let known = ["Hello", "Push", "Watch", "Reconcile", "Snapshot"].contains(&method.as_str());
    let compressed = body.first() == Some(&framing::COMPRESSED);
    if !known || compressed {
        let text = if known {
            "no compression"
        } else {
            "no such call"
        };
        let mut refused = refuse(&turn, &Status::refused(Code::Unimplemented, "", text));
        let own = HeaderValue::from_static("gzip");
        refused.headers_mut().insert("grpc-accept-encoding", own);
        return Ok(refused);
    }
    if let Some(problem) = problems.first() {
        let status = Status::refused(Code::Internal, "", problem);
        return Ok(refuse(&turn, &status));
    }
    let deadline = get("grpc-timeout").and_then(|text| metadata::deadline(&text));
    if deadline.is_some_and(|deadline| came.elapsed() > deadline) {
        let status = Status::refused(Code::DeadlineExceeded, "", "nobody waits any more");
        return Ok(refuse(&turn, &status));
    }
    let authorization = get("authorization");
    let version = get("gosync-version");
    let caller = Caller {
        authorization: authorization.as_deref(),
        version: version.as_deref(),
    };
    let answer = service.call(&method, &caller, &message);
    if matches!(action, Action::CommitThenReset) {
        turn.note(|s| s.end = "done, then reset".into());
        return Err(io::Error::other("scripted reset"));
    }
    match answer {
        Err(refusal) => {
            let mut status = refusal.status();
            if service.quirk(super::Quirk::BareErrors) {
                status.reason.clear();
                status.details.clear();
            }
            if service.quirk(super::Quirk::WrongStatus) {
                status.code = Code::Internal as u32;
            }
            Ok(refuse(&turn, &status))
        }
        Ok(answer) => Ok(stream(&service, turn, action, answer)),
    }
}

fn read_request(body: &[u8]) -> (Vec<u8>, Vec<String>) {
    let mut cutter = Cutter::default();
    cutter.feed(body);
    let mut problems = Vec::new();
    let mut message = None;
    loop {
        match cutter.cut() {
            Ok(Some(frame)) if frame.flags != 0 => {
                problems.push(format!(
                    "a request frame has the flags {:#04x}",
                    frame.flags
                ));
            }
            Ok(Some(_)) if message.is_some() => {
                problems.push("the request has more than one message".into());
            }
            Ok(Some(frame)) => message = Some(frame.payload.to_vec()),
            Ok(None) => break,
            Err(problem) => {
                problems.push(problem);
                break;
            }
        }
    }
    if cutter.left() > 0 && problems.is_empty() {
        problems.push("the request ends within a frame".into());
    }
    if message.is_none() && problems.is_empty() {
        problems.push("the request has no message".into());
    }
    (message.unwrap_or_default(), problems)
}

fn refuse(turn: &Turn, status: &Status) -> Response<Channel> {
    turn.note(|s| s.end = status.to_string());
    let trailers = status.to_headers();
    let mut fields = vec![(
        "content-type".to_owned(),
        content_type(turn.wire).to_owned(),
    )];
    match turn.wire {
        Wire::Grpc => {
            fields.extend(trailers);
            with_cors(head(200, &fields), empty())
        }
        Wire::GrpcWeb => with_cors(
            head(200, &fields),
            once(framing::encode_trailers(&trailers)),
        ),
    }
}

/// Sends the messages of an answer with the script's deviation.
fn stream(service: &Service, turn: Turn, action: Action, answer: Answer) -> Response<Channel> {
    let (sender, receiver) = mpsc::channel(4);
    let buffered = service.quirk(super::Quirk::StreamsBuffered);
    let hidden = service.quirk(super::Quirk::StatusHidden);
    let mut fields = vec![(
        "content-type".to_owned(),
        content_type(turn.wire).to_owned(),
    )];
    if !buffered {
        let value = "no-store, no-transform".to_owned();
        fields.push(("cache-control".to_owned(), value));
    }
    tokio::spawn(async move {
        let mut source = match answer {
            Answer::Stream(receiver) => receiver,
            Answer::Unary(message) => {
                let (sender, receiver) = mpsc::channel(1);
                let _ = sender.try_send(message);
                receiver
            }
        };
        let end = send_all(&turn, &action, &mut source, &sender).await;
        turn.note(|s| s.end = end);
    });
    let mut response = with_cors(head(200, &fields), Channel(receiver));
    if hidden {
        response
            .headers_mut()
            .remove("access-control-expose-headers");
    }
    response
}

async fn send_all(
    turn: &Turn,
    action: &Action,
    source: &mut mpsc::Receiver<Vec<u8>>,
    sender: &mpsc::Sender<Out>,
) -> String {
    let flags = if matches!(action, Action::OddFlag) {
        0x42
    } else {
        0
    };
    if matches!(action, Action::Endless) {
        return endless(sender).await;
    }
    let (mut index, mut sent) = (0, 0);
    let mut kept_back = None;
    loop {
        match action {
            Action::BreakAfter(n) if sent >= *n => {
                let _ = sender.send(Err(io::Error::other("scripted break"))).await;
                return format!("broken off after {sent} messages");
            }
            Action::EndAfter(n) if sent >= *n => break,
            Action::StallAfter(n) if sent >= *n => {
                sender.closed().await;
                return format!("the caller went away after {sent} messages and silence");
            }
            Action::HalfFrameAfter(n) if sent >= *n => {
                let half = Bytes::from_static(&[0, 0, 0, 1, 0, 1, 2, 3]);
                let _ = sender.send(Ok(Frame::data(half))).await;
                break;
            }
            _ => {}
        }
        let message = tokio::select! {
            message = source.recv() => message,
            () = sender.closed() => return format!("the caller went away after {sent} messages"),
        };
        let is_last = message.is_none();
        let Some(message) = message.or_else(|| kept_back.take()) else {
            break;
        };
        let messages = match action {
            Action::Rewrite(rewrite) => rewrite(index, message),
            Action::Reply(reply) => vec![reply(&turn.request, message)],
            Action::Twice => vec![message.clone(), message],
            Action::Swapped if !is_last => match kept_back.take() {
                Some(before) => vec![message, before],
                None => {
                    kept_back = Some(message);
                    vec![]
                }
            },
            _ => vec![message],
        };
        index += 1;
        for message in messages {
            turn.note(|s| s.answers.push(message.clone()));
            let bytes = framing::encode(flags, &message);
            if deliver(bytes, action, sender).await.is_err() {
                return format!("the caller went away after {sent} messages");
            }
            sent += 1;
        }
    }
    if matches!(action, Action::NoTrailers) {
        return "ended without trailers".into();
    }
    let mut trailers = Status::ok().to_headers();
    if matches!(action, Action::OddTrailers) {
        trailers.insert(0, ("x-proxy".into(), "passed: here".into()));
        trailers.push(("x-checksum-bin".into(), "AAEC".into()));
    }
    let _ = match (turn.wire, action) {
        (Wire::Grpc, _) => {
            let last = Frame::trailers(header_map(&trailers));
            sender.send(Ok(last)).await
        }
        (Wire::GrpcWeb, Action::OddTrailers) => {
            let line = |(name, value): &(String, String)| format!("{name}:  {value} \r\n");
            let text: String = trailers.iter().map(line).collect();
            let bytes = framing::encode(framing::TRAILERS, text.as_bytes());
            deliver(bytes, action, sender).await
        }
        (Wire::GrpcWeb, _) => deliver(framing::encode_trailers(&trailers), action, sender).await,
    };
    format!("OK after {sent} messages")
}

/// Hands bytes to the connection: at once, or in pieces.
async fn deliver(
    bytes: Bytes,
    action: &Action,
    sender: &mpsc::Sender<Out>,
) -> Result<(), mpsc::error::SendError<Out>> {
    if !matches!(action, Action::Drip) {
        return sender.send(Ok(Frame::data(bytes))).await;
    }
    for piece in bytes.chunks(3) {
        let piece = Bytes::copy_from_slice(piece);
        sender.send(Ok(Frame::data(piece))).await?;
        // so that it is a piece on the wire as well
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// No caller has to read more of one message than this.
const ENDLESS_BYTES: usize = 64 << 20;

/// The beginning of a message that nobody can want.
async fn endless(sender: &mpsc::Sender<Out>) -> String {
    let mut next = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    let mut sent = 0;
    while sent < ENDLESS_BYTES {
        sent += next.len();
        if sender.send(Ok(Frame::data(next))).await.is_err() {
            return "the caller went away from an endless message".into();
        }
        next = Bytes::from_static(&[0; 64 << 10]);
    }
    "the caller goes on reading an endless message".into()
}

fn content_type(wire: Wire) -> &'static str {
    match wire {
        Wire::Grpc => "application/grpc",
        Wire::GrpcWeb => "application/grpc-web+proto",
    }
}

fn head(status: u16, fields: &[(String, String)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    *response.headers_mut() = header_map(fields);
    response
}

fn header_map(fields: &[(String, String)]) -> HeaderMap {
    fields
        .iter()
        .filter_map(|(name, value)| {
            Some((
                HeaderName::try_from(name).ok()?,
                HeaderValue::try_from(value).ok()?,
            ))
        })
        .collect()
}

fn with_cors(head: Response<()>, body: Channel) -> Response<Channel> {
    let mut response = head.map(|()| body);
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-headers", "*, authorization"),
        ("access-control-allow-methods", "POST, OPTIONS"),
        (
            "access-control-expose-headers",
            "grpc-status, grpc-message, grpc-status-details-bin",
        ),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn empty() -> Channel {
    Channel(mpsc::channel(1).1)
}

fn once(bytes: Bytes) -> Channel {
    let (sender, receiver) = mpsc::channel(1);
    let _ = sender.try_send(Ok(Frame::data(bytes)));
    Channel(receiver)
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body;

    /// gRPC's C core, and so Python's client, takes an empty DATA frame for a broken answer and never sees the status.
    #[test]
    fn a_refusal_over_grpc_ends_with_its_header() {
        assert!(empty().is_end_stream());
        assert!(!once(Bytes::from_static(b"x")).is_end_stream());
    }
}
