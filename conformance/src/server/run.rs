//! Runs the cases of server mode: side by side on one server where they do not
//! touch the server itself, one after the other on others where they do.

use super::adapter::Adapter;
use super::context::Cx;
use super::target::{SpacePrefix, Target, Tokens};
use super::{Space, cases};
use crate::net::{Call, Endpoint, Wire, client};
use crate::process::Format;
use crate::schema::driver as wire;
use crate::schema::v1;
use crate::suite::{
    Case, CaseResult, Choice, Need, Provenance, RunResult, Stop, Verdict, mutant_option, option,
    patience_option, seed_of_case, to_its_end,
};
use futures::StreamExt;
use futures::future::{join, join_all};
use prost::Message;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many servers there are besides the first, for cases that touch theirs.
const MORE_SERVERS: usize = 2;

/// Patience with one call, unless it is chosen.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// A bearer token, and where it is from: the command that runs a case again names
/// the file.
#[derive(Clone)]
pub struct TokenFile {
    /// What stands in a header.
    pub token: String,
    /// As it was given.
    pub path: String,
}

impl std::fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a token from {:?}", self.path)
    }
}

/// What to run against whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// "http://127.0.0.1:8080"; or see `exec`.
    pub url: Option<String>,
    /// The control adapter's command.
    pub exec: Option<String>,
    /// How the adapter is spoken to.
    pub format: Format,
    /// Run this mutant of the adapter's.
    pub mutant: String,
    /// For a server at a URL.
    pub token: Option<TokenFile>,
    /// Spaces begin so.
    pub space_prefix: SpacePrefix,
    /// Which cases run, and how.
    pub choice: Choice,
}

impl Plan {
    /// Everything, over both transports, against a URL.
    pub fn new(url: impl Into<String>) -> Plan {
        Plan {
            url: Some(url.into()),
            exec: None,
            format: Format::Protobuf,
            mutant: String::new(),
            token: None,
            space_prefix: SpacePrefix::default(),
            choice: Choice::everything(DEFAULT_PATIENCE, 8),
        }
    }

    /// Whether fewer cases run than there are, or over fewer transports.
    fn filtered(&self) -> bool {
        let left_out = |wire| !self.choice.wires.contains(wire);
        self.choice.filtered() || [Wire::Grpc, Wire::GrpcWeb].iter().any(left_out)
    }
}

/// Whether a gRPC server answers at the plan's URL, over any of its
/// transports: against nobody, every case would fail. [`run`] does not ask, so
/// that the suite can judge crude servers as well.
///
/// # Errors
/// A sentence that says what is there instead.
pub async fn reach(plan: &Plan) -> Result<(), String> {
    let Some(url) = plan.url.as_ref().filter(|_| plan.exec.is_none()) else {
        return Ok(());
    };
    let endpoint = Endpoint::parse(url).map_err(|e| format!("{url}: {e}"))?;
    let patience = plan.choice.patience;
    client::reach(&endpoint, patience)
        .await
        .map_err(|e| format!("nobody answers at {url}: is the server running? ({e})"))?;
    let hello = v1::HelloRequest {
        versions: vec![1],
        space: format!("{}reach", plan.space_prefix),
        client: "gosync-conformance".into(),
        ..v1::HelloRequest::default()
    };
    let mut call = Call::new("Hello", &hello.encode_to_vec(), patience);
    let token = plan.token.iter().map(|t| &t.token);
    call.metadata
        .extend(token.map(|t| ("authorization".to_owned(), format!("Bearer {t}"))));
    let calls = plan.choice.wires.iter().map(async |wire| {
        let reply = client::call(&endpoint, *wire, &call).await;
        (wire.name(), reply)
    });
    let replies = join_all(calls).await;
    if replies.iter().any(|(_, reply)| reply.is_grpc()) {
        return Ok(());
    }
    let seen: Vec<String> = replies
        .iter()
        .map(|(wire, reply)| format!("{wire}: {}", reply.summary()))
        .collect();
    Err(format!(
        "no gRPC server answers at {url}: is it the right port? ({})",
        seen.join("; ")
    ))
}

