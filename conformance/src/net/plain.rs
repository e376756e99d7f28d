//! Plain HTTP beside the calls: what browsers ask before they call, and what an
//! HTTP/2 connection says of itself. Knows no gRPC.

use super::client::{Endpoint, chain};
use super::connection::{Http2, kind};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Bytes,
}

impl Page {
    /// All values of a header, in lower case, as one list.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.headers
            .iter()
            .filter(|(n, _)| n == name)
            .flat_map(|(_, v)| v.split(','))
            .map(|v| v.trim().to_ascii_lowercase())
            .collect()
    }
}

/// One request with a whole answer.
///
/// # Errors
/// A sentence when there is no answer.
pub async fn request(
    endpoint: &Endpoint,
    http2: bool,
    mut request: http::Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Page, String> {
    let asked = async {
        let tcp = TcpStream::connect(&endpoint.authority)
            .await
            .map_err(|e| format!("cannot connect: {e}"))?;
        let io = TokioIo::new(tcp);
        let response = if http2 {
            let uri = format!("http://{}{}", endpoint.authority, request.uri().path());
            *request.uri_mut() = uri.parse().map_err(|e| format!("no URI: {e}"))?;
            let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (mut sender, connection) = builder.handshake(io).await.map_err(|e| chain(&e))?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let host = http::HeaderValue::from_str(&endpoint.authority)
                .map_err(|e| format!("no host: {e}"))?;
            request.headers_mut().insert("host", host);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
                .await
                .map_err(|e| chain(&e))?;
            tokio::spawn(connection);
            sender.send_request(request).await
        }
        .map_err(|e| chain(&e))?;
        let (head, body) = response.into_parts();
        let headers = head
            .headers
            .iter()
            .map(|(n, v)| {
                let value = String::from_utf8_lossy(v.as_bytes()).into_owned();
                (n.as_str().to_owned(), value)
            })
            .collect();
        let body = body.collect().await.map_err(|e| chain(&e))?.to_bytes();
        Ok(Page {
            status: head.status.as_u16(),
            headers,
            body,
        })
    };
    timeout(patience, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer after {patience:?}")))
}

/// SETTINGS_MAX_CONCURRENT_STREAMS of RFC 9113.
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// What the first SETTINGS frame of an HTTP/2 connection says about concurrent
/// streams; `None`: nothing.
///
/// # Errors
/// A sentence when there is no such frame.
pub async fn concurrent_streams(
    endpoint: &Endpoint,
    patience: Duration,
) -> Result<Option<u32>, String> {
    let asked = async {
        let mut http2 = Http2::open(endpoint).await?;
        let first = http2.frame().await?.filter(|f| f.kind == kind::SETTINGS);
        let Some(settings) = first else {
            return Err(std::io::Error::other("the first frame is no SETTINGS"));
        };
        let value = settings.payload.chunks_exact(6).find_map(|s| {
            let id = u16::from_be_bytes([s[0], s[1]]);
            let value = u32::from_be_bytes([s[2], s[3], s[4], s[5]]);
            (id == MAX_CONCURRENT_STREAMS).then_some(value)
        });
        Ok(value)
    };
    match timeout(patience, asked).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no SETTINGS after {patience:?}")),
    }
}
