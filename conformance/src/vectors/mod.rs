//! The vector files (`spec/vectors/*.json`): the oracle writes them, from inputs that stand beside each kind, and
//! checks anybody's. A program in another language computes the same results from the same inputs.

mod clocks;
mod collisions;
mod content;
mod descent;
mod documents;
mod encoding;
mod form;
mod limits;
mod messages;
mod records;
mod sets;
mod transcripts;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// What one kind of file holds: inputs of a rule, and results, which are optional.
trait Kind: Clone + Serialize + DeserializeOwned {
    /// The file's name, without `.json`.
    const NAME: &'static str;
    /// The file's sentence about itself.
    const ABOUT: &'static str;

    /// The inputs that the file has.
    fn cases() -> Vec<Case<Self>>;

    /// Computes the results from the inputs, whatever they were before, or names the class of failure.
    ///
    /// # Errors
    /// When the inputs make no sense.
    fn compute(&mut self) -> Result<Option<&'static str>, String>;
}

/// One vector.
#[derive(Clone, Serialize, Deserialize)]
struct Case<K> {
    name: String,
    valid: bool,
    #[serde(flatten)]
    of: K,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl<K: Kind> Case<K> {
    /// A case whose results the oracle finds.
    fn new(name: impl Into<String>, of: K) -> Case<K> {
        Case {
            name: name.into(),
            valid: true,
            of,
            failure: None,
        }
    }

    /// A case that is made to fail in a certain way.
    fn failing(name: impl Into<String>, failure: &str, of: K) -> Case<K> {
        Case {
            failure: Some(failure.to_owned()),
            ..Case::new(name, of)
        }
    }

    fn compute(mut self) -> Result<Case<K>, String> {
        self.failure = self.of.compute()?.map(str::to_owned);
        self.valid = self.failure.is_none();
        Ok(self)
    }
}

#[derive(Serialize)]
struct File<K> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    kind: &'static str,
    version: u32,
    about: &'static str,
    cases: Vec<Case<K>>,
}

/// Calls a function for each kind of file, in the order in which the specification lists them.
macro_rules! of_each_kind {
    ($function:ident) => {
        [
            $function::<records::Digest>,
            $function::<records::Order>,
            $function::<clocks::Clock>,
            $function::<clocks::Update>,
            $function::<records::Merge>,
            $function::<sets::Fingerprint>,
            $function::<sets::Range>,
            $function::<descent::Descent>,
            $function::<limits::Limit>,
            $function::<documents::Documents>,
            $function::<messages::Message>,
            $function::<messages::Malformed>,
            $function::<collisions::Collision>,
        ]
    };
}

/// Every vector file, as the oracle writes it: name and text.
///
/// # Errors
/// When a case that is made to fail in a certain way does not.
pub fn files() -> Result<Vec<(String, String)>, Disagreement> {
    of_each_kind!(write)
        .into_iter()
        .map(|write| write())
        .collect()
}

fn write<K: Kind>() -> Result<(String, String), Disagreement> {
    let file = format!("{}.json", K::NAME);
    let wrong = |name: &str, problem: String| Disagreement {
        file: file.clone(),
        name: name.to_owned(),
        problem,
    };
    let mut cases = Vec::new();
    for meant in K::cases() {
        let name = meant.name.clone();
        let case = meant.clone().compute().map_err(|e| wrong(&name, e))?;
        if meant.failure.is_some() && meant.failure != case.failure {
            let problem = format!(
                "meant to fail with {:?}, not {:?}",
                meant.failure, case.failure
            );
            return Err(wrong(&name, problem));
        }
        cases.push(case);
    }
    let text = form::render(&File {
        schema: "vectors.schema.json",
        kind: K::NAME,
        version: 1,
        about: K::ABOUT,
        cases,
    });
    let text = text.map_err(|e| wrong("file", e))?;
    Ok((file, text))
}

/// Why a file does not agree.
#[derive(Clone, Debug)]
pub enum Unfit {
    /// It holds no vectors, or of no kind that the oracle knows.
    NoVectors(String),
    /// Some of its vectors disagree.
    Disagrees(Vec<Disagreement>),
}

