//! The accept loop: from a TCP listener to HTTP requests, with every bound
//! that a connection has. Knows no calls and no stores; it serves a router.

mod remainder;

use crate::config::{ConfigError, a_year_at_most, duration, some_time};
use axum::Router;
use gosync_proto::mutant;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bounds of each connection: `[connections]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionConfig {
    /// At most so many at a time; more wait to be accepted.
    pub max: usize,
    /// A connection that has not said what it speaks by then is closed. TLS
    /// handshakes have the same time.
    #[serde(deserialize_with = "duration")]
    pub first_byte_timeout: Duration,
    /// HTTP/1.1 headers must be complete by then.
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Duration,
    /// HTTP/2 pings are sent after so long without traffic …
    #[serde(deserialize_with = "duration")]
    pub keepalive_interval: Duration,
    /// … and must be answered within this.
    #[serde(deserialize_with = "duration")]
    pub keepalive_timeout: Duration,
    /// After so long a connection is asked to end; zero is never.
    #[serde(deserialize_with = "duration")]
    pub max_age: Duration,
    /// Its calls then have so long.
    #[serde(deserialize_with = "duration")]
    pub max_age_grace: Duration,
    /// Bytes buffered for sending, per stream.
    pub send_buffer_bytes: usize,
}

impl Default for ConnectionConfig {
    fn default() -> ConnectionConfig {
        ConnectionConfig {
            max: 8_192,
            first_byte_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            max_age: Duration::from_secs(2 * 3600),
            max_age_grace: Duration::from_secs(30),
            send_buffer_bytes: 32 << 10,
        }
    }
}

impl ConnectionConfig {
    /// Refuses values under which nothing could be served, and those that the
    /// machinery below has no room for.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, problem: String| Err(ConfigError::Value { key, problem });
        let most_connections = Semaphore::MAX_PERMITS;
        if self.max == 0 {
            return bad("connections.max", "is 0; nobody could connect".into());
        }
        if self.max > most_connections {
            return bad("connections.max", format!("is above {most_connections}"));
        }
        if self.send_buffer_bytes < 4 << 10 {
            return bad("connections.send_buffer_bytes", "is below 4096".into());
        }
        if u32::try_from(self.send_buffer_bytes).is_err() {
            return bad(
                "connections.send_buffer_bytes",
                format!("is above {}", u32::MAX),
            );
        }
        for (key, value) in [
            ("connections.first_byte_timeout", self.first_byte_timeout),
            ("connections.header_timeout", self.header_timeout),
            ("connections.keepalive_interval", self.keepalive_interval),
            ("connections.keepalive_timeout", self.keepalive_timeout),
        ] {
            some_time(key, value)?;
        }
        a_year_at_most("connections.max_age", self.max_age)?;
        a_year_at_most("connections.max_age_grace", self.max_age_grace)
    }

    /// The values in force, by key.
    pub fn entries(&self) -> BTreeMap<&'static str, toml::Value> {
        let time = |d: Duration| toml::Value::from(humantime::format_duration(d).to_string());
        BTreeMap::from([
            ("max", toml::Value::from(self.max as i64)),
            ("first_byte_timeout", time(self.first_byte_timeout)),
            ("header_timeout", time(self.header_timeout)),
            ("keepalive_interval", time(self.keepalive_interval)),
            ("keepalive_timeout", time(self.keepalive_timeout)),
            ("max_age", time(self.max_age)),
            ("max_age_grace", time(self.max_age_grace)),
            (
                "send_buffer_bytes",
                toml::Value::from(self.send_buffer_bytes as i64),
            ),
        ])
    }
}

/// Travels with each request as an extension.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// Cancelled when the connection is to end for its age, so that streams
    /// can say so.
    pub aging: CancellationToken,
    /// To be cancelled to close the connection at once.
    pub close: CancellationToken,
}

/// What is served, and where.
pub struct Endpoint {
    /// Where connections come in.
    pub listener: TcpListener,
    /// What answers them.
    pub app: Router,
    /// With what they are encrypted, if at all.
    pub tls: Option<TlsAcceptor>,
    /// Concurrent streams of one HTTP/2 connection.
    pub max_streams: u32,
    /// Counts the open connections.
    pub open: Arc<AtomicUsize>,
}

/// Serves the endpoint until `drain` is cancelled; then asks every
/// connection to end and waits for them at most `drain_timeout`.
pub async fn serve(
    endpoint: Endpoint,
    config: ConnectionConfig,
    drain: CancellationToken,
    drain_timeout: Duration,
) {
    let Endpoint {
        listener,
        app,
        tls,
        max_streams,
        open,
    } = endpoint;
    let permits = Arc::new(Semaphore::new(config.max));
    let tracker = TaskTracker::new();
    let abort = CancellationToken::new();
    let shared = Arc::new(Shared {
        builder: builder(&config, max_streams),
        app,
        tls,
        config,
        drain: drain.clone(),
        open,
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let connection = shared.clone().run(stream, peer, permit);
                let abort = abort.clone();
                tracker.spawn(async move {
                    tokio::select! {
                        () = abort.cancelled() => {}
                        () = connection => {}
                    }
                });
            }
            Err(error) => {
                // out of descriptors, mostly: it passes
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    tracker.close();
    if timeout(drain_timeout, tracker.wait()).await.is_err() {
        tracing::warn!(
            left = tracker.len(),
            "closing connections that did not end in time"
        );
        abort.cancel();
        tracker.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits
        .clone()
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

fn builder(config: &ConnectionConfig, max_streams: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout((!mutant!(SlowHeadersBorne)).then_some(config.header_timeout))
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(match mutant!(StreamsUntold) {
            false => max_streams,
            true => max_streams * 2,
        })
        .max_send_buf_size(config.send_buffer_bytes)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(16 << 10)
        .max_pending_accept_reset_streams(20)
        .keep_alive_interval((!mutant!(NoPings)).then_some(config.keepalive_interval))
        .keep_alive_timeout(config.keepalive_timeout);
    match mutant!(NoHttp2) {
        false => builder,
        true => builder.http1_only(),
    }
}

struct Shared {
    builder: Builder<TokioExecutor>,
    app: Router,
    tls: Option<TlsAcceptor>,
    config: ConnectionConfig,
    drain: CancellationToken,
    open: Arc<AtomicUsize>,
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Counted {
        open.fetch_add(1, Ordering::Relaxed);
        Counted(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    async fn run(
        self: Arc<Shared>,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let _permit = permit;
        let _counted = Counted::new(&self.open);
        let by = Instant::now() + self.config.first_byte_timeout;
        match &self.tls {
            None => self.serve_http(stream, peer, by).await,
            Some(tls) => match tokio::time::timeout_at(by, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.serve_http(stream, peer, by).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            },
        }
    }

    async fn serve_http<S>(&self, stream: S, peer: SocketAddr, first_byte_by: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let spoke = Arc::new(AtomicBool::new(false));
        let aging = CancellationToken::new();
        let close = CancellationToken::new();
        let info = Connection {
            peer,
            aging: aging.clone(),
            close: close.clone(),
        };
        let app = self.app.clone();
        let service = TowerToHyperService::new(tower::service_fn({
            let spoke = spoke.clone();
            move |mut request: http::Request<Incoming>| {
                spoke.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(info.clone());
                let app = app.clone();
                async move {
                    use tower::ServiceExt;
                    let (head, body) = request.into_parts();
                    let (body, rest) = remainder::lend(body);
                    let version = head.version;
                    let request = http::Request::from_parts(head, axum::body::Body::new(body));
                    let response: Result<_, Infallible> = app.oneshot(request).await;
                    if version < http::Version::HTTP_2 {
                        rest.discard().await;
                    }
                    response
                }
            }
        }));
        let io = TokioIo::new(Greeting {
            stream,
            read: 0,
            pings: 0,
            spoke: spoke.clone(),
        });
        let mut connection = pin!(self.builder.serve_connection(io, service));
        let mut first_byte = pin!(tokio::time::sleep_until(first_byte_by));
        let max_age = self.config.max_age;
        let mut old = pin!(sleep(if max_age.is_zero() { FOREVER } else { max_age }));
        let (mut waiting, mut young, mut staying) = (true, true, true);
        loop {
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                    return;
                }
                () = close.cancelled() => return,
                () = &mut first_byte, if waiting && !mutant!(SilenceBorneHere) => {
                    if !spoke.load(Ordering::Relaxed) {
                        tracing::debug!(%peer, "connection closed: it never said what it speaks");
                        return;
                    }
                    waiting = false;
                }
                () = &mut old => {
                    if !young {
                        tracing::debug!(%peer, "connection closed for its age");
                        return;
                    }
                    young = false;
                    aging.cancel();
                    connection.as_mut().graceful_shutdown();
                    old.as_mut().reset(Instant::now() + self.config.max_age_grace);
                }
                () = self.drain.cancelled(), if staying => {
                    staying = false;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Notes when enough has been read to know what the peer speaks: the length of
/// HTTP/2's preface, which no HTTP/1 request with a Host is shorter than.
struct Greeting<S> {
    stream: S,
    read: usize,
    /// Counted for a mutant only.
    pings: usize,
    spoke: Arc<AtomicBool>,
}

const PREFACE_BYTES: usize = 24;

impl<S: AsyncRead + Unpin> AsyncRead for Greeting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.read < PREFACE_BYTES {
            self.read += buf.filled().len() - before;
            if self.read >= PREFACE_BYTES {
                self.spoke.store(true, Ordering::Relaxed);
            }
        }
        if mutant!(PingsResented) {
            let frames = buf.filled()[before..].windows(5);
            self.pings += frames.filter(|f| *f == [0, 0, 8, 6, 0]).count();
            if self.pings > 2 {
                return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
