//! HTTP, gRPC and gRPC-web, as little of them as the protocol uses, written so
//! that faults can be made and seen. Knows nothing of GoSync's rules.

pub mod client;
pub mod connection;
pub mod framing;
pub mod plain;
pub mod status;

pub use client::{Call, Endpoint, Reply, Stream, Wire};
pub use status::Status;

/// The path of the service: "/gosync.v1.SyncService/Push".
pub fn path(method: &str) -> String {
    format!("/gosync.v1.SyncService/{method}")
}
