//! The form of requirements: one paragraph, one id, one key word, and no key word anywhere else.

use std::collections::HashMap;

const AREAS: &[&str] = &[
    "MODEL", "CLOCK", "HIST", "MERKLE", "HELLO", "PUSH", "WATCH", "RECON", "SNAP", "CLIENT", "DOC",
    "TRANS", "ERR", "LIMIT", "SEC", "EXT",
];
const KEY_WORDS: &[&str] = &[
    "MUST",
    "SHOULD",
    "MAY",
    "SHALL",
    "REQUIRED",
    "RECOMMENDED",
    "OPTIONAL",
];
const SUBJECTS: [&str; 3] = ["A server ", "A replica ", "A peer "];

/// What is wrong with the requirements of `pages` (name and text), as `page:line: what`.
pub fn problems(pages: &[(String, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut places: HashMap<String, String> = HashMap::new();
    for (page, text) in pages {
        for (line, paragraph) in paragraphs(text) {
            let place = format!("{page}:{line}");
            let words = key_words(&paragraph);
            let Some((id, sentence)) = split_id(&paragraph) else {
                if words > 0 {
                    found.push(format!("{place}: a key word outside a requirement"));
                }
                continue;
            };
            if words != 1 {
                found.push(format!("{place}: {id} has {words} key words, not one"));
            }
            if !SUBJECTS.iter().any(|subject| sentence.starts_with(subject)) {
                found.push(format!(
                    "{place}: {id} does not begin with one of: {}",
                    SUBJECTS.map(str::trim).join(", ")
                ));
            }
            if !is_id(id) {
                found.push(format!(
                    "{place}: {id} is not AREA-NNN with an area of chapter 0"
                ));
            }
            if let Some(first) = places.insert(id.to_owned(), place.clone()) {
                found.push(format!("{place}: {id} stands already at {first}"));
            }
        }
    }
    found
}

fn is_id(id: &str) -> bool {
    id.split_once('-').is_some_and(|(area, number)| {
        AREAS.contains(&area)
            && number.len() == 3
            && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// The id and the sentence of a paragraph that is a requirement.
fn split_id(paragraph: &str) -> Option<(&str, &str)> {
    let (id, sentence) = paragraph.strip_prefix("**[")?.split_once("]** ")?;
    Some((id, sentence))
}

/// The paragraphs of prose and tables, with the number of their first line; code blocks are left out.
fn paragraphs(text: &str) -> Vec<(usize, String)> {
    let mut out: Vec<(usize, String)> = Vec::new();
    let mut code = false;
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let fence = line.starts_with("```");
        code ^= fence;
        if code || fence || line.trim().is_empty() {
            open = false;
        } else if open && let Some((_, paragraph)) = out.last_mut() {
            paragraph.push(' ');
            paragraph.push_str(line.trim());
        } else {
            out.push((index + 1, line.trim().to_owned()));
            open = true;
        }
    }
    out
}

/// How many key words stand in the text, outside of `code`.
fn key_words(text: &str) -> usize {
    text.split('`')
        .step_by(2)
        .flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| KEY_WORDS.contains(word))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        problems(&[("p.md".to_owned(), text)])
    }

    #[test]
    fn well_formed_requirements_pass() {
        let text = "Prose that may wander.\n\n**[PUSH-001]** A server MUST\nanswer.\n\n**[PUSH-003]** A replica MUST NOT guess.\n\nThe words `MUST` and `MAY`.\n\n```\nA MUST in code\n```\n";
        assert_eq!(found(text), [""; 0]);
    }

    #[test]
    fn each_fault_is_named_with_its_line() {
        let cases = [
            ("A server MUST answer.", "outside a requirement"),
            ("**[PUSH-001]** A server answers.", "0 key words"),
            (
                "**[PUSH-001]** A server MUST answer and MAY wait.",
                "2 key words",
            ),
            ("**[PUSH-001]** Servers MUST answer.", "does not begin"),
            ("**[OTHER-001]** A server MUST answer.", "not AREA-NNN"),
            ("**[PUSH-1]** A server MUST answer.", "not AREA-NNN"),
            (
                "**[PUSH-001]** A server MUST a.\n\n**[PUSH-001]** A server MUST b.",
                "stands already",
            ),
            ("| a | A server MUST |", "outside a requirement"),
        ];
        for (text, problem) in cases {
            let found = found(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(problem), "{text}: {found:?}");
            assert!(found[0].starts_with("p.md:"), "{found:?}");
        }
    }
}
