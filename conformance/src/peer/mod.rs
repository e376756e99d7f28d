//! A small in-memory server on the oracle's rules. It is what clients under
//! test talk to, with scripted faults, and what the suite tests itself
//! against. Knows nothing of cases.

mod http;
mod metadata;
mod quirk;
mod reconcile;
mod refusal;
mod script;
mod service;
mod space;
mod watch;

pub use http::Peer;
pub use quirk::Quirk;
pub use refusal::{Detail, Refusal};
pub use script::{Action, Script, Seen};
pub use service::{Service, Settings, Token};
pub use space::{Space, Stored, covers, status_in_order};
