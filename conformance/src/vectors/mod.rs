//! Checks vector files (`spec/vectors/*.json`) against the oracle. The files
//! come from another program in another language; both have to agree.

mod clocks;
mod content;
mod descent;
mod encoding;
mod limits;

use crate::oracle::{self, Merge, Record};
use crate::schema::{from_text, hex, unhex};
use serde_json::Value;
use std::cmp::Ordering;

/// A vector that disagrees with the oracle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {name}: {problem}")]
pub struct Disagreement {
    /// Which file.
    pub file: String,
    /// Which vector.
    pub name: String,
    /// How.
    pub problem: String,
}

/// Checks one file's text. Returns how many vectors it has.
///
/// # Errors
/// Every vector that disagrees, or one entry when the file is none.
pub fn check(file: &str, text: &str) -> Result<usize, Vec<Disagreement>> {
    let wrong = |name: &str, problem: String| Disagreement {
        file: file.to_owned(),
        name: name.to_owned(),
        problem,
    };
    let document: Value =
        serde_json::from_str(text).map_err(|e| vec![wrong("file", format!("no JSON: {e}"))])?;
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    let Some(cases) = document["cases"].as_array().filter(|c| !c.is_empty()) else {
        return Err(vec![wrong("file", "has no cases".into())]);
    };
    let disagreements: Vec<Disagreement> = cases
        .iter()
        .filter_map(|case| {
            let name = case["name"].as_str().unwrap_or("without a name");
            check_case(&kind, case).err().map(|p| wrong(name, p))
        })
        .collect();
    if disagreements.is_empty() {
        Ok(cases.len())
    } else {
        Err(disagreements)
    }
}

fn check_case(kind: &str, case: &Value) -> Result<(), String> {
    if !case["valid"].is_boolean() {
        return Err("says neither valid nor invalid".into());
    }
    match kind {
        "digest" => digest(case),
        "order" => order(case),
        "clock" => clocks::one(case),
        "clock_update" => clocks::update(case),
        "merge" => merge(case),
        "fingerprint" => fingerprint(case),
        "range" => range(case),
        "documents" => documents(case),
        "messages" => message(case),
        "malformed" => malformed(case),
        "collisions" => collision(case),
        "limits" => limits::check(case),
        "descent" => descent::check(case),
        other => Err(format!("{other:?} is no kind of vector")),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, oracle: T, file: T) -> Result<(), String> {
    if oracle == file {
        Ok(())
    } else {
        Err(format!("{what} is {file:?}, the oracle says {oracle:?}"))
    }
}

fn text<'a>(case: &'a Value, field: &str) -> Result<&'a str, String> {
    case[field]
        .as_str()
        .ok_or_else(|| format!("{field} is no text"))
}

fn bytes(case: &Value, field: &str) -> Result<Vec<u8>, String> {
    unhex(text(case, field)?).ok_or_else(|| format!("{field} is no hex"))
}

fn number(case: &Value, field: &str) -> Result<u64, String> {
    text(case, field)?
        .parse()
        .map_err(|e| format!("{field} is no number: {e}"))
}

fn record(case: &Value) -> Result<Record, String> {
    Ok(Record {
        key: bytes(case, "key")?,
        time: number(case, "time")?,
        replica: number(case, "replica")?,
        flags: case["flags"]
            .as_u64()
            .and_then(|f| u32::try_from(f).ok())
            .ok_or("flags is no 32-bit number")?,
        value: bytes(case, "value")?,
    })
}

fn list<'a>(case: &'a Value, field: &str) -> Result<&'a [Value], String> {
    case[field]
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| format!("{field} is no list"))
}

fn records(case: &Value, field: &str) -> Result<Vec<Record>, String> {
    list(case, field)?.iter().map(record).collect()
}

/// `failure` of an invalid vector; `None` for a valid one.
fn failure(case: &Value) -> Result<Option<&str>, String> {
    match case["valid"].as_bool() {
        Some(true) => Ok(None),
        _ => text(case, "failure").map(Some),
    }
}

fn digest(case: &Value) -> Result<(), String> {
    let record = record(&case["record"])?;
    let defect = record.defect().map(oracle::Defect::name);
    same("failure", defect, failure(case)?)?;
    if defect.is_none() {
        same(
            "preimage",
            hex(&record.preimage()),
            text(case, "preimage")?.into(),
        )?;
        same(
            "digest",
            hex(&record.digest()),
            text(case, "digest")?.into(),
        )?;
    }
    Ok(())
}

fn order(case: &Value) -> Result<(), String> {
    let version = |v: &Value| Ok::<_, String>((number(v, "time")?, number(v, "replica")?));
    let order = match oracle::compare_versions(version(&case["a"])?, version(&case["b"])?) {
        Ordering::Less => "less",
        Ordering::Equal => "equal",
        Ordering::Greater => "greater",
    };
    same("order", order, text(case, "order")?)
}

fn merge(case: &Value) -> Result<(), String> {
    let winner = match oracle::merge(&record(&case["a"])?, &record(&case["b"])?) {
        Merge::Wins => "a",
        Merge::Same => "same",
        Merge::Loses => "b",
    };
    same("winner", winner, text(case, "winner")?)
}

