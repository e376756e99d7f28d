//! Runs the cases of client mode. Each has a driver and a scripted
//! server of its own, so that cases cannot disturb each other.

use super::cases;
use super::context::Cx;
use super::driver::Driver;
use super::launch::Launch;
use crate::net::Wire;
use crate::peer::{Peer, Settings};
use crate::schema::driver::Transport;
use crate::suite::{
    Case, CaseResult, Choice, Need, Provenance, RunResult, Stop, Verdict, mutant_option,
    patience_option, seed_of_case, to_its_end,
};
use futures::StreamExt;
use std::time::{Duration, Instant};

/// Patience with one command, unless it is chosen.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(20);

/// What to run against whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where drivers come from.
    pub launch: Launch,
    /// Run this mutant of the driver's.
    pub mutant: String,
    /// Which cases run, and how.
    pub choice: Choice,
}

impl Plan {
    /// Everything.
    pub fn new(launch: Launch) -> Plan {
        Plan {
            launch,
            mutant: String::new(),
            choice: Choice::everything(DEFAULT_PATIENCE, 4),
        }
    }

    /// Whether fewer cases run than there are, or over fewer transports than the
    /// client speaks.
    fn filtered(&self, speaks: &[Wire]) -> bool {
        let left_out = |wire| !self.choice.wires.contains(wire);
        self.choice.filtered() || speaks.iter().any(left_out)
    }
}

/// Runs the plan. `progress` hears of each case when it is over.
///
/// # Errors
/// A sentence when nothing could be judged: the driver does not start.
pub async fn run(
    plan: &Plan,
    progress: impl Fn(&CaseResult) + Send + Sync,
) -> Result<RunResult, String> {
    let began = Instant::now();
    let probe = Driver::start(&plan.launch, &plan.mutant).await?;
    let offers = probe.offers();
    let subject = format!("{} {}", probe.info().name, probe.info().version);
    let speaks = probe.info().transports().filter_map(|t| match t {
        Transport::Grpc => Some(Wire::Grpc),
        Transport::GrpcWeb => Some(Wire::GrpcWeb),
        Transport::Unspecified => None,
    });
    let speaks: Vec<Wire> = speaks.collect();
    probe.kill().await;
    let mut wires = plan.choice.wires.clone();
    wires.retain(|w| speaks.contains(w));
    if wires.is_empty() {
        return Err("the client speaks none of the transports that are to be tried".into());
    }
    let jobs: Vec<(&'static Case<Cx>, Wire)> = wires
        .iter()
        .flat_map(|w| {
            cases::all()
                .into_iter()
                .filter(|c| plan.choice.selects(c))
                .map(|c| (c, *w))
        })
        .collect();
    let results: Vec<(usize, CaseResult)> = futures::stream::iter(jobs.into_iter().enumerate())
        .map(|(i, (case, wire))| {
            let (progress, offers) = (&progress, &offers);
            async move {
                let result = run_case(case, wire, plan, offers).await;
                progress(&result);
                (i, result)
            }
        })
        .buffer_unordered(plan.choice.jobs.max(1))
        .collect()
        .await;
    let mut results = results;
    results.sort_by_key(|(i, _)| *i);
    Ok(RunResult {
        provenance: Provenance::own(),
        mode: "client".into(),
        subject,
        target: plan.launch.options()
            + &mutant_option(&plan.mutant)
            + &patience_option(plan.choice.patience, DEFAULT_PATIENCE),
        seed: plan.choice.seed,
        filtered: plan.filtered(&speaks),
        cases: results.into_iter().map(|(_, r)| r).collect(),
        took: began.elapsed(),
    })
}

/// What a case takes at most with a client that does all in time, however long it
/// chooses to wait.
const LONGEST: Duration = Duration::from_secs(90);

async fn run_case(case: &'static Case<Cx>, wire: Wire, plan: &Plan, offers: &[Need]) -> CaseResult {
    let began = Instant::now();
    let mut result = CaseResult {
        name: case.name.to_owned(),
        wire: wire.name().to_owned(),
        profile: case.profile.name().to_owned(),
        about: case.about.to_owned(),
        verdict: Verdict::NotRun,
        reason: String::new(),
        known: false,
        checks: Vec::new(),
        violations: Vec::new(),
        notes: Vec::new(),
        exchanges: Vec::new(),
        took: Duration::ZERO,
    };
    let missing: Vec<&str> = case
        .needs
        .iter()
        .filter(|n| !offers.contains(n))
        .map(|n| n.name())
        .collect();
    if !missing.is_empty() {
        result.reason = format!("needs {}", missing.join(", "));
        return result;
    }
    let seed = seed_of_case(plan.choice.seed, case.name, wire);
    let started = async {
        let peer = Peer::start(Settings::default(), seed)
            .await
            .map_err(|e| format!("no scripted server: {e}"))?;
        let driver = Driver::start(&plan.launch, &plan.mutant).await?;
        Ok::<_, String>((peer, driver))
    };
    let (peer, driver) = match started.await {
        Ok(both) => both,
        Err(problem) => {
            result.verdict = Verdict::Inconclusive;
            result.reason = problem;
            return result;
        }
    };
    let cx = Cx::new(
        &plan.launch,
        &plan.mutant,
        wire,
        seed,
        driver,
        peer,
        plan.choice.patience,
    );
    let limit = (plan.choice.patience * 8).max(LONGEST);
    let end = to_its_end((case.run)(cx.clone()), limit).await;
    cx.close().await;
    result.checks = cx.recorder().judge(case.checks, &end);
    result.violations = cx.recorder().violations();
    result.notes = cx.recorder().notes();
    if let Err(Stop::Peer(why) | Stop::Suite(why)) = end {
        result.reason = why;
    }
    if result.conclusion() != Verdict::Passed && cx.seen().await.is_empty() {
        result.worth_nothing("the client made no call");
    }
    let left = cx.left_of_script().await;
    if !left.is_empty() {
        result.worth_nothing(&format!("no call met the script's {}", left.join(", ")));
    }
    result.verdict = result.conclusion();
    result.exchanges = cx.recorder().exchanges(result.verdict);
    result.took = began.elapsed();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Format;

    /// Regression: a client that speaks both earned a badge over one.
    #[test]
    fn a_run_over_fewer_transports_than_the_client_speaks_is_no_whole_run() {
        let mut plan = Plan::new(Launch::Exec {
            command: "driver".into(),
            format: Format::Protobuf,
        });
        assert!(!plan.filtered(&[Wire::Grpc, Wire::GrpcWeb]));
        plan.choice.wires = vec![Wire::GrpcWeb];
        assert!(plan.filtered(&[Wire::Grpc, Wire::GrpcWeb]));
        assert!(!plan.filtered(&[Wire::GrpcWeb]), "it speaks no other");
    }
}
