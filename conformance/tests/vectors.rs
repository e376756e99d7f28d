//! The vector files agree with the oracle, and with the generator in another
//! language.

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/vectors")
}

#[test]
fn every_vector_agrees_with_the_oracle() {
    let mut files = 0;
    let mut vectors = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".json") || name == "vectors.schema.json" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        match gosync_conformance::vectors::check(&name, &text) {
            Ok(n) => vectors += n,
            Err(found) => {
                let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
                panic!("{}", lines.join("\n"));
            }
        }
        files += 1;
    }
    assert!(
        files >= 10 && vectors >= 100,
        "{vectors} vectors in {files} files"
    );
}

/// Where there is no Python, `every_vector_agrees_with_the_oracle` is all that
/// is checked, and this says so.
#[test]
fn the_python_generator_makes_the_same_files() {
    let script = folder().join("regenerate.py");
    match Command::new("python3").arg(&script).arg("--check").output() {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(e) => eprintln!("not compared with the Python generator: python3 does not start: {e}"),
    }
}
