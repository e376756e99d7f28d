//! What operators do to a store: compact it, verify it. Works on any store,
//! beside a running server; knows no requests and no command line. Backup and
//! restore are [`crate::store::sqlite`]'s, since they concern its files.

mod compact;
#[cfg(test)]
mod tests;
mod verify;

pub use compact::{CompactOptions, Compacted, Reach, compact};
pub use verify::{SpaceReport, repair, verify};

use crate::store::{Result, Store};
use gosync_proto::SpaceId;

/// Deletes a space for good. It stays known as retired, so that a replica that
/// returns does not refill it.
///
/// # Errors
/// What the store says.
pub fn retire(store: &dyn Store, space: &SpaceId, now_ms: u64) -> Result<()> {
    store.write(space, move |tx| tx.retire(now_ms))
}
