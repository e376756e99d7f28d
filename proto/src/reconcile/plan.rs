//! How finely to split. Knows numbers only.
//!
//! Any split is legal, so this is advice and no rule of the protocol. The
//! speaker has a part with m records, in which δ records are expected to
//! differ; s splitting turns are left (this one and later ones of either
//! side), and then the replica lists its items. A part costs p bytes (short
//! and bound), an item q (short). For one difference, splitting into k parts
//! each time costs s·k·p + q·m/k^s bytes, least where each split costs as much
//! as the list: k = (m·q/p)^(1/(s+1)). A part with δ scattered differences is
//! like δ parts of m/δ records with one difference each, so
//! k = δ·(m/δ·q/p)^(1/(s+1)).

/// Bytes of a coded bound, typically.
const BOUND_BYTES: f64 = 3.0;

/// Up to so many records the replica has two round trips in mind (it splits,
/// the server splits, it lists its items), above it three.
const TWO_ROUND_TRIPS: u64 = 150_000;

/// The replica lists a part with so few records rather than split it: it costs
/// about as much as the frame of another round trip.
pub(super) const LIST_AT_ONCE: u64 = 64;

/// The most records that the replica lists when the planned turns are used up;
/// a larger part gets another round trip.
pub(super) const LIST_AT_LAST: u64 = 1024;

/// Splitting turns to plan for a session over `records` records.
pub(super) fn splitting_turns(records: u64) -> u32 {
    match records {
        0..=LIST_AT_ONCE => 0,
        n if n <= TWO_ROUND_TRIPS => 2,
        _ => 4,
    }
}

/// Into how many parts to split, 1 to `records`.
pub(super) fn parts(records: u64, differences: f64, splits_left: u32, digest_len: usize) -> usize {
    let price = (digest_len as f64 + BOUND_BYTES) / digest_len as f64;
    let alone = records as f64 / differences;
    let k = differences * (alone / price).powf(1.0 / f64::from(splits_left + 1));
    (k.round() as u64).clamp(2, records.max(2)) as usize
}

/// Expected differences in a part that differs, when `differing` of `named`
/// parts of equal size did and differences are scattered (Poisson).
pub(super) fn differences(differing: u64, named: u64) -> f64 {
    if differing == 0 || named == 0 {
        return 1.0;
    }
    // all of them: the true share is taken as half a part less
    let differing = (differing as f64).min(named as f64 - 0.5);
    let share = differing / named as f64;
    let mean = -(1.0 - share).ln();
    mean / share
}
