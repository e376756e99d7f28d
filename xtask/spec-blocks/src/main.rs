//! The specification's generated blocks, made from the schema and from `proto/`, the form of its requirements, and
//! what guards them.
//!
//! A block stands between `<!-- generated:NAME ARGUMENTS -->` and `<!-- /generated -->`. What a name means is said
//! in [`block`]; everything outside of blocks is written by people and never changed here.
//!
//! A program of its own, so that the other commands of the project work while `proto/` does not compile.

mod book;
mod dump;
mod examples;
mod google;
mod messages;
mod requirements;
mod schema;
mod split;
mod story;
mod tables;
mod trace;
mod vectors;
mod world;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};

fn main() -> ExitCode {
    let result = match env::args().nth(1).as_deref() {
        Some("write") => write(),
        Some("check") => check(),
        Some("trace") => trace::page(root()).map(|page| print!("{page}")),
        _ => Err(anyhow!(
            "usage: spec-blocks write|check|trace (`cargo xtask generate`, `check` and `book` have this called)"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the root manifest.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

const OPEN: &str = "<!-- generated:";
const CLOSE: &str = "<!-- /generated -->";

/// One chapter as it is on disk.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn name(&self) -> String {
        self.path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// Rewrites the blocks of all chapters, and the vectors.
fn write() -> Result<()> {
    for page in pages()? {
        let fresh = fill(&page.text).with_context(|| page.name())?;
        if fresh != page.text {
            fs::write(&page.path, fresh)
                .with_context(|| format!("cannot write {}", page.path.display()))?;
        }
    }
    vectors::write(root())?;
    trace::renew(root())
}

/// Fails where a block or a vector is not what its sources make of it now, or a requirement has not the agreed form or nothing
/// that guards it.
fn check() -> Result<()> {
    let pages = pages()?;
    let mut problems = Vec::new();
    for page in &pages {
        if fill(&page.text).with_context(|| page.name())? != page.text {
            problems.push(format!(
                "{}: a generated block is out of date; run `cargo xtask generate`",
                page.name()
            ));
        }
        problems.extend(pictures_outside(page));
    }
    let texts: Vec<(String, &str)> = pages
        .iter()
        .map(|page| (page.name(), page.text.as_str()))
        .collect();
    problems.extend(requirements::problems(&texts));
    problems.extend(vectors::problems(root())?);
    problems.extend(trace::problems(root())?);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("the specification:\n  {}", problems.join("\n  "))
}

/// Whoever has this folder alone has to see every picture.
fn pictures_outside(page: &Page) -> Vec<String> {
    let targets = page.text.split("](").zip(page.text.split("](").skip(1));
    targets
        .filter(|(before, target)| {
            let picture = before
                .rsplit_once('[')
                .is_some_and(|(b, _)| b.ends_with('!'));
            picture && (target.starts_with("..") || target.contains("://"))
        })
        .map(|(_, target)| {
            let target = target.split(')').next().unwrap_or_default();
            format!(
                "{}: the picture {target} lies outside of spec/",
                page.name()
            )
        })
        .collect()
}

fn pages() -> Result<Vec<Page>> {
    let dir = root().join("spec");
    let mut pages = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            pages.push(Page { path, text });
        }
    }
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(pages)
}

/// The page with every block made anew.
fn fill(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (head, after) = after
            .split_once(" -->\n")
            .context("the opening comment of a generated block does not end on its line")?;
        let (_, after) = after
            .split_once(CLOSE)
            .with_context(|| format!("the generated block `{head}` has no end"))?;
        let mut words = head.split_whitespace();
        let name = words.next().unwrap_or_default();
        let content = block(name, &words.collect::<Vec<_>>())
            .with_context(|| format!("the generated block `{head}`"))?;
        out.push_str(&format!("{before}{OPEN}{head} -->\n{content}\n{CLOSE}"));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands in the block of that name.
fn block(name: &str, arguments: &[&str]) -> Result<String> {
    match name {
        "schema" => schema::excerpt(arguments),
        "errors" => tables::errors(),
        "error-schema" => Ok(google::schema()),
        "error-example" => google::refusal(arguments.first().copied().unwrap_or_default()),
        "limits" => tables::limits(),
        "digest-example" => examples::digests(),
        "fingerprint-example" => examples::fingerprint(),
        "columns-example" => messages::columns(),
        "split-example" => split::columns(),
        "framing-example" => messages::framing(),
        "message" => messages::message(arguments.first().copied().unwrap_or_default()),
        "session" => story::block(arguments.first().copied().unwrap_or_default()),
        _ => bail!("nothing makes it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is shown as text, as bytes and explained, by itself or inside of another.
    #[test]
    fn every_message_of_the_schema_has_an_example_in_some_chapter() {
        let mut shown = std::collections::BTreeSet::new();
        for page in pages().unwrap() {
            for head in page.text.split(OPEN).skip(1) {
                let words: Vec<&str> = head.split_whitespace().take(2).collect();
                let parts = match words[..] {
                    ["message", name] => {
                        let message = name.split('.').next().unwrap_or(name);
                        let bytes = messages::example(name).unwrap();
                        dump::parts(&format!("gosync.v1.{message}"), &bytes)
                    }
                    ["error-example", reason] => {
                        let (_, _, bytes) = google::example(reason).unwrap();
                        dump::parts("google.rpc.Status", &bytes)
                    }
                    _ => continue,
                };
                shown.extend(parts.unwrap());
            }
        }
        let all = dump::all().unwrap();
        assert!(all.len() > 30, "{}", all.len());
        let missing: Vec<&String> = all.difference(&shown).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_picture_from_elsewhere_is_named() {
        let page = |text: &str| Page {
            path: PathBuf::from("spec/a.md"),
            text: text.to_owned(),
        };
        let good = page("![a tree](diagrams/tree.svg) and [a page](../README.md)");
        assert!(pictures_outside(&good).is_empty());
        let bad = page("see [it](a.md): ![a tree](../x/tree.svg)");
        assert_eq!(
            pictures_outside(&bad),
            ["a.md: the picture ../x/tree.svg lies outside of spec/"]
        );
    }

    #[test]
    fn only_the_inside_of_a_block_changes() {
        let page = "a\n<!-- generated:schema Version -->\nold\n<!-- /generated -->\nb\n";
        let fresh = fill(page).unwrap();
        assert!(fresh.starts_with("a\n<!-- generated:schema Version -->\n```proto\n"));
        assert!(fresh.ends_with("```\n<!-- /generated -->\nb\n"));
        assert!(!fresh.contains("old"));
        assert_eq!(fill(&fresh).unwrap(), fresh);
    }

    #[test]
    fn an_unknown_or_open_block_is_an_error_that_names_it() {
        for page in [
            "<!-- generated:nothing -->\n<!-- /generated -->",
            "<!-- generated:errors -->\nno end",
            "<!-- generated:schema NoSuchMessage -->\n<!-- /generated -->",
        ] {
            let error = format!("{:#}", fill(page).unwrap_err());
            assert!(error.contains("generated block"), "{error}");
        }
    }
}
