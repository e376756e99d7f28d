//! What a requirement binds to without saying it: the text around it that it points at, and the hash of both. Knows no
//! checks.

use gosync_conformance::suite::text_hash;

/// A numbered sentence, and what binds through it.
pub struct Rule {
    /// "PUSH-001".
    pub id: String,
    /// The sentence.
    pub text: String,
    /// Of the sentence, and of what it points at.
    pub hash: String,
}

impl Rule {
    /// Looks up in the book what the sentence points at.
    pub fn new(id: &str, text: &str, book: &Book<'_>) -> Rule {
        let beside = book.pointed_at(id, text);
        Rule {
            id: id.to_owned(),
            text: text.to_owned(),
            hash: text_hash(&format!("{text} {beside}")),
        }
    }
}

/// The chapters, cut into sections.
pub struct Book<'a> {
    sections: Vec<&'a str>,
}

impl<'a> Book<'a> {
    /// Of the text of each chapter.
    pub fn new(pages: impl Iterator<Item = &'a str>) -> Book<'a> {
        Book {
            sections: pages.flat_map(|page| page.split("\n## ")).collect(),
        }
    }

    /// What a requirement binds to without saying it: the text of each section that it names by number, the tables of
    /// a chapter; where it says "this" or "these", or "table" without a number, the text of its own section.
    ///
    /// "This" can also mean a call or a space. Then the hash moves more often than it has to, which costs a look; a
    /// list of the things that are meant could miss one.
    fn pointed_at(&self, id: &str, text: &str) -> String {
        let mark = format!("**[{id}]**");
        let own = self.sections.iter().find(|s| s.contains(&mark));
        let words: Vec<&str> = text
            .split(|c: char| !c.is_alphanumeric() && c != '.')
            .map(|word| word.trim_end_matches('.'))
            .collect();
        let says = |those: &[&str]| words.iter().any(|word| those.contains(word));
        // "sections 1.2 and 1.3", but not HTTP/1.1
        let named = words.windows(2).filter_map(|pair| match *pair {
            ["section" | "sections" | "and", number] if is_section(number) => Some(number),
            _ => None,
        });
        let mut numbers = named.peekable();
        let mut found: Vec<String> = Vec::new();
        if says(&["this", "these"]) || says(&["table", "tables"]) && numbers.peek().is_none() {
            found.extend(own.map(|section| unnumbered(section)));
        }
        for number in numbers {
            let head = |section: &&&str| section.split_whitespace().next() == Some(number);
            found.extend(self.sections.iter().find(head).map(|s| unnumbered(s)));
        }
        for pair in words.windows(2) {
            let number = match pair {
                ["this", "chapter"] => own.and_then(|section| chapter(section)),
                ["chapter", number] => Some(*number),
                _ => continue,
            };
            let here = self.sections.iter().filter(|s| chapter(s) == number);
            found.extend(here.filter(|_| number.is_some()).map(|s| tables(s)));
        }
        found.join("\n")
    }
}

/// Whether it is a number such as 12.3.
fn is_section(word: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    word.split_once('.')
        .is_some_and(|(chapter, section)| digits(chapter) && digits(section))
}

/// The number of the chapter in which a section stands.
fn chapter(section: &str) -> Option<&str> {
    let number = section.split_whitespace().next()?;
    is_section(number).then(|| number.split_once('.').map_or("", |(chapter, _)| chapter))
}

/// Prose, tables and code of a section; its requirements have hashes of their own.
fn unnumbered(section: &str) -> String {
    let paragraphs = section.split("\n\n");
    let silent = paragraphs.filter(|paragraph| !paragraph.trim_start().starts_with("**["));
    silent.collect::<Vec<_>>().join("\n")
}

fn tables(section: &str) -> String {
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_conformance::suite::requirements;

    const PAGES: [&str; 2] = [
        "# 1. One\n\n## 1.1 First\n\n| x | far |\n\n## 1.2 Second\n\nA is prose.\n\n```\nA = code\n```\n\n\
         **[A-001]** REQUIREMENT\n\n| a | row |\n\n**[B-002]** A peer MUST wait.\n\n## 1.3 Third\n\n| y | last |\n",
        "# 2. Two\n\n## 2.1 Other\n\nElsewhere.\n\n| z | there |\n",
    ];

    /// Whether the hash of A-001 with this text moves when `word` becomes another one.
    fn moves(text: &str, word: &str) -> bool {
        let hash = |edit: &dyn Fn(&str) -> String| {
            let pages = PAGES.map(|page| edit(&page.replace("REQUIREMENT", text)));
            Rule::new("A-001", text, &Book::new(pages.iter().map(String::as_str))).hash
        };
        let there = PAGES.iter().filter(|page| page.contains(word)).count();
        assert_eq!(there, 1, "{word} stands once");
        hash(&str::to_owned) != hash(&|page| page.replace(word, "changed"))
    }

    fn all_that_move(text: &str) -> Vec<&'static str> {
        let words = [
            "far",
            "prose",
            "code",
            "row",
            "wait",
            "last",
            "Elsewhere",
            "there",
        ];
        words.into_iter().filter(|word| moves(text, word)).collect()
    }

