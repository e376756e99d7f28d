//! The report for the browser: one page that needs nothing else.

use super::escape;
use crate::suite::{CaseResult, CheckResult, Exchange, Message, RunResult, Verdict, requirement};
use std::fmt::Write;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --dim: #888; --ok: #2a9d4a; --bad: #d1382f; --odd: #c98a00; --soft: #2a7fbd }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } .sub { color: var(--dim); margin: .2rem 0 1.5rem }
.verdict { display: inline-block; padding: .3rem .8rem; border-radius: .4rem; color: #fff; font-weight: 600 }
.bar { display: flex; height: .7rem; border-radius: .35rem; overflow: hidden; margin: 1rem 0 }
.passed { color: var(--ok) } .failed { color: var(--bad) } .inconclusive { color: var(--odd) } .non-strict { color: var(--soft) } .not-run { color: var(--dim) }
.b-passed { background: var(--ok) } .b-failed { background: var(--bad) } .b-inconclusive { background: var(--odd) } .b-non-strict { background: var(--soft) } .b-not-run { background: #8886 }
details { border-top: 1px solid var(--line); padding: .35rem 0 } details details { margin-left: 1rem }
summary { cursor: pointer; display: flex; gap: .7rem } summary .name { font-family: ui-monospace, monospace; flex: 1 }
summary::before { content: '▸'; color: var(--dim) } details[open] > summary::before { content: '▾' }
summary .wire, .dim { color: var(--dim) }
.check { margin: .5rem 0 .5rem 1rem; padding-left: .7rem; border-left: 3px solid var(--line) } .check.passed { color: inherit }
.check.failed { border-color: var(--bad); color: inherit } .check.inconclusive { border-color: var(--odd); color: inherit } .check.non-strict { border-color: var(--soft); color: inherit }
blockquote { margin: .2rem 0; color: var(--dim); font-style: italic }
pre { background: #8881; padding: .6rem; border-radius: .3rem; overflow-x: auto; font-size: 12.5px; margin: .3rem 0; white-space: pre-wrap; word-break: break-word }
table { border-collapse: collapse } td { padding: .1rem .8rem .1rem 0; vertical-align: top }
";

/// The page.
pub fn report(run: &RunResult) -> String {
    let title = format!("GoSync conformance: {}", escape(&run.subject));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p class=\"sub\">{} mode, {} cases, {:.1} s, seed {}</p>\n",
        escape(&run.mode),
        run.cases.len(),
        run.took.as_secs_f32(),
        run.seed
    );
    let (word, class) = match run.exit_code() {
        0 if run.excuses() => ("nothing failed but what the baseline excuses", "passed"),
        0 if run.filtered || run.count(Verdict::NotRun) > 0 => {
            ("conformant in what was run", "passed")
        }
        0 => ("conformant", "passed"),
        1 => ("not conformant", "failed"),
        2 => ("nothing was run", "not-run"),
        _ => ("inconclusive", "inconclusive"),
    };
    let _ = writeln!(
        page,
        "<span class=\"verdict b-{class}\">{word}</span>\n<div class=\"bar\">"
    );
    let all = [
        Verdict::Passed,
        Verdict::NonStrict,
        Verdict::Failed,
        Verdict::Inconclusive,
        Verdict::NotRun,
    ];
    for verdict in all {
        let n = run.count(verdict);
        let _ = writeln!(
            page,
            "<div class=\"b-{}\" style=\"flex:{n}\"></div>",
            class_of(verdict)
        );
    }
    page.push_str("</div><p>");
    for verdict in all {
        let _ = write!(
            page,
            "<span class=\"{}\">{} {}</span> &nbsp; ",
            class_of(verdict),
            run.count(verdict),
            verdict.word()
        );
    }
    page.push_str("</p>\n");
    let mut order: Vec<&CaseResult> = run.cases.iter().collect();
    order.sort_by_key(|c| std::cmp::Reverse(c.verdict));
    for result in order {
        case(&mut page, run, result);
    }
    page.push_str("</body></html>\n");
    page
}

fn class_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::NotRun => "not-run",
        Verdict::NonStrict => "non-strict",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Failed => "failed",
    }
}

fn case(page: &mut String, run: &RunResult, case: &CaseResult) {
    let open = if case.verdict == Verdict::Failed {
        " open"
    } else {
        ""
    };
    let _ = writeln!(
        page,
        "<details{open}><summary><span class=\"{}\">{}</span><span class=\"name\">{}</span><span class=\"wire\">{} · {} ms</span></summary>\n<p>{}</p>",
        class_of(case.verdict),
        case.verdict.word(),
        escape(&case.name),
        escape(&case.wire),
        case.took.as_millis(),
        escape(&case.about)
    );
    if !case.reason.is_empty() {
        let _ = writeln!(page, "<p class=\"dim\">{}</p>", escape(&case.reason));
    }
    for result in &case.checks {
        check(page, result);
    }
    for violation in &case.violations {
        let _ = writeln!(
            page,
            "<div class=\"check failed\"><b>monitor</b>: {}",
            escape(violation)
        );
        for id in super::cited(violation) {
            cited(page, id);
        }
        page.push_str("</div>\n");
    }
    for note in &case.notes {
        let _ = writeln!(page, "<p class=\"dim\">note: {}</p>", escape(note));
    }
    if case.verdict >= Verdict::NonStrict {
        let _ = writeln!(page, "<pre>{}</pre>", escape(&super::again(run, case)));
    }
    for seen in &case.exchanges {
        exchange(page, seen);
    }
    page.push_str("</details>\n");
}

fn check(page: &mut String, check: &CheckResult) {
    let class = class_of(check.verdict);
    let _ = writeln!(
        page,
        "<div class=\"check {class}\"><b>{}</b> <span class=\"{class}\">{}</span> — {}",
        escape(&check.name),
        check.verdict.word(),
        escape(&check.expects)
    );
    for id in &check.cites {
        cited(page, id);
    }
    if check.verdict != Verdict::Passed {
        let _ = writeln!(
            page,
            "<table><tr><td class=\"dim\">expected</td><td>{}</td></tr><tr><td class=\"dim\">got</td><td>{}</td></tr></table>",
            escape(&check.expected),
            escape(&check.got)
        );
    }
    page.push_str("</div>\n");
}

fn cited(page: &mut String, id: &str) {
    let text = requirement(id).map_or("", |r| r.text);
    let _ = writeln!(
        page,
        "<blockquote>[{}] {}</blockquote>",
        escape(id),
        escape(text)
    );
}

fn exchange(page: &mut String, exchange: &Exchange) {
    let _ = writeln!(
        page,
        "<details><summary><span class=\"name\">{}</span><span class=\"wire\">{} ms · {}</span></summary>",
        escape(&exchange.method),
        exchange.at.as_millis(),
        escape(&exchange.end)
    );
    for (name, value) in &exchange.metadata {
        let _ = writeln!(
            page,
            "<div class=\"dim\">{}: {}</div>",
            escape(name),
            escape(value)
        );
    }
    message(page, "→", &exchange.request);
    for answer in &exchange.answers {
        message(page, "←", answer);
    }
    page.push_str("</details>\n");
}

fn message(page: &mut String, arrow: &str, message: &Message) {
    let kind = escape(&message.kind);
    if message.hex.is_empty() {
        let _ = writeln!(page, "<div class=\"dim\">{arrow} {kind} (empty)</div>");
    } else {
        let _ = writeln!(
            page,
            "<div class=\"dim\">{arrow} {kind}</div><pre>{}</pre><pre class=\"dim\">{}</pre>",
            escape(&message.text),
            escape(&message.hex)
        );
    }
}
