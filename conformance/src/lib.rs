//! Judges anybody's GoSync server or client against the specification. Shares
//! only the schema with the reference implementation, never its code.

pub mod client;
pub mod crude;
pub mod mutants;
pub mod net;
pub mod oracle;
pub mod peer;
pub mod process;
pub mod report;
pub mod schema;
pub mod server;
pub mod suite;
pub mod vectors;
