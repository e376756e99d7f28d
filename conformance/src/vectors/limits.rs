//! What an advertised limit means, and what is over one.

use super::form::{Hex, Number};
use super::{Case, Kind};
use crate::oracle;
use crate::schema::v1;
use prost::Message;
use serde::{Deserialize, Serialize};

/// What is said, or what is measured.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Limit {
    /// How a replica reads a field of Hello's answer.
    Read {
        field: String,
        advertised: Number,
        means: String,
    },
    /// Whether something is refused.
    Size {
        limit: String,
        allowed: Number,
        actual: Number,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<Hex>,
    },
}

impl Kind for Limit {
    const NAME: &'static str = "limits";
    const ABOUT: &'static str = "What an advertised limit means, and what is over a limit.";

    fn cases() -> Vec<Case<Limit>> {
        const MIB: u64 = 1 << 20;
        let read = oracle::FLOOR.iter().flat_map(|(field, floor)| {
            let ceiling = oracle::ceiling(field);
            let bounded = ceiling < u64::MAX;
            let values = [
                ("0", Some(0)),
                ("below the floor", floor.checked_sub(1)),
                ("the floor", (*floor > 0).then_some(*floor)),
                ("above the floor", Some(floor + 1)),
                ("the ceiling", bounded.then_some(ceiling)),
                (
                    "above the ceiling",
                    bounded.then_some(ceiling.saturating_add(1)),
                ),
                ("the greatest number", bounded.then_some(u64::MAX)),
            ];
            values.into_iter().filter_map(move |(title, value)| {
                let of = Limit::Read {
                    field: (*field).to_owned(),
                    advertised: Number(value?),
                    means: String::new(),
                };
                Some(Case::new(format!("read: {field}, {title}"), of))
            })
        });
        let sizes: [(&str, u64, &[u64]); 14] = [
            ("max_key_bytes", 512, &[0, 1, 512, 513]),
            ("max_bound_bytes", 513, &[0, 513, 514]),
            ("space_id", 128, &[0, 1, 128, 129]),
            ("digest_len", 32, &[0, 1, 3, 4, 5, 8, 9, 31, 32, 33]),
            ("max_value_bytes", MIB, &[0, MIB, MIB + 1]),
            ("max_push_records", 5_000, &[0, 5_000, 5_001]),
            ("max_ranges", 256, &[256, 257]),
            ("max_reconcile_entries", 400_000, &[400_000, 400_001]),
            ("max_message_bytes", 4 * MIB, &[4 * MIB, 4 * MIB + 1]),
            ("max_space_records", 1_000, &[1_000, 1_001]),
            ("max_space_bytes", 1_000, &[1_000, 1_001]),
            ("max_space_records", 0, &[1 << 40]),
            ("max_calls_per_second", 10, &[10, 11]),
            ("max_calls_per_second", 0, &[MIB]),
        ];
        let sizes = sizes.into_iter().flat_map(|(limit, allowed, all)| {
            all.iter().map(move |actual| {
                let of = Limit::Size {
                    limit: limit.to_owned(),
                    allowed: Number(allowed),
                    actual: Number(*actual),
                    detail: None,
                };
                Case::new(format!("size: {limit} of {allowed} is {actual}"), of)
            })
        });
        read.chain(sizes).collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        match self {
            Limit::Read {
                field,
                advertised,
                means,
            } => {
                let found =
                    oracle::limit_means(field, advertised.0).ok_or("there is no such limit")?;
                *means = found.map_or("none".to_owned(), |n| n.to_string());
                Ok(None)
            }
            Limit::Size {
                limit,
                allowed,
                actual,
                detail,
            } => {
                let refused = oracle::over_limit(limit, allowed.0, actual.0);
                *detail = matches!(refused, Some("LIMIT_EXCEEDED" | "QUOTA_EXCEEDED")).then(|| {
                    let message = v1::LimitDetail {
                        limit: limit.clone(),
                        allowed: allowed.0,
                        actual: Some(actual.0),
                    };
                    Hex(message.encode_to_vec())
                });
                Ok(refused)
            }
        }
    }
}
