//! The GoSync protocol as a library: its wire messages and the rules that two
//! implementations must agree on, bit for bit.
//!
//! What it must not know: time, randomness, runtimes, storage, sockets. Every
//! function here is a function of its arguments, so that the same code runs in
//! a server, natively, in a browser and in a simulation.
//!
//! | module | rule |
//! |---|---|
//! | [`key`] | keys, key ranges, space ids |
//! | [`version`] | versions and the hybrid logical clock |
//! | [`record`] | records, their digest, the merge |
//! | [`history`] | epochs, cursors, the horizon: what was deleted, what was lost |
//! | [`merkle`] | the fingerprint of any set and range of records |
//! | [`reconcile`] | Merkle-range descent, both sides |
//! | [`limits`] | every limit, with its default and floor |
//! | [`reason`] | the closed list of errors |
//! | [`mutant`] | deliberate errors for tests, absent without their feature |
//! | [`wire`] | generated messages and their checked conversions |

#![forbid(unsafe_code)]

pub mod history;

pub mod key;
pub mod limits;
pub mod merkle;
pub mod mutant;
pub mod reason;
pub mod reconcile;
pub mod record;
mod sha256;
pub mod version;
pub mod wire;

pub use key::{Key, KeyRange, RangeSet, SpaceId};
pub use reason::{Invalid, Reason};
pub use record::{Content, Digest, Merge, Record};
pub use version::{Clock, ReplicaId, Time, Version};

/// The protocol version that this crate implements.
pub const PROTOCOL_VERSION: u32 = 1;
