//! What happened in a run, line by line, and the hash of it: equal runs have
//! equal hashes. Knows nothing of what the lines mean.

use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::fmt::{Arguments, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

/// So many of the last lines are kept for the report of a failure.
const KEPT: usize = 400;

/// Collects lines. Clones write to the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: Sha256,
    lines: u64,
    last: VecDeque<String>,
    print: bool,
}

impl Trace {
    /// An empty trace; `print` shows each line as it comes.
    pub fn new(print: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Inner {
            hash: Sha256::new(),
            lines: 0,
            last: VecDeque::new(),
            print,
        })))
    }

    /// Adds a line.
    pub fn line(&self, at_ms: u64, what: Arguments<'_>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = match inner.last.len() {
            KEPT => inner.last.pop_front().unwrap_or_default(),
            _ => String::new(),
        };
        line.clear();
        // a string takes whatever is written to it
        let _ = write!(line, "{:>9}.{:03}  {what}", at_ms / 1_000, at_ms % 1_000);
        inner.hash.update(line.as_bytes());
        inner.hash.update(b"\n");
        inner.lines += 1;
        if inner.print {
            println!("{line}");
        }
        inner.last.push_back(line);
    }

    /// The hash of all lines so far, in hexadecimal.
    pub fn hash(&self) -> String {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = inner.hash.clone().finalize();
        hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    /// How many lines there were.
    pub fn lines(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last.iter().cloned().collect()
    }
}
