//! Collects what a case emits, and turns it into a verdict.

use super::case::{Check, Kind, Stop};
use super::exchange::{Exchange, Raw, decode};
use super::result::{CheckResult, Verdict};
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One per run of a case.
pub struct Recorder {
    inner: Mutex<Inner>,
    began: Instant,
}

#[derive(Default)]
struct Inner {
    emitted: Vec<Emitted>,
    exchanges: Vec<Raw>,
    violations: Vec<String>,
    notes: Vec<String>,
}

struct Emitted {
    name: &'static str,
    passed: bool,
    expected: String,
    got: String,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            inner: Mutex::default(),
            began: Instant::now(),
        }
    }
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Emits a check. Emitted more than once, it has to pass every time.
    pub fn check(
        &self,
        name: &'static str,
        passed: bool,
        expected: impl Display,
        got: impl Display,
    ) {
        let mut inner = self.lock();
        match inner.emitted.iter_mut().find(|e| e.name == name) {
            Some(earlier) if earlier.passed && !passed => {
                earlier.passed = false;
                earlier.expected = legible(&expected.to_string());
                earlier.got = legible(&got.to_string());
            }
            Some(_) => {}
            None => inner.emitted.push(Emitted {
                name,
                passed,
                expected: legible(&expected.to_string()),
                got: legible(&got.to_string()),
            }),
        }
    }

    /// Keeps an exchange.
    pub fn exchange(&self, exchange: Raw) {
        self.lock().exchanges.push(exchange);
    }

    /// Something that must not be in any case.
    pub fn violation(&self, text: impl Display) {
        let text = text.to_string();
        let mut inner = self.lock();
        if !inner.violations.contains(&text) {
            inner.violations.push(text);
        }
    }

    /// Something that people may want to know.
    pub fn note(&self, text: impl Display) {
        self.lock().notes.push(text.to_string());
    }

    /// Since the case began.
    pub fn elapsed(&self) -> std::time::Duration {
        self.began.elapsed()
    }

    /// The notes so far.
    pub fn notes(&self) -> Vec<String> {
        self.lock().notes.clone()
    }

    /// What a report shows of the exchanges, when the case ended so.
    pub fn exchanges(&self, verdict: Verdict) -> Vec<Exchange> {
        let exchanges = std::mem::take(&mut self.lock().exchanges);
        decode(exchanges, verdict)
    }

    /// The violations so far.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Holds what was emitted against what was declared.
    pub fn judge(&self, declared: &[Check], end: &Result<(), Stop>) -> Vec<CheckResult> {
        let inner = self.lock();
        let passed = |name: &str| inner.emitted.iter().any(|e| e.name == name && e.passed);
        let mut results: Vec<CheckResult> = declared
            .iter()
            .map(|check| {
                let mut result = CheckResult::declared(check);
                match inner.emitted.iter().find(|e| e.name == check.name) {
                    Some(emitted) => {
                        result.expected = emitted.expected.clone();
                        result.got = emitted.got.clone();
                        result.verdict = if emitted.passed {
                            Verdict::Passed
                        } else {
                            result.failure()
                        };
                    }
                    None => {
                        result.verdict = match (end, result.failure()) {
                            (Err(Stop::Suite(_)), _) => Verdict::Inconclusive,
                            // what stopped the case need not be what was recommended
                            (_, Verdict::NonStrict) => Verdict::Inconclusive,
                            (_, failure) => failure,
                        };
                        result.got = match end {
                            Err(Stop::Peer(why)) => format!("never came to it: {why}"),
                            Err(Stop::Suite(why)) => format!("the suite failed: {why}"),
                            Ok(()) => "the case ended without finding out".into(),
                        };
                    }
                }
                if let Kind::Negative { twin } = check.kind
                    && result.verdict == Verdict::Passed
                    && !passed(twin)
                {
                    result.verdict = Verdict::Inconclusive;
                    result.got = format!(
                        "{} (worth nothing: its positive twin {twin:?} did not pass)",
                        result.got
                    );
                }
                result
            })
            .collect();
        // a check that is emitted at each of several steps has not passed them all
        // where the case stopped at a later one
        if let Err(stop) = end
            && results.iter().all(|r| r.verdict == Verdict::Passed)
            && let Some(last) = inner.emitted.last()
            && let Some(result) = results.iter_mut().find(|r| r.name == last.name)
        {
            (result.verdict, result.got) = match stop {
                Stop::Peer(why) => (result.failure(), format!("the case went no further: {why}")),
                Stop::Suite(why) => (Verdict::Inconclusive, format!("the suite failed: {why}")),
            };
        }
        for emitted in &inner.emitted {
            if !declared.iter().any(|c| c.name == emitted.name) {
                results.push(CheckResult {
                    name: emitted.name.to_owned(),
                    verdict: Verdict::Inconclusive,
                    got: "the case emits a check that it does not declare".into(),
                    ..CheckResult::default()
                });
            }
        }
        results
    }
}

/// Names behind which a list of numbers is bytes.
const BYTES: [&str; 4] = ["key: [", "value: [", "start: [", "end: Some(["];

