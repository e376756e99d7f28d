//! The seam between the engine and the network: five calls, and what can go
//! wrong with one. Knows no sync; timeouts and retries are the engine's.

#[cfg(not(target_arch = "wasm32"))]
mod grpc;
#[cfg(target_arch = "wasm32")]
mod grpc_web;
mod status;
mod tonic;

#[cfg(not(target_arch = "wasm32"))]
pub use grpc::{ConnectError, GrpcTransport};
#[cfg(target_arch = "wasm32")]
pub use grpc_web::GrpcWebTransport;
pub use status::{CallError, Cause};
pub use tonic::TonicTransport;

use crate::platform::{BoxStream, MaybeSend, MaybeSync};
use gosync_proto::wire;
use std::future::Future;

/// What travels beside a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CallMetadata {
    /// Sent as `authorization: Bearer <token>`; never logged.
    pub token: Option<Token>,
    /// Sent as `gosync-version`: what Hello chose. Absent on Hello itself.
    pub version: Option<u32>,
}

/// A bearer token. Its debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Any text that may stand in a header.
    pub fn new(token: impl Into<String>) -> Token {
        Token(token.into())
    }

    /// The value of the `authorization` header.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A stream of answers. Dropping it cancels the call.
pub type Answers<M> = BoxStream<'static, Result<M, CallError>>;

/// Name of the metadata entry that carries the token.
pub const AUTHORIZATION: &str = "authorization";
/// Name of the metadata entry that carries the protocol version.
pub const GOSYNC_VERSION: &str = "gosync-version";

/// Carries calls to one server. Connects by itself, again and again; a dropped
/// future or stream cancels its call.
pub trait Transport: MaybeSend + MaybeSync + 'static {
    /// The call of that name.
    fn hello(
        &self,
        metadata: &CallMetadata,
        request: wire::HelloRequest,
    ) -> impl Future<Output = Result<wire::HelloResponse, CallError>> + MaybeSend;

    /// The call of that name.
    fn push(
        &self,
        metadata: &CallMetadata,
        request: wire::PushRequest,
    ) -> impl Future<Output = Result<wire::PushResponse, CallError>> + MaybeSend;

    /// The call of that name.
    fn reconcile(
        &self,
        metadata: &CallMetadata,
        request: wire::ReconcileRequest,
    ) -> impl Future<Output = Result<wire::ReconcileResponse, CallError>> + MaybeSend;

    /// The call of that name.
    fn watch(
        &self,
        metadata: &CallMetadata,
        request: wire::WatchRequest,
    ) -> impl Future<Output = Result<Answers<wire::WatchResponse>, CallError>> + MaybeSend;

    /// The call of that name.
    fn snapshot(
        &self,
        metadata: &CallMetadata,
        request: wire::SnapshotRequest,
    ) -> impl Future<Output = Result<Answers<wire::SnapshotResponse>, CallError>> + MaybeSend;
}
