//! One call over one connection of its own: gRPC on HTTP/2, gRPC-web on
//! HTTP/1.1. Says everything that it saw, faults included.

use super::framing::{self, Cutter};
use super::path;
use super::status::Status;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// How a call travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wire {
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-web over HTTP/1.1.
    GrpcWeb,
}

impl Wire {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Wire::Grpc => "grpc",
            Wire::GrpcWeb => "grpc-web",
        }
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// "127.0.0.1:8080".
    pub authority: String,
}

impl Endpoint {
    /// From "http://host:port".
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that names the URL.
    pub fn parse(url: &str) -> Result<Endpoint, String> {
        const FORM: &str = "expected http://HOST:PORT";
        let uri: http::Uri = url.parse().map_err(|_| FORM.to_owned())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(
                    "this suite speaks no TLS; point it at the server behind the TLS terminator"
                        .into(),
                );
            }
            _ => return Err(FORM.into()),
        }
        let authority = uri.authority().ok_or(FORM)?;
        let bare = uri.path() == "/" && uri.query().is_none() && !url.contains('#');
        if !bare || authority.as_str().contains('@') {
            return Err(format!("{FORM} and nothing more"));
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => Some(80),
            _ => authority.port_u16(),
        };
        match port {
            Some(port @ 1..) if !host.is_empty() => Ok(Endpoint {
                authority: format!("{host}:{port}"),
            }),
            _ => Err(format!("{FORM}, with a host, and a port from 1 to 65535")),
        }
    }
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Call {
    /// "Push".
    pub method: String,
    /// Metadata, in order.
    pub metadata: Vec<(String, String)>,
    /// The request's body: one frame, if it is to be legal.
    pub body: Bytes,
    /// Instead of the wire's own content type.
    pub content_type: Option<String>,
    /// For the whole call, or for each message of a stream.
    pub patience: Duration,
    /// The connection takes little more than is read of it.
    pub narrow: bool,
}

impl Call {
    /// A call with one message.
    pub fn new(method: &str, message: &[u8], patience: Duration) -> Call {
        Call {
            method: method.to_owned(),
            metadata: Vec::new(),
            body: framing::encode(0, message),
            content_type: None,
            patience,
            narrow: false,
        }
    }
}

/// What came back, whole.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// 0 when there was no answer.
    pub http_status: u16,
    /// Response headers.
    pub headers: Vec<(String, String)>,
    /// The payloads of the message frames.
    pub messages: Vec<Bytes>,
    /// How the call ended; `None` when it never said.
    pub status: Option<Status>,
    /// What was wrong on the wire.
    pub problems: Vec<String>,
}

impl Reply {
    /// Whether the call ended with status OK.
    pub fn is_ok(&self) -> bool {
        self.status.as_ref().is_some_and(|s| s.code == 0)
    }

    /// Whether it came from somebody who speaks gRPC.
    pub fn is_grpc(&self) -> bool {
        let content_type = self.headers.iter().find(|(n, _)| n == "content-type");
        self.status.is_some()
            || content_type.is_some_and(|(_, v)| v.starts_with("application/grpc"))
    }

    /// The end in words.
    pub fn summary(&self) -> String {
        match &self.status {
            Some(status) if self.problems.is_empty() => status.to_string(),
            Some(status) => format!("{status} [{}]", self.problems.join("; ")),
            None if self.problems.is_empty() => "no status".to_owned(),
            None => self.problems.join("; "),
        }
    }
}

/// Makes a call and reads it to its end.
pub async fn call(endpoint: &Endpoint, wire: Wire, call: &Call) -> Reply {
    let deadline = Instant::now() + call.patience;
    let mut stream = match timeout_at(deadline, Stream::open(endpoint, wire, call)).await {
        Ok(stream) => stream,
        Err(_) => return silent(call.patience),
    };
    loop {
        match timeout_at(deadline, stream.step()).await {
            Ok(true) => {}
            Ok(false) => return stream.into_reply(),
            Err(_) => {
                let mut reply = stream.into_reply();
                reply
                    .problems
                    .push(format!("not finished after {:?}", call.patience));
                return reply;
            }
        }
    }
}

/// Fails unless somebody takes connections there.
///
/// # Errors
/// Why not, in words.
pub async fn reach(endpoint: &Endpoint, patience: Duration) -> Result<(), String> {
    match timeout(patience, connect(endpoint, false)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no connection after {patience:?}")),
    }
}

