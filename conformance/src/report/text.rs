//! The report for people.

use crate::suite::{CaseResult, CheckResult, Message, RunResult, Verdict, requirement};
use std::fmt::Write;

/// How many lines of a decoded message are shown.
const LINES: usize = 30;

/// One line for a case, as soon as it is over.
pub fn case_line(case: &CaseResult) -> String {
    let mark = match case.verdict {
        Verdict::Passed => "ok  ",
        Verdict::NotRun => "-   ",
        Verdict::NonStrict => "~   ",
        Verdict::Inconclusive => "?   ",
        Verdict::Failed => "FAIL",
    };
    let why = if case.reason.is_empty() {
        String::new()
    } else {
        format!("  {}", first_line(&case.reason))
    };
    format!(
        "{mark} {:<34} {:<8} {:>6} ms{why}",
        case.name,
        case.wire,
        case.took.as_millis()
    )
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(110).collect()
}

/// The last lines: counts and the verdict.
pub fn summary(run: &RunResult) -> String {
    let mut text = format!(
        "{} cases of {} in {:.1} s: {} passed, {} non-strict, {} failed, {} inconclusive, {} not run   (seed {})\n",
        run.cases.len(),
        run.subject,
        run.took.as_secs_f32(),
        run.count(Verdict::Passed),
        run.count(Verdict::NonStrict),
        run.count(Verdict::Failed),
        run.count(Verdict::Inconclusive),
        run.count(Verdict::NotRun),
        run.seed,
    );
    let verdict = match run.exit_code() {
        0 if run.excuses() => "NOTHING FAILED but what the baseline excuses",
        0 if run.filtered => "CONFORMANT in the cases that were selected",
        0 if run.count(Verdict::NotRun) > 0 => "CONFORMANT in the cases that could run",
        0 => "CONFORMANT",
        1 => "NOT CONFORMANT",
        2 => "NOTHING WAS RUN",
        _ => "INCONCLUSIVE",
    };
    let _ = writeln!(text, "{verdict}");
    text
}

/// The whole report: what went wrong in detail, then the summary.
pub fn report(run: &RunResult) -> String {
    let mut text = String::new();
    for case in &run.cases {
        if case.verdict >= Verdict::NonStrict {
            text.push_str(&details(case, run));
        }
    }
    text.push('\n');
    text.push_str(&summary(run));
    text
}

/// All that somebody needs who knows nothing of the case.
pub fn details(case: &CaseResult, run: &RunResult) -> String {
    let mut all = String::new();
    let text = &mut all;
    let _ = writeln!(
        text,
        "\n──── {} over {}: {}\n     {}",
        case.name,
        case.wire,
        case.verdict.word(),
        case.about
    );
    if !case.reason.is_empty() {
        let _ = writeln!(text, "     ended early: {}", case.reason);
    }
    for check in &case.checks {
        if check.verdict != Verdict::Passed {
            failed_check(text, check);
        }
    }
    for violation in &case.violations {
        let _ = writeln!(text, "  ✗ seen by a monitor: {violation}");
        for id in super::cited(violation) {
            cited(text, id);
        }
    }
    for note in &case.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    let shown = case.exchanges.len().min(8);
    if shown < case.exchanges.len() {
        let _ = writeln!(
            text,
            "  the last {shown} of {} exchanges (the HTML and JSON reports have more):",
            case.exchanges.len()
        );
    }
    for exchange in &case.exchanges[case.exchanges.len() - shown..] {
        let _ = writeln!(
            text,
            "  {:>6} ms  {} {}",
            exchange.at.as_millis(),
            exchange.method,
            exchange
                .metadata
                .iter()
                .map(|(n, v)| format!("{n}: {v}"))
                .collect::<Vec<_>>()
                .join(", ")
        );
        block(text, "→", &exchange.request);
        for answer in exchange.answers.iter().take(3) {
            block(text, "←", answer);
        }
        if exchange.answers.len() > 3 {
            let _ = writeln!(text, "      ← … {} messages in all", exchange.answers.len());
        }
        let _ = writeln!(text, "      ← {}", exchange.end);
    }
    let _ = writeln!(text, "  again: {}", super::again(run, case));
    all
}

fn cited(text: &mut String, id: &str) {
    let _ = match requirement(id) {
        Some(r) => writeln!(text, "      [{id}] {} ({})", r.text, r.chapter),
        None => writeln!(text, "      [{id}]"),
    };
}

fn failed_check(text: &mut String, check: &CheckResult) {
    let mark = match check.verdict {
        Verdict::Failed => "✗",
        Verdict::NonStrict => "~",
        _ => "?",
    };
    let _ = writeln!(text, "  {mark} {}: {}", check.name, check.expects);
    for id in &check.cites {
        cited(text, id);
    }
    if !check.expected.is_empty() {
        let _ = writeln!(text, "      expected  {}", clip(&check.expected));
    }
    let _ = writeln!(text, "      got       {}", clip(&check.got));
}

fn clip(text: &str) -> String {
    const MOST: usize = 600;
    if text.chars().count() <= MOST {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(MOST).collect::<String>())
    }
}

fn block(text: &mut String, arrow: &str, message: &Message) {
    let lines: Vec<&str> = message.text.lines().collect();
    for (i, line) in lines.iter().take(LINES).enumerate() {
        let lead = if i == 0 { arrow } else { " " };
        let _ = writeln!(text, "      {lead} {}", clip(line));
    }
    if lines.len() > LINES {
        let _ = writeln!(text, "        … {} lines in all", lines.len());
    }
    if lines.is_empty() {
        let _ = writeln!(text, "      {arrow} (empty)");
    }
    if !message.hex.is_empty() {
        let _ = writeln!(text, "        hex {}", clip(&message.hex));
    }
}
