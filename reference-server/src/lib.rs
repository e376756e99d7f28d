//! The GoSync reference server as a library: storage, request logic and,
//! around them, the network shell.
//!
//! | module | concern |
//! |---|---|
//! | [`server`] | a whole server in one value: the parts put together |
//! | [`config`], [`cli`], [`commands`] | settings, the command line, what each command does |
//! | [`listen`] | connections and their bounds |
//! | [`tls`], [`web`] | certificates; what browsers need: CORS, names, static files |
//! | [`rpc`] | the five calls on the wire: who calls, errors, streams |
//! | [`auth`] | tokens and the rights they carry |
//! | [`ops`] | logs, metrics, probes, signals |
//! | [`clock`] | the wall clock as a value |
//! | [`store`] | the storage seam and its databases |
//! | [`space`] | what is kept in memory of a space in use: its fingerprint tree, its change feed |
//! | [`service`] | the five calls as functions of (access, request, time, store); no network |
//! | [`maintenance`] | compaction and verification, on any store, beside a running server |
//!
//! There is no room for administration inside a running server, and no port
//! for it: each command opens the store beside it, as SQLite allows, so that
//! nobody who reaches the server can ask for more than the five calls.

pub mod auth;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod listen;
pub mod maintenance;
pub mod ops;
pub mod rpc;
pub mod server;
pub mod service;
pub mod space;
pub mod store;
pub mod tls;
pub mod web;

pub use server::Server;
