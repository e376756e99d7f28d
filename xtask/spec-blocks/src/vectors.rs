//! The files of `spec/vectors`, as the suite's oracle writes them. What they mean is the oracle's matter.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use gosync_conformance::vectors;

const FOLDER: &str = "spec/vectors";

/// Writes the files.
pub fn write(root: &Path) -> Result<()> {
    for (name, text) in vectors::files()? {
        let path = root.join(FOLDER).join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// One sentence for each file that is not what the oracle writes.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let stale = vectors::files()?.into_iter().filter(|(name, text)| {
        let kept = fs::read_to_string(root.join(FOLDER).join(name));
        kept.ok().as_ref() != Some(text)
    });
    Ok(stale
        .map(|(name, _)| format!("{FOLDER}/{name} is out of date; run `cargo xtask generate`"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_edited_is_named_until_it_is_written_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        let all = problems(root.path()).unwrap();
        assert!(all.len() > 10, "{all:?}");
        write(root.path()).unwrap();
        assert_eq!(problems(root.path()).unwrap(), [""; 0]);
        let file = folder.join("merge.json");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            text.replacen("\"winner\": \"b\"", "\"winner\": \"a\"", 1),
        )
        .unwrap();
        let one = problems(root.path()).unwrap();
        assert!(one.len() == 1 && one[0].contains("merge.json"), "{one:?}");
    }
}