/// Checks one file's text: whether the results of its cases are what the oracle computes from their inputs. Returns
/// how many there are.
///
/// # Errors
/// Every vector that disagrees, or why the file is none.
pub fn check(file: &str, text: &str) -> Result<usize, Unfit> {
    let document: Value =
        serde_json::from_str(text).map_err(|e| Unfit::NoVectors(format!("no JSON: {e}")))?;
    let Some(cases) = document["cases"].as_array().filter(|c| !c.is_empty()) else {
        return Err(Unfit::NoVectors("it has no cases".into()));
    };
    let mut disagreements = Vec::new();
    for case in cases {
        let checks = of_each_kind!(check_case);
        let kind = &document["kind"];
        let problem = match checks.iter().find_map(|check| check(kind, case)) {
            None => return Err(Unfit::NoVectors(format!("{kind} is no kind of vector"))),
            Some(Err(problem)) => problem,
            Some(Ok(())) => continue,
        };
        disagreements.push(Disagreement {
            file: file.to_owned(),
            name: case["name"].as_str().unwrap_or("without a name").to_owned(),
            problem,
        });
    }
    match disagreements.is_empty() {
        true => Ok(cases.len()),
        false => Err(Unfit::Disagrees(disagreements)),
    }
}

/// `None` when the case is of another kind.
fn check_case<K: Kind>(kind: &Value, case: &Value) -> Option<Result<(), String>> {
    (kind == K::NAME).then(|| {
        let read: Case<K> = serde_json::from_value(case.clone()).map_err(|e| e.to_string())?;
        let computed = serde_json::to_value(read.compute()?).map_err(|e| e.to_string())?;
        differences(case, &computed)
    })
}

/// Fails with the fields that differ.
fn differences(file: &Value, oracle: &Value) -> Result<(), String> {
    let (Some(file), Some(oracle)) = (file.as_object(), oracle.as_object()) else {
        return Err("is no object".into());
    };
    let mut fields: Vec<&String> = file.keys().chain(oracle.keys()).collect();
    fields.sort();
    fields.dedup();
    let said = |value: Option<&Value>| value.map_or("missing".to_owned(), Value::to_string);
    let found: Vec<String> = fields
        .into_iter()
        .filter(|field| file.get(*field) != oracle.get(*field))
        .map(|field| {
            let (file, oracle) = (said(file.get(field)), said(oracle.get(field)));
            format!("{field} is {file}, the oracle says {oracle}")
        })
        .collect();
    match found.is_empty() {
        true => Ok(()),
        false => Err(found.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(kind: &str, case: &Value) -> Vec<Disagreement> {
        let file = json!({"kind": kind, "cases": [case]}).to_string();
        match check("f", &file) {
            Ok(_) => Vec::new(),
            Err(Unfit::Disagrees(found)) => found,
            Err(Unfit::NoVectors(why)) => panic!("{why}"),
        }
    }

    /// Every result of every kind is compared, and so is a field that does not belong there.
    #[test]
    fn a_changed_result_is_a_disagreement() {
        let all = files().unwrap();
        let first_case = |kind: &str| {
            let (_, text) = all
                .iter()
                .find(|(f, _)| *f == format!("{kind}.json"))
                .unwrap();
            serde_json::from_str::<Value>(text).unwrap()["cases"][0].clone()
        };
        for (kind, field) in [
            ("digest", "preimage"),
            ("digest", "digest"),
            ("order", "order"),
            ("clock", "time"),
            ("clock_update", "floor_after"),
            ("clock_update", "steps"),
            ("merge", "winner"),
            ("fingerprint", "count"),
            ("range", "fingerprint"),
            ("descent", "complete"),
            ("descent", "receives"),
            ("limits", "means"),
            ("documents", "key"),
            ("messages", "hex"),
            ("malformed", "failure"),
            ("collisions", "weak"),
            ("collisions", "fingerprint_b"),
            ("order", "valid"),
            ("order", "stranger"),
        ] {
            let mut case = first_case(kind);
            assert_eq!(problems(kind, &case), [], "{kind}");
            case[field] = match &case[field] {
                Value::Bool(b) => json!(!b),
                Value::Number(n) => json!(n.as_u64().unwrap() + 1),
                Value::Array(all) if field == "steps" => {
                    let mut all = all.clone();
                    all[0]["time"] = json!("1");
                    json!(all)
                }
                Value::Array(_) => json!(["00"]),
                Value::String(s) if s.bytes().all(|b| b.is_ascii_digit()) => json!("1"),
                Value::String(s) if s.bytes().all(|b| b.is_ascii_hexdigit()) => json!("00"),
                _ => json!("odd"),
            };
            let found = problems(kind, &case);
            assert_eq!(found.len(), 1, "{kind}: {field}");
            assert!(found[0].problem.contains(field), "{kind}: {}", found[0]);
        }
    }

    #[test]
    fn a_file_without_cases_is_no_pass() {
        assert!(matches!(
            check("f", r#"{"kind":"digest","cases":[]}"#),
            Err(Unfit::NoVectors(_))
        ));
        assert!(matches!(check("f", "no json"), Err(Unfit::NoVectors(_))));
        assert!(matches!(
            check("f", r#"{"kind":"odd","cases":[{"valid":true}]}"#),
            Err(Unfit::NoVectors(_))
        ));
    }
}
