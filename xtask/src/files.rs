//! Folders: copied, emptied, walked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Removes a folder with everything in it; one that is not there is fine.
pub fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Copies the files of `from`, and of the folders in it, into `to`, creating folders as needed.
pub fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    for file in walk(from)? {
        let target = to.join(&file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let source = from.join(&file);
        fs::copy(&source, &target)
            .with_context(|| format!("cannot copy {} to {}", source.display(), target.display()))?;
    }
    Ok(())
}

/// The files in `dir` and its folders, relative to it, sorted.
pub fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let full = dir.join(&folder);
        for entry in
            fs::read_dir(&full).with_context(|| format!("cannot read {}", full.display()))?
        {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_folder_holds_the_same_files() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::write(from.join("a.txt"), "a").unwrap();
        fs::write(from.join("deep/er/b.txt"), "b").unwrap();
        copy_dir(&from, &to).unwrap();
        assert_eq!(
            walk(&to).unwrap(),
            [PathBuf::from("a.txt"), PathBuf::from("deep/er/b.txt")]
        );
        assert_eq!(fs::read_to_string(to.join("deep/er/b.txt")).unwrap(), "b");
    }

    #[test]
    fn removing_a_folder_twice_is_fine() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("dir");
        fs::create_dir(&dir).unwrap();
        remove_dir(&dir).unwrap();
        remove_dir(&dir).unwrap();
        assert!(!dir.exists());
    }
}
