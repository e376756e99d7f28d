//! The native transport: gRPC over HTTP/2.

use super::tonic::TonicTransport;
use ::tonic::transport::{Channel, Endpoint};

/// Calls a server by its address, e.g. `http://127.0.0.1:4000`. Connects at
/// the first call, and again whenever the connection is gone.
pub type GrpcTransport = TonicTransport<Channel>;

/// The address of a server cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url:?} is no address of a server ({detail}); write it as http://host:port")]
pub struct ConnectError {
    url: String,
    detail: String,
}

impl GrpcTransport {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// The address is no URL.
    pub fn new(url: &str) -> Result<GrpcTransport, ConnectError> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| ConnectError {
            url: url.to_owned(),
            detail: e.to_string(),
        })?;
        let endpoint = endpoint
            .connect_timeout(std::time::Duration::from_secs(10))
            .http2_keep_alive_interval(std::time::Duration::from_secs(20))
            .keep_alive_timeout(std::time::Duration::from_secs(10))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .tcp_nodelay(true);
        Ok(GrpcTransport::over(endpoint.connect_lazy()))
    }
}
