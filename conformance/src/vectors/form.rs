//! How a vector file is written: numbers and bytes as JSON has them there, and the layout of the text.

use crate::oracle::Record;
use crate::schema::{hex, unhex, v1};
use serde::{Deserialize, Serialize};

/// A 64-bit number, as decimal text: JSON's numbers are not that wide.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Number(pub u64);

impl TryFrom<String> for Number {
    type Error = String;

    fn try_from(text: String) -> Result<Number, String> {
        match text.parse() {
            Ok(n) => Ok(Number(n)),
            Err(e) => Err(format!("{text:?} is no number: {e}")),
        }
    }
}

impl From<Number> for String {
    fn from(number: Number) -> String {
        number.0.to_string()
    }
}

/// Bytes, in hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Hex, String> {
        unhex(&text)
            .map(Hex)
            .ok_or_else(|| format!("{text:?} is no hex"))
    }
}

impl From<Hex> for String {
    fn from(bytes: Hex) -> String {
        hex(&bytes.0)
    }
}

impl From<&[u8]> for Hex {
    fn from(bytes: &[u8]) -> Hex {
        Hex(bytes.to_vec())
    }
}

/// A record.
#[derive(Clone, Serialize, Deserialize)]
pub struct Plain {
    key: Hex,
    time: Number,
    replica: Number,
    flags: u32,
    value: Hex,
}

impl From<&Record> for Plain {
    fn from(record: &Record) -> Plain {
        Plain {
            key: Hex(record.key.clone()),
            time: Number(record.time),
            replica: Number(record.replica),
            flags: record.flags,
            value: Hex(record.value.clone()),
        }
    }
}

impl From<&Plain> for Record {
    fn from(plain: &Plain) -> Record {
        Record {
            key: plain.key.0.clone(),
            time: plain.time.0,
            replica: plain.replica.0,
            flags: plain.flags,
            value: plain.value.0.clone(),
        }
    }
}

/// Records, as a file has them.
pub fn plain<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Plain> {
    records.into_iter().map(Plain::from).collect()
}

/// Records, as the oracle has them.
pub fn records(plain: &[Plain]) -> Vec<Record> {
    plain.iter().map(Record::from).collect()
}

/// The range between two bounds.
pub fn range(start: &Hex, end: Option<&Hex>) -> v1::Range {
    v1::Range {
        start: start.0.clone(),
        end: end.map(|e| e.0.clone()),
    }
}

/// The time of a millisecond and a counter.
pub fn at(ms: u64, counter: u64) -> u64 {
    ms << 16 | counter
}

/// The record that several files begin with.
pub fn milk() -> Record {
    Record::put(
        "milk",
        at(1_700_000_000_000, 0),
        0x0123_4567_89ab_cdef,
        "2 litres",
    )
}

/// The JSON text of a file: one space for each level, and what holds nothing deeper, like a record, on one line.
///
/// # Errors
/// When the value has no JSON.
pub fn render(file: &impl Serialize) -> Result<String, String> {
    let mut text = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut json = serde_json::Serializer::with_formatter(&mut text, layout);
    file.serialize(&mut json).map_err(|e| e.to_string())?;
    let text = String::from_utf8(text).map_err(|e| e.to_string())?;
    Ok(joined(&text) + "\n")
}

/// The text with each object on one line that has no bracket inside, not even in a string.
fn joined(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("{\n") {
        out += before;
        let end = inside.find(['[', ']', '{', '}']).unwrap_or(inside.len());
        let (lines, after) = inside.split_at(end);
        match lines.rsplit_once('\n') {
            Some((lines, indent)) if after.starts_with('}') && indent.trim().is_empty() => {
                let words: Vec<&str> = lines.lines().map(str::trim_start).collect();
                out += &format!("{{{}}}", words.join(" "));
                rest = &after[1..];
            }
            _ => {
                out += "{\n";
                rest = inside;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_holds_nothing_deeper_stands_on_one_line() {
        let value = json!({"a": {"b": "1", "c": 2}, "d": {"e": "a [ in it"}, "f": {"g": {}}, "h": [{"i": 1}]});
        let text = render(&value).unwrap();
        assert!(
            text.contains("\n \"a\": {\"b\": \"1\", \"c\": 2},\n"),
            "{text}"
        );
        assert!(text.contains("\"d\": {\n"), "{text}");
        assert!(text.contains("\"f\": {\n  \"g\": {}\n"), "{text}");
        assert!(text.contains("[\n  {\"i\": 1}\n ]"), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