fn state(case: &Value, range: &crate::schema::v1::Range) -> Result<(), String> {
    let records = records(case, "records")?;
    let (count, fingerprint) = oracle::range_state(&records, range, number(case, "horizon")?);
    same("count", Some(count), case["count"].as_u64())?;
    same(
        "fingerprint",
        hex(&fingerprint),
        text(case, "fingerprint")?.into(),
    )
}

fn fingerprint(case: &Value) -> Result<(), String> {
    let all = crate::schema::v1::Range::default();
    state(case, &all)
}

fn range(case: &Value) -> Result<(), String> {
    let end = match &case["end"] {
        Value::Null => None,
        _ => Some(bytes(case, "end")?),
    };
    let range = crate::schema::v1::Range {
        start: bytes(case, "start")?,
        end,
    };
    let inverted = range.end.as_ref().is_some_and(|e| *e <= range.start);
    same("failure", inverted.then_some("MALFORMED"), failure(case)?)?;
    if inverted {
        return Ok(());
    }
    state(case, &range)
}

fn documents(case: &Value) -> Result<(), String> {
    let collection = text(case, "collection")?;
    if !case["field"].is_null() {
        let (id, field) = (text(case, "id")?, text(case, "field")?);
        let refused = oracle::name_failure(collection, id, field);
        same("failure", refused, failure(case)?)?;
        if refused.is_some() {
            return Ok(());
        }
        let key = oracle::document_key(collection.as_bytes(), id.as_bytes(), field.as_bytes());
        return same("key", hex(&key), text(case, "key")?.into());
    }
    let shown: serde_json::Map<String, Value> =
        oracle::documents(&records(case, "records")?, collection.as_bytes())
            .into_iter()
            .map(|(id, fields)| {
                let fields = fields
                    .into_iter()
                    .map(|(name, value)| (hex(&name), Value::String(hex(&value))))
                    .collect();
                (hex(&id), Value::Object(fields))
            })
            .collect();
    same("documents", Value::Object(shown), case["documents"].clone())
}

fn message(case: &Value) -> Result<(), String> {
    let encoded = from_text(text(case, "type")?, text(case, "text")?)?;
    same("hex", hex(&encoded), text(case, "hex")?.into())
}

fn malformed(case: &Value) -> Result<(), String> {
    let (kind, encoded) = (text(case, "type")?, bytes(case, "hex")?);
    let found = match encoding::failure(kind, &encoded)? {
        Some(class) => Some(class),
        None => content::failure(kind, &encoded)?,
    };
    same("failure", found, failure(case)?)
}

fn collision(case: &Value) -> Result<(), String> {
    let list = |field: &str| -> Result<Vec<Record>, String> {
        case[field]
            .as_array()
            .ok_or_else(|| format!("{field} is no list"))?
            .iter()
            .map(|key| {
                let key = key.as_str().and_then(unhex).ok_or("a key is no hex")?;
                Ok(Record::put(key, 1 << 16, 1, b""))
            })
            .collect()
    };
    let (a, b) = (list("a")?, list("b")?);
    if a == b || a.len() != b.len() {
        return Err("the sets are the same, or differ in size".into());
    }
    let combine = text(case, "combine")?;
    let weak = |set: &[Record]| -> Result<String, String> {
        match combine {
            "xor" => {
                let mut sum = [0u8; 32];
                for record in set {
                    sum.iter_mut()
                        .zip(record.digest())
                        .for_each(|(s, d)| *s ^= d);
                }
                Ok(hex(&sum))
            }
            "sum128" => {
                let sum = set.iter().fold(0u128, |sum, record| {
                    let mut low = [0u8; 16];
                    low.copy_from_slice(&record.digest()[16..]);
                    sum.wrapping_add(u128::from_be_bytes(low))
                });
                Ok(hex(&sum.to_be_bytes()))
            }
            other => Err(format!("{other:?} is no way to combine")),
        }
    };
    let given = text(case, "weak")?;
    let trim = |t: String| match t.trim_start_matches('0') {
        "" => "0".to_owned(),
        rest => rest.to_owned(),
    };
    same("weak", trim(weak(&a)?), given.to_owned())?;
    same("weak", trim(weak(&b)?), given.to_owned())?;
    let strong = |set: &[Record]| hex(&oracle::fingerprint(&set.iter().collect::<Vec<_>>()));
    same(
        "fingerprint_a",
        strong(&a),
        text(case, "fingerprint_a")?.into(),
    )?;
    same(
        "fingerprint_b",
        strong(&b),
        text(case, "fingerprint_b")?.into(),
    )?;
    if strong(&a) == strong(&b) {
        return Err("the fingerprint does not tell the sets apart".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_digest_is_a_disagreement() {
        let record = r#"{"key":"6b","time":"1","replica":"1","flags":0,"value":""}"#;
        let preimage = hex(&Record::put("k", 1, 1, "").preimage());
        let file = format!(
            r#"{{"kind":"digest","cases":[{{"name":"n","valid":true,"record":{record},"preimage":"{preimage}","digest":"00"}}]}}"#
        );
        let found = check("f", &file).unwrap_err();
        assert!(found[0].problem.starts_with("digest is"), "{}", found[0]);
    }

    #[test]
    fn a_file_without_cases_is_no_pass() {
        assert!(check("f", r#"{"kind":"digest","cases":[]}"#).is_err());
        assert!(check("f", "no json").is_err());
        assert!(check("f", r#"{"kind":"odd","cases":[{"valid":true}]}"#).is_err());
    }
}
