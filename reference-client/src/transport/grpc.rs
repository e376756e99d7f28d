//! The native transport: gRPC over HTTP/2, with TLS where the address says so.
//! Knows nothing of the calls.

use super::tonic::TonicTransport;
use ::tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Calls a server by its address, e.g. `https://sync.example.com` or
/// `http://127.0.0.1:4000`. Connects at the first call, and again whenever the
/// connection is gone.
pub type GrpcTransport = TonicTransport<Channel>;

/// The address of a server cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{url:?} is no address of a server ({detail}); write it as https://host or http://host:port"
)]
pub struct ConnectError {
    url: String,
    detail: String,
}

impl GrpcTransport {
    /// Prepares the connection; nothing is sent yet. A server behind
    /// `https://` has to show a certificate of an authority that browsers
    /// trust.
    ///
    /// # Errors
    /// The address is no URL.
    pub fn new(url: &str) -> Result<GrpcTransport, ConnectError> {
        prepare(url, ClientTlsConfig::new().with_webpki_roots())
    }

    /// The same, trusting an authority of one's own (its certificates in PEM),
    /// and no other.
    ///
    /// # Errors
    /// The address is no URL, or the text no certificate.
    pub fn with_authority(url: &str, pem: &str) -> Result<GrpcTransport, ConnectError> {
        let authority = Certificate::from_pem(pem);
        prepare(url, ClientTlsConfig::new().ca_certificate(authority))
    }
}

fn prepare(url: &str, tls: ClientTlsConfig) -> Result<GrpcTransport, ConnectError> {
    let refused = |e: ::tonic::transport::Error| ConnectError {
        url: url.to_owned(),
        detail: detail(&e),
    };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(refused)?
        .connect_timeout(std::time::Duration::from_secs(10))
        .http2_keep_alive_interval(std::time::Duration::from_secs(20))
        .keep_alive_timeout(std::time::Duration::from_secs(10))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .tcp_nodelay(true);
    if endpoint.uri().scheme_str() == Some("https") {
        endpoint = endpoint.tls_config(tls).map_err(refused)?;
    }
    Ok(GrpcTransport::over(endpoint.connect_lazy(), url))
}

/// What is wrong, without the library's own heading.
fn detail(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}
