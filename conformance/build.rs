//! Generates the messages from the `.proto` files (this crate shares no code
//! with the other crates, only the schema) and embeds the requirements of the
//! specification, so that a failure can quote the sentence that was broken.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    generate_messages(&here, &out)?;
    embed_requirements(&here.join("../spec"), &out)
}

fn generate_messages(here: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let roots = [here.join("../proto"), here.join("proto")];
    for root in &roots {
        println!("cargo::rerun-if-changed={}", root.display());
    }
    let files = [
        "gosync/v1/types.proto",
        "gosync/v1/sync.proto",
        "gosync/conformance/v1/driver.proto",
        "gosync/conformance/v1/control.proto",
    ];
    let mut compiler = protox::Compiler::new(&roots)?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(files)?;
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]).enable_type_names();
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Writes a table `(id, text, file)` of every `**[AREA-001]** sentence` in the
/// chapters. A requirement ends at a blank line or where the next one begins.
fn embed_requirements(spec: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", spec.display());
    let entries = fs::read_dir(spec)
        .map_err(|e| format!("the specification, {}, cannot be read: {e}", spec.display()))?;
    let mut chapters: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .collect();
    chapters.sort();
    let mut table = String::new();
    for chapter in chapters {
        println!("cargo::rerun-if-changed={}", chapter.display());
        let text = fs::read_to_string(&chapter)?;
        let file = chapter.file_name().and_then(|n| n.to_str()).unwrap_or("");
        for (id, sentence) in requirements(&text) {
            table.push_str(&format!("    ({id:?}, {sentence:?}, {file:?}),\n"));
        }
    }
    if table.is_empty() {
        return Err(format!("no requirement is found in {}", spec.display()).into());
    }
    fs::write(out.join("requirements.rs"), format!("&[\n{table}]\n"))?;
    Ok(())
}

fn requirements(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let line = line.trim().trim_start_matches(['-', '*', '|', '>']);
        let original = line.trim();
        let marked = line
            .trim_start()
            .trim_start_matches("**")
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]**"));
        if let Some((id, sentence)) = marked.filter(|(id, _)| is_id(id)) {
            found.push((id.to_owned(), sentence.trim().to_owned()));
            open = true;
        } else if original.is_empty() || original.starts_with('#') || original.starts_with("```") {
            open = false;
        } else if let (true, Some((_, sentence))) = (open, found.last_mut()) {
            sentence.push(' ');
            sentence.push_str(original);
        }
    }
    found
}

fn is_id(text: &str) -> bool {
    text.rsplit_once('-').is_some_and(|(area, number)| {
        !area.is_empty()
            && area.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
            && number.len() == 3
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}
