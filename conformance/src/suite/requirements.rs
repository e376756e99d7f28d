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
