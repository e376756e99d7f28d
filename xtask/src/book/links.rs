//! Links of the book: what pages lead to, and whether that is there once the book is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::check::docs::{links, resolve};
use crate::files;

/// The files of the project that a page links to.
pub fn targets(page: &str, text: &str) -> Vec<PathBuf> {
    let found = links(text).into_iter();
    found
        .map(|(_, target)| target.split_once('#').map_or(target, |(file, _)| file))
        .filter(|file| !file.is_empty())
        .map(|file| resolve(Path::new(page), file))
        .collect()
}

/// The page with links to pages that are not in the book, and to folders, turned into plain text.
pub fn outward(page: &str, text: &str, pages: &[(String, String)]) -> String {
    let inside = |file: &Path| {
        let is_page = file.extension().is_some_and(|e| e == "md");
        let has_name = file.extension().is_some();
        has_name && (!is_page || pages.iter().any(|(name, _)| Path::new(name) == file))
    };
    let mut out = text.to_owned();
    for (_, target) in links(text) {
        let file = target.split_once('#').map_or(target, |(file, _)| file);
        if file.is_empty() || inside(&resolve(Path::new(page), file)) {
            continue;
        }
        let end = format!("]({target})");
        while let Some(at) = out.find(&end) {
            let Some(open) = out[..at].rfind('[') else {
                break;
            };
            let words = out[open + 1..at].to_owned();
            out.replace_range(open..at + end.len(), &words);
        }
    }
    out
}

/// The links of all HTML pages in a folder that lead nowhere, as `page: target`.
pub fn broken(dir: &Path) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    let mut all = BTreeSet::new();
    for file in files::walk(dir)? {
        if file.extension().is_some_and(|e| e == "html") {
            pages.insert(file.clone(), fs::read_to_string(dir.join(&file))?);
        }
        all.insert(file);
    }
    Ok(dangling(&pages, &all))
}

fn dangling(pages: &BTreeMap<PathBuf, String>, all: &BTreeSet<PathBuf>) -> Vec<String> {
    let ids: BTreeMap<&Path, BTreeSet<&str>> = pages
        .iter()
        .map(|(page, html)| (page.as_path(), values(html, "id").collect()))
        .collect();
    let mut found = Vec::new();
    for (page, html) in pages {
        // one page for printing joins all others, and the one for missing pages stands anywhere
        if ["print.html", "404.html"]
            .iter()
            .any(|name| page == Path::new(name))
        {
            continue;
        }
        for target in values(html, "href").chain(values(html, "src")) {
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if target.is_empty() || elsewhere || target.starts_with("data:") {
                continue;
            }
            let (file, id) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => page.clone(),
                _ => resolve(page, file),
            };
            let there = all.contains(&file)
                && (id.is_empty()
                    || ids
                        .get(file.as_path())
                        .is_none_or(|known| known.contains(id)));
            if !there {
                found.push(format!("{}: {target}", page.display()));
            }
        }
    }
    found
}

/// The values of an attribute.
fn values<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let start = format!(" {name}=\"");
    let mut rest = html;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&start)?;
        let (value, left) = after.split_once('"')?;
        rest = left;
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_named() {
        let page = |name: &str, html: &str| (PathBuf::from(name), html.to_owned());
        let pages = BTreeMap::from([
            page("a/one.html", r#"<a href="../two.html#x">"#),
            page(
                "two.html",
                r##"<h1 id="x"><a href="#y"><img src="no.svg"><a href="https://a.b/">"##,
            ),
        ]);
        let all = pages.keys().cloned().collect();
        assert_eq!(dangling(&pages, &all), ["two.html: #y", "two.html: no.svg"]);
    }

    #[test]
    fn links_out_of_the_book_become_text() {
        let pages = [("spec/b.md".to_owned(), String::new())];
        let text = "[b](b.md#x), [the code](../src/lib.rs), [folder](vectors/), [c](c.md), [site](https://a.b)";
        assert_eq!(
            outward("spec/a.md", text, &pages),
            "[b](b.md#x), [the code](../src/lib.rs), folder, c, [site](https://a.b)"
        );
        assert_eq!(targets("spec/a.md", text)[1], Path::new("src/lib.rs"));
    }
}
