//! Links in the project's Markdown lead to files, and to headings, that exist.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Reads every Markdown file of the project.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let files = process::output(Command::new("git").current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.md",
    ]))?;
    let mut pages = HashMap::new();
    for file in files.lines() {
        let text =
            fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        pages.insert(PathBuf::from(file), text);
    }
    super::none(
        "broken links",
        &broken(&pages, |path| root.join(path).exists()),
    )
}

/// The links that lead nowhere, as `file:line: target`, sorted.
fn broken(pages: &HashMap<PathBuf, String>, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let anchors: HashMap<&Path, BTreeSet<String>> = pages
        .iter()
        .map(|(path, text)| (path.as_path(), headings(text)))
        .collect();
    let mut found = Vec::new();
    for (page, text) in pages {
        for (line, target) in links(text) {
            let (file, heading) = target
                .split_once('#')
                .map_or((target, None), |(file, id)| (file, Some(id)));
            let path = if file.is_empty() {
                page.clone()
            } else {
                resolve(page, file)
            };
            let known = heading.is_none_or(|id| {
                anchors
                    .get(path.as_path())
                    .is_none_or(|ids| ids.contains(id))
            });
            if !known || !(file.is_empty() || exists(&path)) {
                found.push(format!("{}:{line}: {target}", page.display()));
            }
        }
    }
    found.sort();
    found
}

/// `target` as seen from `page`, relative to the root.
pub fn resolve(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// The lines of `text` that are prose, with their numbers: code blocks hold examples, not links.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (!code && !fence).then_some((index + 1, line))
    })
}

/// The targets of links and images within the project, with their line numbers.
pub fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let (target, left) = after.split_once(')').unwrap_or((after, ""));
            let target = target.split_whitespace().next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !elsewhere {
                found.push((number, target));
            }
            rest = left;
        }
    }
    found
}

/// The anchors that GitHub gives to the headings of a page.
fn headings(text: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() < line.len() && title.starts_with(' ') {
            let id = slug(title.trim());
            let numbered = (1..).map(|n| format!("{id}-{n}"));
            let free = std::iter::once(id.clone())
                .chain(numbered)
                .find(|id| !ids.contains(id));
            ids.extend(free);
        }
    }
    ids
}

fn slug(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pages: &[(&str, &str)]) -> Vec<String> {
        let pages: HashMap<PathBuf, String> = pages
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect();
        broken(&pages, |path| {
            pages.contains_key(path) || path == Path::new("proto/gosync/v1/sync.proto")
        })
    }

    #[test]
    fn links_to_files_are_followed_from_the_page_they_stand_on() {
        let pages = [
            ("README.md", "[spec](spec/01.md)"),
            ("spec/01.md", "[wire](../proto/gosync/v1/sync.proto)"),
        ];
        assert_eq!(found(&pages), [""; 0]);
        assert_eq!(
            found(&[("spec/01.md", "text\n[up](README.md)")]),
            ["spec/01.md:2: README.md"]
        );
    }

    #[test]
    fn links_to_headings_need_that_heading() {
        let page = "# One record's journey\n## Push\n## Push\n[a](#push-1) [b](#one-records-journey) [c](#pull)";
        assert_eq!(found(&[("a.md", page)]), ["a.md:4: #pull"]);
        assert_eq!(
            found(&[("a.md", page), ("b.md", "[x](a.md#push) [y](a.md#nothing)")]).len(),
            2
        );
    }

    #[test]
    fn code_and_other_sites_are_left_alone() {
        let page = "[site](https://example.org/x)\n```\n[example](nowhere.md)\n# no heading\n```\n";
        assert_eq!(found(&[("a.md", page)]), [""; 0]);
        assert!(headings(page).is_empty());
    }

    #[test]
    fn images_and_titles_are_understood() {
        assert_eq!(
            found(&[("a.md", "![picture](missing.png \"a title\")")]),
            ["a.md:1: missing.png"]
        );
    }
}
