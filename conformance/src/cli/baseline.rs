//! `--baseline`: cases that are known to fail. Knows results, not how they
//! came about.

use gosync_conformance::suite::{RunResult, Verdict, glob};
use std::fs;

/// What a baseline file says.
#[derive(Clone)]
pub struct Baseline {
    known: Vec<Known>,
}

#[derive(Clone)]
struct Known {
    /// As it stands in the file.
    name: String,
    reason: String,
}

/// Reads a baseline file.
pub fn read(file: &str) -> Result<Baseline, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("it cannot be read: {e}"))?;
    let lines = text.lines().map(str::trim);
    let known = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            Known {
                name: name.to_owned(),
                reason: reason.trim().to_owned(),
            }
        });
    Ok(Baseline {
        known: known.collect(),
    })
}

impl Baseline {
    /// Marks known failures as not run, and says what of the baseline does not
    /// fit any more.
    pub fn apply(&self, run: &mut RunResult) -> Vec<String> {
        run.filtered = true;
        let mut stale = Vec::new();
        for Known { name, reason } in &self.known {
            let (case, wire) = name.split_once('@').unwrap_or((name, "*"));
            let mut hit = false;
            for result in &mut run.cases {
                if glob(case, &result.name)
                    && glob(wire, &result.wire)
                    && result.verdict == Verdict::Failed
                {
                    hit = true;
                    result.verdict = Verdict::NotRun;
                    result.known = true;
                    result.reason = format!("known to fail: {reason}");
                }
            }
            if !hit {
                stale.push(format!("{name} does not fail"));
            }
        }
        stale
    }
}
