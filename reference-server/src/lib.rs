//! The GoSync reference server as a library: storage, request logic and,
//! around them, the network shell.
//!
//! | module | concern |
//! |---|---|
//! | [`store`] | the storage seam and its databases |
//! | [`service`] | the five calls as functions of (access, request, time, store); no network |

pub mod service;
pub mod store;
