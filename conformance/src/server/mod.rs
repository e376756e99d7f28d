//! Judging a server: what is under test, what a case can do to it, and the
//! run of all cases.

mod adapter;
pub mod cases;
mod context;
mod control;
mod run;
mod space;
mod target;

pub use adapter::Adapter;
pub use context::{Answer, Cx, Options, SnapshotSeen, WatchSeen};
pub use run::{Plan, TokenFile, reach, run};
pub use space::{Space, everything, held, key_range, time};
pub use target::{SpacePrefix, Target, TokenKind, Tokens};
