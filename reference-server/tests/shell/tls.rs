//! TLS on the port: HTTP/1.1 and HTTP/2 by ALPN.

use crate::browser::{exchange, frame, post};
use crate::server::*;
use gosync_server::config::TlsConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

async fn encrypted() -> (Running, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = start(|c| {
        c.tls = Some(TlsConfig { cert, key });
        c.connections.first_byte_timeout = Duration::from_millis(500);
    })
    .await;
    (server, made.cert.der().clone())
}

async fn connect_tls(
    server: &Running,
    root: &CertificateDer<'static>,
    alpn: &[u8],
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_work_over_tls() {
    let (server, root) = encrypted().await;
    assert!(server.url.starts_with("https://"));
    let body = frame(&hello("s"));
    let stream = connect_tls(&server, &root, b"http/1.1").await;
    let answer = exchange(stream, &post("localhost", "Hello", body.len(), ""), &body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.frames().1.contains("grpc-status:0"));

    let mut stream = connect_tls(&server, &root, b"h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).await.unwrap();
    assert_eq!(settings[3], 4, "the server's SETTINGS frame");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stops_halfway_is_closed() {
    let (server, _) = encrypted().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("closed")
        .ok();
}
