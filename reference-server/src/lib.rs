//! The GoSync reference server as a library: storage, request logic and,
//! around them, the network shell.
//!
//! | module | concern |
//! |---|---|
//! | [`store`] | the storage seam and its databases |
//! | [`space`] | what is kept in memory of an active space: its fingerprint tree, its change feed |
//! | [`service`] | the five calls as functions of (access, request, time, store); no network |
//! | [`maintenance`] | compaction, backup, restore, verification |

pub mod maintenance;
pub mod service;
pub mod space;
pub mod store;