/// Runs the plan. `progress` hears of each case when it is over.
///
/// # Errors
/// A sentence when nothing could be judged at all: the adapter does not start,
/// the URL is none.
pub async fn run(
    plan: &Plan,
    progress: impl Fn(&CaseResult) + Send + Sync,
) -> Result<RunResult, String> {
    let began = Instant::now();
    let target = Arc::new(connect(plan).await?);
    let mut jobs: Vec<(&'static Case<Cx>, Wire)> = Vec::new();
    for wire in &plan.choice.wires {
        jobs.extend(
            cases::all()
                .into_iter()
                .filter(|c| plan.choice.selects(c))
                .map(|c| (c, *wire)),
        );
    }
    let (alone, together): (Vec<_>, Vec<_>) = jobs
        .into_iter()
        .enumerate()
        .partition(|(_, (case, _))| touches_server(case));
    let (waiting, working): (Vec<_>, Vec<_>) = together
        .into_iter()
        .partition(|(_, (case, _))| cases::waits(case));
    let judge = async |i: usize, case, wire, target: &Arc<Target>| {
        let result = run_case(case, wire, target.clone(), plan.choice.seed).await;
        progress(&result);
        (i, result)
    };
    let free = usize::from(waiting.is_empty() && working.is_empty());
    let more = alone.len().saturating_sub(free).min(MORE_SERVERS);
    let left = Mutex::new(alone.into_iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let in_turn = async |target: &Arc<Target>| {
        let mut results = Vec::new();
        while let Some((i, (case, wire))) = next() {
            results.push(judge(i, case, wire, target).await);
        }
        results
    };
    let side_by_side = async {
        let judge = |(i, (case, wire))| judge(i, case, wire, &target);
        let waiting = join_all(waiting.into_iter().map(judge));
        let working = futures::stream::iter(working)
            .map(judge)
            .buffer_unordered(plan.choice.jobs.max(1));
        let (mut results, worked) = join(waiting, working.collect::<Vec<_>>()).await;
        results.extend(worked);
        results.extend(in_turn(&target).await);
        results
    };
    let elsewhere = (0..more).map(|_| async {
        // an adapter that cannot do with a second of its kind has the first
        match connect(plan).await {
            Ok(target) => in_turn(&Arc::new(target)).await,
            Err(_) => Vec::new(),
        }
    });
    let (mut results, others) = join(side_by_side, join_all(elsewhere)).await;
    results.extend(others.into_iter().flatten());
    results.sort_by_key(|(i, _)| *i);
    Ok(RunResult {
        provenance: Provenance::own(),
        mode: "server".into(),
        subject: target.name.clone(),
        target: target_options(plan),
        seed: plan.choice.seed,
        filtered: plan.filtered(),
        cases: results.into_iter().map(|(_, r)| r).collect(),
        took: began.elapsed(),
    })
}

/// The options that name the server, and how it is to be spoken to.
fn target_options(plan: &Plan) -> String {
    let mut options = match (&plan.exec, &plan.url) {
        (Some(command), _) => {
            let format = plan.format.option();
            option("--exec", command) + format + &mutant_option(&plan.mutant)
        }
        (None, url) => option("--url", url.as_deref().unwrap_or_default()),
    };
    if let Some(file) = &plan.token {
        options = options + " " + &option("--token-file", &file.path);
    }
    if plan.space_prefix != SpacePrefix::default() {
        options = options + " " + &option("--space-prefix", &plan.space_prefix.to_string());
    }
    options + &patience_option(plan.choice.patience, DEFAULT_PATIENCE)
}

/// Cases that stop, move or compact the server would disturb others.
fn touches_server(case: &Case<Cx>) -> bool {
    case.needs.iter().any(|n| {
        matches!(
            n,
            Need::Stop
                | Need::Kill
                | Need::Clock
                | Need::Backup
                | Need::Wipe
                | Need::Revoke
                | Need::FailWrites
        )
    })
}

/// Finds the server, starts it if need be, and asks it who it is.
async fn connect(plan: &Plan) -> Result<Target, String> {
    let mut start = wire::StartServer {
        mutant: plan.mutant.clone(),
        ..wire::StartServer::default()
    };
    let mut tokens = Tokens {
        full: plan.token.as_ref().map(|t| t.token.clone()),
        space_prefix: plan.space_prefix.clone(),
    };
    let mut offers = Vec::new();
    if plan.choice.wires.contains(&Wire::GrpcWeb) {
        offers.push(Need::GrpcWeb);
    }
    let (adapter, url, name) = match (&plan.exec, &plan.url) {
        (Some(command), _) => {
            let adapter = Adapter::start(command, plan.format).await?;
            offers.extend(adapter.offers());
            if offers.contains(&Need::Tokens) {
                start.authenticate = true;
                let token = wire::MintToken {
                    space: format!("{}*", plan.space_prefix),
                    write: true,
                    ..wire::MintToken::default()
                };
                tokens.full = Some(adapter.mint(token).await.map_err(words)?);
            }
            // short, so that heartbeat cases take no time
            start.limits.insert("heartbeat_interval_ms".into(), 500);
            start.limits.insert("watchdog_ms".into(), 2_000);
            let url = adapter.start_server(start.clone()).await.map_err(words)?;
            let info = adapter.info();
            let name = format!("{} {}", info.name, info.version);
            (Some(Arc::new(adapter)), url, name)
        }
        (None, Some(url)) => (None, url.clone(), url.clone()),
        (None, None) => return Err("neither --url nor --exec is given".into()),
    };
    let endpoint = match adapter {
        Some(_) => {
            let endpoint = told(&url)?;
            client::reach(&endpoint, plan.choice.patience)
                .await
                .map_err(|e| format!("the adapter says that its server is at {url}: {e}"))?;
            endpoint
        }
        None => Endpoint::parse(&url).map_err(|e| format!("{url}: {e}"))?,
    };
    let mut target = Target {
        endpoint: Mutex::new(endpoint),
        tokens,
        adapter,
        start,
        patience: plan.choice.patience,
        limits: v1::Limits {
            // the floors, until Hello tells more
            max_message_bytes: 1 << 20,
            max_value_bytes: 64 << 10,
            max_push_records: 100,
            max_ranges: 16,
            max_reconcile_entries: 1_000,
            max_response_bytes: 64 << 10,
            max_clock_skew_ms: 1_000,
            max_streams_per_connection: 8,
            heartbeat_interval_ms: 1_000,
            watchdog_ms: 3_000,
            ..v1::Limits::default()
        },
        features: Vec::new(),
        offers,
        name,
    };
    probe(&mut target, plan).await;
    Ok(target)
}

/// Where the adapter says that its server is.
pub fn told(url: &str) -> Result<Endpoint, String> {
    Endpoint::parse(url).map_err(|e| format!("the adapter says that its server is at {url:?}: {e}"))
}

/// A first Hello tells limits and features. A server that does not answer it
/// is judged by the cases.
async fn probe(target: &mut Target, plan: &Plan) {
    let probe = Target {
        endpoint: Mutex::new(target.endpoint()),
        tokens: target.tokens.clone(),
        adapter: None,
        start: wire::StartServer::default(),
        patience: target.patience,
        limits: target.limits,
        features: Vec::new(),
        offers: Vec::new(),
        name: String::new(),
    };
    let wire = plan.choice.wires.first().copied().unwrap_or(Wire::Grpc);
    let cx = Cx::new(Arc::new(probe), wire, plan.choice.seed);
    let space = Space::fresh(&cx);
    if let Some(answer) = cx.hello(&space.hello_request(vec![])).await.message {
        if let Some(limits) = answer.limits {
            target.limits = limits;
        }
        target.features = answer.features;
    }
    for (feature, need) in [
        (v1::Feature::Live, Need::Live),
        (v1::Feature::Reconcile, Need::Reconcile),
    ] {
        if target.features.contains(&(feature as i32)) {
            target.offers.push(need);
        }
    }
}

fn words(stop: Stop) -> String {
    match stop {
        Stop::Peer(text) | Stop::Suite(text) => text,
    }
}

async fn run_case(
    case: &'static Case<Cx>,
    wire: Wire,
    target: Arc<Target>,
    seed: u64,
) -> CaseResult {
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
        .filter(|n| !target.meets(**n))
        .map(|n| n.name())
        .collect();
    if !missing.is_empty() {
        result.reason = format!("needs {}", missing.join(", "));
        return result;
    }
    let patience = target.patience;
    let cx = Cx::new(target, wire, seed_of_case(seed, case.name, wire));
    let end = to_its_end((case.run)(cx.clone()), patience * 12).await;
    cx.close().await;
    result.checks = cx.recorder().judge(case.checks, &end);
    result.violations = cx.recorder().violations();
    result.notes = cx.recorder().notes();
    if let Err(Stop::Peer(why) | Stop::Suite(why)) = end {
        result.reason = why;
    }
    result.verdict = result.conclusion();
    result.exchanges = cx.recorder().exchanges(result.verdict);
    result.took = began.elapsed();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_that_is_named_twice_stands_for_no_other() {
        let mut plan = Plan::new("http://127.0.0.1:9");
        assert!(!plan.filtered());
        plan.choice.wires = vec![Wire::Grpc, Wire::Grpc];
        assert!(plan.filtered());
    }
}
