//! Judging a client: a driver that does what it is told, a scripted server
//! that it talks to, and the run of all cases.

pub mod cases;
mod context;
pub mod crude;
mod documents;
mod driver;
mod launch;
mod listen;
mod monitor;
mod run;

pub use context::{Cx, Replica};
pub use driver::{Driver, Outcome};
pub use launch::Launch;
pub use listen::Listener;
pub use run::{Plan, run};