    #[test]
    fn a_requirement_that_points_at_nothing_is_its_sentence() {
        assert_eq!(all_that_move("A server MUST follow."), [""; 0]);
    }

    #[test]
    fn what_stands_beside_a_requirement_that_points_at_it_belongs_to_it() {
        for text in [
            "A server MUST follow the table.",
            "A server MUST follow what the tables say.",
            "A peer MUST keep the greater by this order.",
            "A peer MUST hash exactly these bytes.",
            "A peer MUST go by this definition.",
        ] {
            assert_eq!(all_that_move(text), ["prose", "code", "row"], "{text}");
        }
    }

    #[test]
    fn a_section_that_a_requirement_names_belongs_to_it() {
        assert_eq!(
            all_that_move("A server MUST do as the table of [section 2.1](b.md) says."),
            ["Elsewhere", "there"]
        );
        assert_eq!(
            all_that_move("A server MUST go by sections 1.1 and 1.3."),
            ["far", "last"]
        );
        assert_eq!(all_that_move("A server MUST go by section 9.9."), [""; 0]);
        assert_eq!(all_that_move("A server MUST speak HTTP/1.1."), [""; 0]);
    }

    #[test]
    fn the_tables_of_a_chapter_that_a_requirement_names_belong_to_it() {
        assert_eq!(
            all_that_move("A server MUST refuse as chapter 2 says."),
            ["there"]
        );
        let own = all_that_move("A server MUST give a reason of this chapter.");
        assert_eq!(own, ["far", "prose", "code", "row", "last"]);
    }

    #[test]
    fn the_specification_moves_the_hashes_of_what_points_at_it() {
        let pages: Vec<String> = crate::pages()
            .unwrap()
            .into_iter()
            .map(|page| page.text)
            .collect();
        for (id, from, to) in [
            (
                "MODEL-018",
                "2. a tombstone is greater than a put;",
                "2. a put is greater than a tombstone;",
            ),
            (
                "MODEL-020",
                "| 8 | `version.time`, u64 BE |",
                "| 8 | `version.time`, u64 LE |",
            ),
            (
                "MERKLE-001",
                "for each byte a 1, then",
                "for each byte a 0, then",
            ),
            (
                "ERR-002",
                "| NO_ACCESS | PERMISSION_DENIED (7)",
                "| NO_ACCESS | NOT_FOUND (5)",
            ),
            (
                "ERR-003",
                "| LAGGING | UNAVAILABLE (14) | google",
                "| LAGGING | UNAVAILABLE (14) | no google",
            ),
            ("ERR-004", "| SLOW_READER |", "| LAZY_READER |"),
            (
                "ERR-008",
                "| Stop | stops talking",
                "| Stop | goes on talking",
            ),
            ("ERR-008", "| no | Stop |", "| no | Report |"),
            (
                "ERR-011",
                "| UNIMPLEMENTED | Upgrade |",
                "| UNIMPLEMENTED | Retry |",
            ),
            (
                "LIMIT-001",
                "| `max_push_records` | 5 000 | 100 |",
                "| `max_push_records` | 5 000 | 10 |",
            ),
            (
                "LIMIT-007",
                "| `max_push_records` | 5 000 | 100 |",
                "| `max_push_records` | 5 000 | 10 |",
            ),
            (
                "LIMIT-004",
                "| `max_calls_per_second` | RATE_LIMITED |",
                "| `max_calls_per_second` | UNAVAILABLE |",
            ),
        ] {
            let text = requirements().find(|r| r.id == id).unwrap().text;
            assert!(pages.iter().any(|page| page.contains(from)), "{id}: {from}");
            let hash = |pages: &[String]| {
                Rule::new(id, text, &Book::new(pages.iter().map(String::as_str))).hash
            };
            let edited: Vec<String> = pages.iter().map(|page| page.replace(from, to)).collect();
            assert_ne!(hash(&pages), hash(&edited), "{id}: {from}");
        }
    }
}
