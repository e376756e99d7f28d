//! The full comparison that ends a session: 32 bytes for each range, so that
//! nothing that short digests overlooked stays unnoticed. A checkpoint of
//! Watch does the same for a replica that goes on watching.

use super::answer::PeerMisbehaved;
use super::columns::{Asking, EQUAL, FULL_DIGEST_LEN, Flaw, RESOLVED, SPLIT, get_run};
use crate::key::{KeyRange, RangeSet};
use crate::merkle::View;
use crate::wire;

/// A question for whole ranges, and its answer.
#[derive(Clone, Debug)]
pub struct Confirmation {
    ranges: Vec<KeyRange>,
    request: wire::ReconcileRequest,
}

impl Confirmation {
    /// Asks whether `ranges` (at least one) are equal. `salt` may be the
    /// session's.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub fn new<V: View>(view: &V, ranges: &RangeSet, salt: u64) -> Result<Confirmation, V::Error> {
        let mut asking = Asking::default();
        for range in ranges {
            asking.fingerprint(range);
            let own = view.summary(range)?.fingerprint;
            asking.digests.extend_from_slice(&own.0);
        }
        let (parts, bounds, digests) = asking.finish();
        Ok(Confirmation {
            ranges: ranges.as_slice().to_vec(),
            request: wire::ReconcileRequest {
                salt,
                digest_len: FULL_DIGEST_LEN as u32,
                parts,
                bounds,
                digests,
                ..Default::default()
            },
        })
    }

    /// The request; the caller fills in what [`super::Initiator::next_request`]
    /// names.
    pub fn request(&self) -> wire::ReconcileRequest {
        self.request.clone()
    }

    /// The ranges that differ, or that the server did not come to compare.
    /// None: both sides held the same.
    ///
    /// # Errors
    /// An answer that no correct server gives.
    pub fn outcome(&self, response: &wire::ReconcileResponse) -> Result<RangeSet, PeerMisbehaved> {
        let mut parts = &response.parts[..];
        let mut equal = Vec::new();
        while !parts.is_empty() {
            match get_run(&mut parts)? {
                (_, 0) => return Err(Flaw::new("parts", "has an empty run").into()),
                (SPLIT, _) => equal.push(false),
                (kind @ (EQUAL | RESOLVED), n) => {
                    let room = self.ranges.len() - equal.len().min(self.ranges.len());
                    if n > room as u64 {
                        let problem = "has more answers than parts were asked";
                        return Err(Flaw::new("parts", problem).into());
                    }
                    equal.extend(std::iter::repeat_n(kind == EQUAL, n as usize));
                }
                _ => {
                    let problem = "has an answer that version 1 does not define";
                    return Err(Flaw::new("parts", problem).into());
                }
            }
        }
        if equal.len() > self.ranges.len() {
            return Err(Flaw::new("parts", "has more answers than parts were asked").into());
        }
        let answers = equal.into_iter().chain(std::iter::repeat(false));
        let differing = self.ranges.iter().zip(answers).filter(|(_, equal)| !equal);
        Ok(RangeSet::union(differing.map(|(r, _)| r.clone()).collect()))
    }
}
