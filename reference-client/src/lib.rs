//! The GoSync client: an offline-first replica of one space.
//!
//! ```text
//!   application
//!        │ writes, reads, subscribes            never waits for the network
//!   client ────────────► store                  records + outbox + cursor, one transaction
//!        │ commands        ▲
//!   driver ── effects ─────┘ replica ops
//!        │ ▲
//!   engine (sans-IO)  ◄──── events ────── transport ─── server
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`client`] | what an application holds: reads, writes, subscriptions, status |
//! | [`platform`] | what differs between a process and a browser |
//! | [`store`] | the seam to what keeps the data; memory, SQLite, IndexedDB |
//! | [`replica`] | what a replica does with its store: decisions, as functions of a view |
//! | [`documents`] | documents with fields, each its own record |
//! | [`engine`] | the sync state machine, sans-IO |
//! | [`transport`] | the seam to the network; gRPC, gRPC-web |
//! | `web` | the API for JavaScript (only in WASM) |

#![forbid(unsafe_code)]

pub mod client;
pub mod documents;
pub mod engine;
pub mod platform;
pub mod replica;
pub mod store;
pub mod transport;
#[cfg(any(target_arch = "wasm32", test))]
pub mod web;

pub use client::{Client, Config};
