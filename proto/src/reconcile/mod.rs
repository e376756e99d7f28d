//! Merkle-range descent, both sides. Knows sets of records as
//! [`View`](crate::merkle::View)s and the Reconcile messages; no transport, no
//! store, no randomness.
//!
//! A session finds where a replica and the server differ and brings the
//! records across. The replica drives ([`Initiator`]); the server answers
//! ([`respond`]), each answer a function of the request, its records and its
//! limits, so that any server may answer any request of a session.
//!
//! Why it is made as it is:
//! - **Fingerprints from the replica, finer ones back.** Each turn of either
//!   side splits what differs, so one round trip goes two levels down. At the
//!   last turn the replica lists its digests and the server answers with
//!   records: nobody needs a further round trip to fetch what was found, and
//!   items go in one direction only.
//! - **Any split is legal.** The plan ([`plan`](self)) is advice; a peer that
//!   halves ranges is correct, only slower. Splits are by count and not by
//!   depth: a chain-shaped tree costs no extra rounds.
//! - **Short salted digests.** Five bytes find differences as well as 32 do;
//!   see [`DEFAULT_DIGEST_LEN`] for the arithmetic. What they overlook, the
//!   full comparison at the end ([`Confirmation`]) does not.
//! - **Columns.** Bounds, kinds and digests travel packed side by side: 8 bytes
//!   for each part where nested messages take 25.
//! - **Merge makes concurrency harmless.** Both sides may change between
//!   rounds. A range that differs again simply is found by a later session;
//!   the session ends when all ranges are resolved, not when roots are equal.

mod answer;
mod columns;
mod confirm;
mod doubt;
mod initiator;
mod plan;
mod resolved;
mod responder;

pub use answer::{Lacking, PeerMisbehaved, Step, TurnError};
pub use columns::{DEFAULT_DIGEST_LEN, FULL_DIGEST_LEN, is_digest_len};
pub use confirm::Confirmation;
pub use initiator::{Initiator, Options};
pub use responder::{Budget, RespondError, respond};
