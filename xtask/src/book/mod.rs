//! `cargo xtask book`: the specification as a searchable HTML book.
//!
//! The chapters are pleasant Markdown as they stand, so the book is made from a staged copy: a table of contents, an
//! anchor at each requirement and links to it, and a page that says which check guards which requirement.

mod links;
mod requirements;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::mdbook;
use crate::{files, process, workspace};

/// Build the specification as an HTML book with search, and check its links
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> Result<()> {
    let index = build()?;
    println!("{}", index.display());
    Ok(())
}

/// Pages beside the chapters, with what they are called in the table of contents.
const APPENDICES: [(&str, &str); 5] = [
    ("spec/vectors/README.md", "Test vectors"),
    ("spec/traceability.md", "Requirements and checks"),
    ("conformance/README.md", "The conformance suite"),
    (
        "conformance/examples/README.md",
        "Implementations from the text",
    ),
    ("conformance/examples/QUESTIONS.md", "Questions and answers"),
];

const SETTINGS: &str = r#"[book]
title = "GoSync: the specification"
language = "en"
src = "src"

[build]
# Pages keep their names, so that links to README.md hold.
use-default-preprocessors = false

[output.html]
no-section-label = true
preferred-dark-theme = "navy"
additional-css = ["book.css"]

[output.html.search]
limit-results = 50
boost-title = 2
heading-split-level = 2
"#;

/// Wide tables and long dumps need more room than prose; an anchor must not hide under the menu.
const STYLE: &str = ":root { --content-max-width: 92rem; }\n\
                     table { font-size: 0.9em; }\n\
                     a[id] { scroll-margin-top: 6rem; }\n";

const START: &str = "<!doctype html><title>GoSync: the specification</title>\
                     <meta http-equiv=\"refresh\" content=\"0; url=spec/README.html\">\
                     <a href=\"spec/README.html\">GoSync: the specification</a>\n";

/// Builds the book and returns its first page.
pub fn build() -> Result<PathBuf> {
    let mdbook = mdbook::ensure()?;
    let dir = workspace::target().join("book");
    files::remove_dir(&dir)?;
    stage(&dir.join("src"))?;
    fs::write(dir.join("book.toml"), SETTINGS)?;
    fs::write(dir.join("book.css"), STYLE)?;
    process::run(Command::new(mdbook).arg("build").arg(&dir))?;
    let html = dir.join("book");
    // mdBook copies the first page here, whose links hold only in its own folder.
    fs::write(html.join("index.html"), START)?;
    let broken = links::broken(&html)?;
    if !broken.is_empty() {
        bail!("broken links in the book:\n  {}", broken.join("\n  "));
    }
    Ok(html.join("index.html"))
}

/// Copies the pages, and whatever they link to, under the names that they have in the project, so that links hold.
fn stage(src: &Path) -> Result<()> {
    let root = workspace::root();
    let mut pages: Vec<(String, String)> = Vec::new();
    for file in files::walk(&root.join("spec"))? {
        let name = file.to_string_lossy();
        let chapter = file.components().count() == 1 && name.ends_with(".md");
        if chapter && !["README.md", "CHANGELOG.md"].contains(&&*name) {
            let text = read(&root.join("spec").join(&file))?;
            pages.push((format!("spec/{name}"), text));
        }
    }
    for page in ["spec/README.md", "spec/CHANGELOG.md"] {
        pages.push((page.to_owned(), read(&root.join(page))?));
    }
    let trace = workspace::cargo()
        .current_dir(root)
        .args(["run", "--quiet", "--package", "spec-blocks", "--", "trace"])
        .output()?;
    if !trace.status.success() {
        bail!("{}", String::from_utf8_lossy(&trace.stderr).trim());
    }
    let trace = String::from_utf8(trace.stdout)?;
    for (page, _) in APPENDICES {
        let text = match page {
            "spec/traceability.md" => trace.clone(),
            _ => read(&root.join(page))?,
        };
        pages.push((page.to_owned(), text));
    }
    put(&src.join("SUMMARY.md"), &summary(&pages))?;
    let known = requirements::places(&pages);
    for (name, text) in &pages {
        for target in links::targets(name, text) {
            let from = root.join(&target);
            let page = pages.iter().any(|(page, _)| Path::new(page) == target);
            if !page && from.is_file() {
                put_bytes(&src.join(&target), &fs::read(from)?)?;
            }
        }
        let linked = requirements::link(name, text, &known);
        put(&src.join(name), &links::outward(name, &linked, &pages))?;
    }
    Ok(())
}

/// The table of contents: the overview, the chapters by number, the rest.
fn summary(pages: &[(String, String)]) -> String {
    let mut out = String::from("# Summary\n\n[Overview](spec/README.md)\n\n# Specification\n\n");
    let chapters = pages.iter().filter(|(name, _)| {
        name.strip_prefix("spec/")
            .is_some_and(|file| file.starts_with(|c: char| c.is_ascii_digit()))
    });
    for (name, text) in chapters {
        let title = text.lines().next().unwrap_or(name).trim_start_matches("# ");
        out += &format!("- [{title}]({name})\n");
    }
    out += "- [Changelog](spec/CHANGELOG.md)\n\n# Appendices\n\n";
    for (name, title) in APPENDICES {
        out += &format!("- [{title}]({name})\n");
    }
    out
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn put(path: &Path, text: &str) -> Result<()> {
    put_bytes(path, text.as_bytes())
}

fn put_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chapters_come_in_order_and_with_their_titles() {
        let page = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let pages = [
            page("spec/01-model.md", "# 1. Model\n"),
            page("spec/README.md", "# Spec\n"),
            page("spec/02-history.md", "# 2. History\n"),
        ];
        let summary = summary(&pages);
        assert!(
            summary.contains("- [1. Model](spec/01-model.md)\n- [2. History](spec/02-history.md)")
        );
        assert_eq!(summary.matches("README.md").count(), 4);
    }
}
