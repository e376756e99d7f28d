//! Verification: the stored bytes hashed anew, the fingerprint built anew from
//! them, and both compared with what the store keeps, and with the tree from
//! which a server answers.

use crate::space::Spaces;
use crate::store::{Damage, Result, SpaceState, Store};
use gosync_proto::merkle::{Stream, Summary};
use gosync_proto::{KeyRange, SpaceId};
use std::collections::HashSet;
use std::ops::ControlFlow;

/// What was found in one space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceReport {
    /// Which space.
    pub space: SpaceId,
    /// Its state, with the totals as the store keeps them.
    pub state: SpaceState,
    /// Count and fingerprint over the hashes of the stored bytes.
    pub computed: Summary,
    /// The same over the kept digests, those of damaged records left out.
    pub kept: Summary,
    /// What a server that starts now answers of the whole space: from its
    /// tree, made of the kept digests, those of damaged records among them.
    pub answered: Summary,
    /// Content that does not match its digest.
    pub damage: Vec<Damage>,
    /// Records and bytes as they were counted, where the store's totals say
    /// something else.
    pub totals: Option<(u64, u64)>,
    /// What is wrong with the order of records and commits, one sentence each.
    pub history: Vec<String>,
}

impl SpaceReport {
    /// Whether everything is as it must be. Content in quarantine is not held
    /// against it: that has been reported when it was set aside.
    pub fn sound(&self) -> bool {
        self.damage.is_empty()
            && self.totals.is_none()
            && self.history.is_empty()
            && self.computed == self.kept
            && self.computed == self.answered
    }
}

/// Verifies one space in one state of the store. Changes nothing.
///
/// # Errors
/// When the store cannot be read.
pub fn verify(store: &dyn Store, space: &SpaceId) -> Result<SpaceReport> {
    let all = KeyRange::all();
    // the state that the tree was made from is the one that is verified
    let (answered, mut tx) =
        Spaces::new(u64::MAX).with_tree(store, space, |tree, _| tree.summary(&all))?;
    let state = tx.state()?;
    let horizon = state.position.horizon;

    let mut computed = Stream::new();
    let mut history = Vec::new();
    tx.scan(&all, None, &mut |stored| {
        let record = &stored.record;
        let counts = !record.is_tombstone() || record.version.time >= horizon;
        if counts && computed.push(record.key.as_bytes(), stored.digest).is_err() {
            history.push(format!("the key {} occurs twice", record.key));
        }
        if stored.sequence > state.head() {
            history.push(format!(
                "the key {} was committed at {}, beyond the head {}",
                record.key,
                stored.sequence,
                state.head()
            ));
        }
        ControlFlow::Continue(())
    })?;
    let damage = tx.take_damage();

    let damaged: HashSet<u64> = damage.iter().map(|found| found.sequence).collect();
    let mut kept = Stream::new();
    let mut totals = (0, 0);
    tx.digests(&all, &mut |d| {
        totals.0 += 1;
        totals.1 += d.size;
        if d.counts_at(horizon) && !damaged.contains(&d.sequence) {
            // a key that occurs twice was reported above
            let _ = kept.push(d.key, d.digest);
        }
        ControlFlow::Continue(())
    })?;

    let head = state.position.head;
    let last = tx.commit_until(u64::MAX >> 1)?;
    if state.head() > 0 && last != Some(head) {
        history.push("the newest commit is not the head of the space".into());
    }
    Ok(SpaceReport {
        space: space.clone(),
        computed: computed.finish(),
        kept: kept.finish(),
        answered,
        damage,
        totals: (totals != (state.records, state.bytes)).then_some(totals),
        history,
        state,
    })
}

/// Mends what a report found and can be mended: damaged content is set aside,
/// so that replicas that have it offer it again, and totals are counted anew.
/// Returns how many records were set aside.
///
/// Nothing is deleted: what was set aside stays in the store for the operator
/// until a replica sends the record again, or a newer one.
///
/// # Errors
/// What the store says; then nothing was changed.
pub fn repair(store: &dyn Store, report: &SpaceReport, now_ms: u64) -> Result<usize> {
    let damage = report.damage.clone();
    let recount = report.totals.is_some();
    store.write(&report.space, move |tx| {
        let moved = tx.quarantine(&damage, now_ms)?;
        if recount {
            tx.recount()?;
        }
        Ok(moved)
    })
}