/// Rust's notation of messages, with keys and values as people read them.
fn legible(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((at, name)) = BYTES
        .iter()
        .filter_map(|name| Some((rest.find(name)?, *name)))
        .min()
    {
        let from = at + name.len();
        let Some(length) = rest[from..].find(']') else {
            break;
        };
        let numbers = &rest[from..from + length];
        let bytes: Option<Vec<u8>> = match numbers {
            "" => Some(Vec::new()),
            list => list.split(", ").map(|n| n.parse().ok()).collect(),
        };
        out.push_str(&rest[..from - 1]);
        match bytes {
            Some(bytes) => out.push_str(&format!("\"{}\"", bytes.escape_ascii())),
            None => out.push_str(&format!("[{numbers}]")),
        }
        rest = &rest[from + length + 1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::super::case::{negative, positive};
    use super::*;

    #[test]
    fn keys_and_values_are_shown_as_people_read_them() {
        let record = "Record { key: [107, 0], flags: 0, value: [] }, [1, 2]";
        let shown = r#"Record { key: "k\x00", flags: 0, value: "" }, [1, 2]"#;
        assert_eq!(legible(record), shown);
        assert_eq!(legible("value: [a, b"), "value: [a, b");
        assert_eq!(legible("key: [x]"), "key: [x]");
    }

    const CHECKS: &[Check] = &[
        positive("works", &["A-001"], "it works"),
        negative("refused", "works", &["A-002"], "it is refused"),
    ];

    fn verdicts(recorder: &Recorder, end: Result<(), Stop>) -> Vec<Verdict> {
        let results = recorder.judge(CHECKS, &end);
        results.into_iter().map(|r| r.verdict).collect()
    }

    #[test]
    fn a_declared_check_that_was_not_emitted_fails() {
        let recorder = Recorder::default();
        recorder.check("works", true, "", "");
        assert_eq!(
            verdicts(&recorder, Ok(())),
            [Verdict::Passed, Verdict::Failed]
        );
    }

    /// Regression: a client passed a case that it did not come to the end of,
    /// since each check had been seen at an earlier step.
    #[test]
    fn whoever_stops_in_the_midst_has_not_passed_what_came_before() {
        let stopped = |stop: Stop| {
            let recorder = Recorder::default();
            recorder.check("works", true, "", "");
            recorder.check("refused", true, "", "");
            verdicts(&recorder, Err(stop))
        };
        assert_eq!(
            stopped(Stop::Peer("it hangs".into())),
            [Verdict::Passed, Verdict::Failed]
        );
        assert_eq!(
            stopped(Stop::Suite("no port".into())),
            [Verdict::Passed, Verdict::Inconclusive]
        );
    }

    #[test]
    fn a_refusal_without_its_positive_twin_proves_nothing() {
        let recorder = Recorder::default();
        recorder.check("works", false, "", "");
        recorder.check("refused", true, "", "");
        assert_eq!(
            verdicts(&recorder, Ok(())),
            [Verdict::Failed, Verdict::Inconclusive]
        );
    }

    #[test]
    fn one_failure_among_repetitions_fails_the_check() {
        let recorder = Recorder::default();
        recorder.check("works", true, "a", "a");
        recorder.check("works", false, "a", "b");
        recorder.check("works", true, "a", "a");
        recorder.check("refused", true, "", "");
        assert_eq!(verdicts(&recorder, Ok(()))[0], Verdict::Failed);
    }

    #[test]
    fn a_fault_of_the_suite_is_inconclusive_and_no_failure_of_the_peer() {
        let recorder = Recorder::default();
        let end = Err(Stop::Suite("no port".into()));
        assert_eq!(
            verdicts(&recorder, end),
            [Verdict::Inconclusive, Verdict::Inconclusive]
        );
    }

    #[test]
    fn only_a_requirement_that_binds_makes_a_failure() {
        const ADVICE: &[Check] = &[
            positive("advised", &["RECON-048"], ""),
            positive("both", &["RECON-048", "PUSH-001"], ""),
            negative("refused", "advised", &["PUSH-001"], ""),
        ];
        let recorder = Recorder::default();
        for check in ADVICE {
            recorder.check(check.name, check.name == "refused", "", "");
        }
        let verdicts = |recorder: &Recorder, end| -> Vec<Verdict> {
            let results = recorder.judge(ADVICE, &end);
            results.into_iter().map(|r| r.verdict).collect()
        };
        assert_eq!(
            verdicts(&recorder, Ok(())),
            [Verdict::NonStrict, Verdict::Failed, Verdict::Inconclusive]
        );
        // of a peer that hangs up, nobody knows what it would have done
        assert_eq!(
            verdicts(&Recorder::default(), Err(Stop::Peer("gone".into()))),
            [Verdict::Inconclusive, Verdict::Failed, Verdict::Failed]
        );
    }

    #[test]
    fn an_undeclared_check_is_the_suites_own_fault() {
        let recorder = Recorder::default();
        recorder.check("works", true, "", "");
        recorder.check("refused", true, "", "");
        recorder.check("surprise", true, "", "");
        assert_eq!(
            verdicts(&recorder, Ok(())),
            [Verdict::Passed, Verdict::Passed, Verdict::Inconclusive]
        );
    }
}
