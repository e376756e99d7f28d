//! Servers that are no implementation at all. What they pass says how much a
//! check is worth: no negative check may pass against them.

use crate::net::framing;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a crude server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crude {
    /// Accepts connections and closes them.
    HangUp,
    /// Answers every call with OK and an empty message.
    AlwaysOk,
    /// Refuses every call with a well-formed MALFORMED.
    AlwaysError,
    /// Accepts connections and says nothing.
    Silent,
    /// Answers with the request's own bytes.
    Echo,
    /// Answers with bytes from a seeded generator.
    Random,
}

impl Crude {
    /// Every one.
    pub const ALL: [Crude; 6] = [
        Crude::HangUp,
        Crude::AlwaysOk,
        Crude::AlwaysError,
        Crude::Silent,
        Crude::Echo,
        Crude::Random,
    ];
}

/// A crude server, listening on a loopback port until it is dropped.
pub struct CrudeServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for CrudeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CrudeServer {
    /// Starts one.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(kind: Crude) -> io::Result<CrudeServer> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(serve(kind, tcp));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(CrudeServer { address, task })
    }

    /// "http://127.0.0.1:PORT".
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(kind: Crude, mut tcp: TcpStream) {
    match kind {
        Crude::HangUp => {}
        Crude::Silent => {
            let mut sink = [0; 4096];
            while tcp.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        }
        Crude::Random => {
            let mut state = 42u64;
            let mut noise = vec![0u8; 2000];
            for byte in &mut noise {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
            // the other side may be gone already
            let _ = tcp.write_all(&noise).await;
            let mut sink = [0; 4096];
            while tcp.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        }
        Crude::AlwaysOk | Crude::AlwaysError | Crude::Echo => {
            let handler =
                hyper::service::service_fn(
                    move |request| async move { answer(kind, request).await },
                );
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tcp), handler)
                .await;
        }
    }
}

async fn answer(
    kind: Crude,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let web = request
        .headers()
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .is_some_and(|t| t.starts_with("application/grpc-web"));
    let content_type = if web {
        "application/grpc-web+proto"
    } else {
        "application/grpc"
    };
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let refusal =
        crate::net::Status::refused(crate::oracle::Code::InvalidArgument, "MALFORMED", "no");
    let (message, fields) = match kind {
        Crude::AlwaysError => (Bytes::new(), refusal.to_headers()),
        Crude::Echo => (body, crate::net::Status::ok().to_headers()),
        _ => (
            framing::encode(0, &[]),
            crate::net::Status::ok().to_headers(),
        ),
    };
    let response = http::Response::builder().header("content-type", content_type);
    let body = if web {
        let bytes = [message, framing::encode_trailers(&fields)].concat();
        Full::new(Bytes::from(bytes)).boxed()
    } else {
        let trailers = fields
            .iter()
            .filter_map(|(n, v)| {
                Some((
                    http::HeaderName::try_from(n).ok()?,
                    http::HeaderValue::try_from(v).ok()?,
                ))
            })
            .collect();
        Full::new(message)
            .with_trailers(std::future::ready(Some(Ok(trailers))))
            .boxed()
    };
    Ok(response
        .body(body)
        .unwrap_or_else(|_| http::Response::new(Full::new(Bytes::new()).boxed())))
}
