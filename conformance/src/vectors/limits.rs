//! What an advertised limit means, and what is over one.

use super::{failure, number, same, text};
use crate::oracle;
use crate::schema::{hex, v1};
use prost::Message;
use serde_json::Value;

/// One case.
pub fn check(case: &Value) -> Result<(), String> {
    if case["field"].is_string() {
        let means = oracle::limit_means(text(case, "field")?, number(case, "advertised")?);
        let means = means.ok_or("there is no such limit")?;
        let means = means.map_or("none".to_owned(), |n| n.to_string());
        return same("means", means.as_str(), text(case, "means")?);
    }
    let (limit, allowed) = (text(case, "limit")?, number(case, "allowed")?);
    let actual = number(case, "actual")?;
    let refused = oracle::over_limit(limit, allowed, actual);
    same("failure", refused, failure(case)?)?;
    if !matches!(refused, Some("LIMIT_EXCEEDED" | "QUOTA_EXCEEDED")) {
        return Ok(());
    }
    let detail = v1::LimitDetail {
        limit: limit.to_owned(),
        allowed,
        actual: Some(actual),
    };
    same(
        "detail",
        hex(&detail.encode_to_vec()).as_str(),
        text(case, "detail")?,
    )
}
