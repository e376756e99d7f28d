//! The browser's transport: gRPC-web over fetch. Works on Node as well.
//!
//! What to know of it: every network failure comes as status 2 (UNKNOWN)
//! without details, and a stream's status can get lost; so the engine retries
//! status 2, takes no success from a trailer, and keeps time itself.

use super::tonic::TonicTransport;
use tonic_web_wasm_client::Client;

/// Calls a server by its address, e.g. `https://sync.example.com`.
pub type GrpcWebTransport = TonicTransport<Client>;

impl GrpcWebTransport {
    /// Nothing is sent yet.
    pub fn new(url: &str) -> GrpcWebTransport {
        let url = url.trim_end_matches('/');
        GrpcWebTransport::over(Client::new(url.to_owned()), url)
    }
}
