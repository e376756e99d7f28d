//! The rules of the specification, written from its text in the most naive
//! way: sort, filter, fold. Slow and obvious on purpose. Shares no code with
//! the libraries that it judges, and knows nothing of networks or cases.

mod clock;
pub mod descent;
mod documents;
mod fingerprint;
mod limits;
mod reasons;
mod record;

pub use clock::{Issue, issue, skew_bound};
pub use documents::{Document, document_key, document_prefix, documents, name_failure};
pub use fingerprint::{fingerprint, key_bit, range_state, visible};
pub use limits::{
    CEILING, FLOOR, KEY_BYTES, ceiling, check_space_id, field as limit_field, limit_means,
    over_limit,
};
pub use reasons::{Code, REASONS, reason_name, status_of};
pub use record::{Defect, Merge, Record, compare_versions, contains, merge};
