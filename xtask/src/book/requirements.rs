//! Requirements as places that can be linked to. Knows the form of their ids, and nothing of what they say.

use std::collections::HashMap;

/// The page on which each requirement stands.
pub fn places(pages: &[(String, String)]) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for (name, text) in pages {
        for line in text.lines() {
            let id = line
                .strip_prefix("**[")
                .and_then(|rest| rest.split_once("]** "));
            if let Some((id, _)) = id {
                found.insert(id.to_owned(), name.clone());
            }
        }
    }
    found
}

/// The page with an anchor at each of its requirements, and a link at each mention of one, outside of code.
pub fn link(name: &str, text: &str, known: &HashMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut code = false;
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        if code || fence {
            out += line;
        } else if let Some((id, rest)) = line
            .strip_prefix("**[")
            .and_then(|rest| rest.split_once("]** "))
        {
            out += &format!("<a id=\"{id}\"></a>**[[{id}](#{id})]** ");
            out += &mentions(name, rest, known);
        } else {
            out += &mentions(name, line, known);
        }
        out.push('\n');
    }
    out
}

fn mentions(name: &str, line: &str, known: &HashMap<String, String>) -> String {
    let pieces = line.split('`').enumerate().map(|(i, piece)| {
        if i % 2 == 1 {
            return piece.to_owned();
        }
        let mut out = String::new();
        let mut rest = piece;
        while let Some((at, id)) = first_id(rest) {
            let (before, after) = (&rest[..at], &rest[at + id.len()..]);
            // a mention within a link's text or target stays what it is
            let linked = before.ends_with(['[', '#']) || after.starts_with(']');
            out += before;
            match known.get(id) {
                Some(page) if !linked => {
                    out += &format!("[{id}]({}#{id})", relative(name, page));
                }
                _ => out += id,
            }
            rest = after;
        }
        out + rest
    });
    pieces.collect::<Vec<_>>().join("`")
}

/// The first word of the form AREA-NNN.
fn first_id(text: &str) -> Option<(usize, &str)> {
    let mut start = 0;
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
        let trimmed = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let id = trimmed.split_once('-').is_some_and(|(area, number)| {
            !area.is_empty()
                && area.bytes().all(|b| b.is_ascii_uppercase())
                && number.len() == 3
                && number.bytes().all(|b| b.is_ascii_digit())
        });
        if id {
            return Some((start, trimmed));
        }
        start += word.len();
    }
    None
}

/// How a page names another one.
fn relative(from: &str, to: &str) -> String {
    let (mut from, mut to): (Vec<&str>, Vec<&str>) =
        (from.split('/').collect(), to.split('/').collect());
    from.pop();
    while !from.is_empty() && to.len() > 1 && from[0] == to[0] {
        from.remove(0);
        to.remove(0);
    }
    "../".repeat(from.len()) + &to.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(text: &str) -> String {
        let pages = [
            (
                "spec/05-push.md".to_owned(),
                "**[PUSH-001]** A server MUST.".to_owned(),
            ),
            (
                "spec/06-watch.md".to_owned(),
                "**[WATCH-002]** A server MUST.".to_owned(),
            ),
        ];
        link("spec/05-push.md", text, &places(&pages))
    }

    #[test]
    fn a_requirement_gets_an_anchor_and_mentions_lead_to_it() {
        assert_eq!(
            linked("**[PUSH-001]** A server MUST, save WATCH-002."),
            "<a id=\"PUSH-001\"></a>**[[PUSH-001](#PUSH-001)]** A server MUST, save \
             [WATCH-002](06-watch.md#WATCH-002).\n"
        );
    }

    #[test]
    fn code_links_and_unknown_ids_stay() {
        for text in [
            "`PUSH-001`",
            "```\nPUSH-001\n```",
            "[PUSH-001](x.md)",
            "OTHER-001 and FIPS 180-4",
        ] {
            assert_eq!(linked(text), format!("{text}\n"));
        }
    }

    #[test]
    fn pages_name_each_other_from_where_they_are() {
        assert_eq!(
            relative("conformance/README.md", "spec/a.md"),
            "../spec/a.md"
        );
        assert_eq!(relative("spec/vectors/README.md", "spec/a.md"), "../a.md");
        assert_eq!(relative("spec/b.md", "spec/a.md"), "a.md");
    }
}