/// What a narrow connection takes before it is read, in bytes.
const NARROW: u32 = 64 << 10;

async fn connect(endpoint: &Endpoint, narrow: bool) -> std::io::Result<TcpStream> {
    if !narrow {
        return TcpStream::connect(&endpoint.authority).await;
    }
    let mut addresses = tokio::net::lookup_host(&endpoint.authority).await?;
    let address = addresses.next().ok_or(std::io::ErrorKind::NotFound)?;
    let socket = match address.is_ipv4() {
        true => TcpSocket::new_v4()?,
        false => TcpSocket::new_v6()?,
    };
    socket.set_recv_buffer_size(NARROW)?;
    socket.connect(address).await
}

fn silent(patience: Duration) -> Reply {
    Reply {
        problems: vec![format!("no answer after {patience:?}")],
        ..Reply::default()
    }
}

/// A call whose messages are read one by one.
#[derive(Debug)]
pub struct Stream {
    reply: Reply,
    body: Option<Incoming>,
    cutter: Cutter,
    wire: Wire,
    ready: VecDeque<Bytes>,
    trailers_seen: bool,
    patience: Duration,
    connection: Option<JoinHandle<()>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(task) = self.connection.take() {
            task.abort();
        }
    }
}

impl Stream {
    /// Opens the connection, sends the request, waits for the headers.
    pub async fn open(endpoint: &Endpoint, wire: Wire, call: &Call) -> Stream {
        let mut stream = Stream {
            reply: Reply::default(),
            body: None,
            cutter: Cutter::default(),
            wire,
            ready: VecDeque::new(),
            trailers_seen: false,
            patience: call.patience,
            connection: None,
        };
        match timeout(call.patience, stream.send(endpoint, call)).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => stream.reply.problems.push(problem),
            Err(_) => stream
                .reply
                .problems
                .push(format!("no answer after {:?}", call.patience)),
        }
        stream
    }

    async fn send(&mut self, endpoint: &Endpoint, call: &Call) -> Result<(), String> {
        let tcp = connect(endpoint, call.narrow)
            .await
            .map_err(|e| format!("cannot connect to {}: {e}", endpoint.authority))?;
        let _ = tcp.set_nodelay(true);
        let request = self.request(endpoint, call)?;
        let response = match self.wire {
            Wire::Grpc => {
                let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
                if call.narrow {
                    builder.initial_stream_window_size(NARROW);
                    builder.initial_connection_window_size(NARROW);
                }
                let (mut sender, connection) = builder
                    .handshake(TokioIo::new(tcp))
                    .await
                    .map_err(|e| format!("no HTTP/2 connection: {}", chain(&e)))?;
                self.connection = Some(tokio::spawn(async move {
                    let _ = connection.await;
                }));
                sender.send_request(request).await
            }
            Wire::GrpcWeb => {
                let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
                    .handshake(TokioIo::new(tcp))
                    .await
                    .map_err(|e| format!("no HTTP/1.1 connection: {}", chain(&e)))?;
                self.connection = Some(tokio::spawn(async move {
                    let _ = connection.await;
                }));
                sender.send_request(request).await
            }
        }
        .map_err(|e| format!("the connection failed: {}", chain(&e)))?;
        self.take_head(response);
        Ok(())
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        call: &Call,
    ) -> Result<http::Request<Full<Bytes>>, String> {
        let path = path(&call.method);
        let mut request = match self.wire {
            Wire::Grpc => http::Request::post(format!("http://{}{path}", endpoint.authority))
                .header("te", "trailers"),
            Wire::GrpcWeb => http::Request::post(path)
                .header("host", endpoint.authority.as_str())
                .header("x-grpc-web", "1")
                .header("accept", "application/grpc-web+proto"),
        };
        let own = match self.wire {
            Wire::Grpc => "application/grpc",
            Wire::GrpcWeb => "application/grpc-web+proto",
        };
        request = request.header("content-type", call.content_type.as_deref().unwrap_or(own));
        for (name, value) in &call.metadata {
            request = request.header(name.as_str(), value.as_str());
        }
        request
            .body(Full::new(call.body.clone()))
            .map_err(|e| format!("the request cannot be built: {e}"))
    }

    fn take_head(&mut self, response: http::Response<Incoming>) {
        let (head, body) = response.into_parts();
        self.reply.http_status = head.status.as_u16();
        self.reply.headers = fields(&head.headers);
        let content_type = self.header("content-type").unwrap_or_default().to_owned();
        let good = match self.wire {
            Wire::Grpc => {
                content_type.starts_with("application/grpc")
                    && !content_type.starts_with("application/grpc-web")
            }
            Wire::GrpcWeb => content_type.starts_with("application/grpc-web"),
        };
        if head.status != http::StatusCode::OK {
            self.problem(format!("HTTP status {}", head.status.as_u16()));
        } else if !good {
            self.problem(format!("content-type is {content_type:?}"));
        }
        self.reply.status = Status::from_headers(&self.reply.headers);
        self.body = Some(body);
    }

    /// A response header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.reply
            .headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    fn problem(&mut self, text: impl Into<String>) {
        self.reply.problems.push(text.into());
    }

    /// Reads on. `false` at the end.
    async fn step(&mut self) -> bool {
        let Some(body) = &mut self.body else {
            return false;
        };
        match body.frame().await {
            None => {
                self.end();
                false
            }
            Some(Err(e)) => {
                self.problem(format!("the stream broke: {}", chain(&e)));
                self.end();
                false
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let data = data.clone();
                    self.cutter.feed(&data);
                    self.cut();
                } else if let Some(trailers) = frame.trailers_ref() {
                    let trailers = fields(trailers);
                    self.take_trailers(&trailers);
                }
                true
            }
        }
    }

    fn cut(&mut self) {
        loop {
            match self.cutter.cut() {
                Ok(None) => return,
                Err(problem) => {
                    self.problem(problem);
                    self.body = None;
                    return;
                }
                Ok(Some(frame)) => {
                    if self.trailers_seen {
                        self.problem("a frame comes after the trailers");
                    }
                    if self.wire == Wire::GrpcWeb && frame.flags & framing::TRAILERS != 0 {
                        match framing::parse_trailers(&frame.payload) {
                            Ok(trailers) => self.take_trailers(&trailers),
                            Err(problem) => self.problem(problem),
                        }
                    } else if frame.flags != 0 {
                        self.problem(format!("a message has the flags {:#04x}", frame.flags));
                    } else {
                        self.reply.messages.push(frame.payload.clone());
                        self.ready.push_back(frame.payload);
                    }
                }
            }
        }
    }

    fn take_trailers(&mut self, trailers: &[(String, String)]) {
        self.trailers_seen = true;
        match Status::from_headers(trailers) {
            Some(status) => {
                if self.reply.status.is_some() {
                    self.problem("grpc-status comes in the headers and in the trailers");
                }
                self.reply.status = Some(status);
            }
            None => self.problem("the trailers have no grpc-status"),
        }
    }

    fn end(&mut self) {
        if self.body.take().is_none() {
            return;
        }
        if self.cutter.left() > 0 {
            let left = self.cutter.left();
            self.problem(format!("the stream ends with {left} bytes of a frame"));
        }
        if self.reply.status.is_none() {
            self.problem("the call ends without grpc-status");
        }
    }

    /// The next message, or `None` at the end or when patience ran out (which
    /// is then a problem of the reply).
    pub async fn next(&mut self) -> Option<Bytes> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            match timeout_at(deadline, self.step()).await {
                Ok(true) => {}
                Ok(false) => return self.ready.pop_front(),
                Err(_) => {
                    let patience = self.patience;
                    self.problem(format!("no message for {patience:?}"));
                    return None;
                }
            }
        }
    }

    /// What has been seen so far.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// Ends the call and says what was seen.
    pub fn into_reply(mut self) -> Reply {
        std::mem::take(&mut self.reply)
    }
}

fn fields(headers: &http::HeaderMap) -> Vec<(String, String)> {
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

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn a_url_names_a_host_and_a_port_and_nothing_more() {
        for (url, authority) in [
            ("http://127.0.0.1:4000", "127.0.0.1:4000"),
            ("http://localhost:4000/", "localhost:4000"),
            ("http://[::1]:4000", "[::1]:4000"),
            ("http://[::1]", "[::1]:80"),
            ("http://example.org", "example.org:80"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().authority, authority);
        }
        for bad in [
            "",
            "nonsense",
            "127.0.0.1:4000",
            "http://",
            "http://:4000",
            "http://[::1",
            "http://::1",
            "http://host:",
            "http://host:0",
            "http://host:65536",
            "http://host:port",
            "http://ho st:4000",
            "http://user@host:4000",
            "http://host:4000/path",
            "http://host:4000?query",
            "http://host:4000#fragment",
            "https://host:4000",
            "ftp://host:4000",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
