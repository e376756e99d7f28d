//! The requirements of the specification, embedded when the suite is built.

use crate::schema::hex;
use sha2::{Digest, Sha256};

/// A numbered sentence.
#[derive(Clone, Copy, Debug)]
pub struct Requirement {
    /// "PUSH-001".
    pub id: &'static str,
    /// The sentence.
    pub text: &'static str,
    /// "05-push.md".
    pub chapter: &'static str,
}

impl Requirement {
    /// Whether it binds by `SHOULD` or `MAY` only, so that no claim of
    /// conformance is about it.
    pub fn is_advice(&self) -> bool {
        !self
            .text
            .split(|c: char| !c.is_alphabetic())
            .any(|word| word == "MUST")
    }
}

static TABLE: &[(&str, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/requirements.rs"));

/// All of them, by chapter.
pub fn requirements() -> impl Iterator<Item = Requirement> {
    TABLE
        .iter()
        .map(|(id, text, chapter)| Requirement { id, text, chapter })
}

/// The one with that id.
pub fn requirement(id: &str) -> Option<Requirement> {
    requirements().find(|r| r.id == id)
}

/// Whether none of the cited requirements binds an implementation that claims
/// conformance. One that is not known counts as one that binds.
pub fn only_advice<'a>(cites: impl IntoIterator<Item = &'a str>) -> bool {
    let mut cites = cites.into_iter().peekable();
    cites.peek().is_some() && cites.all(|id| requirement(id).is_some_and(|r| r.is_advice()))
}

/// What changes when a sentence is reworded: the first 8 bytes of the SHA-256
/// of its words.
pub fn text_hash(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    hex(&Sha256::digest(words.join(" "))[..8])
}

/// What changes when any sentence is reworded, added or taken away.
pub fn fingerprint() -> String {
    let mut all = Sha256::new();
    for requirement in requirements() {
        all.update(format!(
            "{} {}\n",
            requirement.id,
            text_hash(requirement.text)
        ));
    }
    hex(&all.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_requirement_that_binds_is_enough() {
        assert!(only_advice(["RECON-048"]) && only_advice(["RECON-048", "CLIENT-030"]));
        assert!(!only_advice(["RECON-048", "PUSH-001"]));
        assert!(!only_advice(["MODEL-001"]) && !only_advice(["NONE-001"]) && !only_advice([]));
    }
}
