//! Options, commands and exit codes. Everything else is in the library.

mod cases;
mod verify;

use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::StreamExt;
use gosync_conformance::client::{self, Launch, Listener};
use gosync_conformance::mutants;
use gosync_conformance::net::Wire;
use gosync_conformance::process::Format;
use gosync_conformance::report::{self, Form};
use gosync_conformance::server;
use gosync_conformance::suite::{CaseResult, Choice, Profile, RunResult, Verdict, glob};
use gosync_conformance::vectors;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Also of a run that is to be strict and is not.
const NOT_CONFORMANT: u8 = 1;
/// Usage error, or no case selected.
const USAGE: u8 = 2;
/// The suite could not find out.
const INCONCLUSIVE: u8 = 3;
/// The baseline expects failures that did not happen.
const STALE: u8 = 4;

/// Does a GoSync server or client follow the specification? If not, which
/// sentence does it break, and what went over the wire?
///
/// Exit code: 0 conformant; 1 not, or not strict with --strict; 2 usage, or no case selected; 3
/// inconclusive, or the suite's own fault; 4 stale baseline.
#[derive(Parser)]
#[command(name = "gosync-conformance", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Judge a server.
    Server(ServerOptions),
    /// Judge a client, through a driver around it.
    Client(ClientOptions),
    /// Check vector files against the suite's oracle.
    Vectors {
        #[command(subcommand)]
        command: VectorsCommand,
    },
    /// Run the deliberately broken variants that an adapter lists, and see
    /// that each is caught.
    Mutants(MutantsOptions),
    /// Look at reports of earlier runs.
    Report {
        #[command(subcommand)]
        command: ReportCommand,
    },
    /// List the cases.
    List(Selection),
    /// Say what a case does, expects, and which requirements it guards.
    Explain {
        /// Name or pattern: push/repeated, 'push/*'.
        case: String,
    },
    /// A driver around no client, for the suite's own tests.
    #[command(hide = true)]
    CrudeDriver {
        /// hang-up, always-ok, always-error, silent, echo, random
        kind: String,
    },
}

#[derive(Subcommand)]
enum VectorsCommand {
    /// Check files: spec/vectors/*.json.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ReportCommand {
    /// Check that JSON reports show conformant runs, and are what this suite
    /// would have written.
    ///
    /// Looked at: the notation and the suite's version; that every case is
    /// there once for each transport, none filtered out and none excused by a
    /// baseline; that each case has the checks that this suite declares, and a
    /// verdict that follows from them; that nothing was left out for want of
    /// something; that the text of the requirements is this suite's.
    ///
    /// What it cannot prove: that the run took place, against whom, or that
    /// nobody wrote the file by hand. A report is no signature. Whoever doubts
    /// it runs the suite again, with the seed that the report names.
    ///
    /// Exit code: 0 every report shows a conformant, whole run; 1 one does
    /// not; 2 a file is no report; 3 another version of the suite wrote it.
    #[command(verbatim_doc_comment)]
    Verify {
        /// report.json of `--report json`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Args)]
struct MutantsOptions {
    /// The command of a control adapter or a driver.
    #[arg(long, value_name = "CMD", required_unless_present = "missing")]
    exec: Option<String>,
    /// What the adapter wraps.
    #[arg(long, value_enum)]
    side: SideName,
    /// How it is spoken to.
    #[arg(long, value_enum, default_value = "protobuf")]
    format: FormatName,
    /// Also write the table to FILE, as Markdown: under the side's heading,
    /// where FILE has such, and, of some mutants, beside the rows of others.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Run nothing: list what no mutant of the table guards, which are MUSTs
    /// that none breaks so that a check which cites them fails, and checks that
    /// fail for none. The exit code is 1 where there are any.
    #[arg(long, requires = "table")]
    missing: bool,
    /// Only each Nth mutant, from the Kth on; the first is the 0th.
    #[arg(long, value_name = "K/N", default_value = "0/1")]
    share: mutants::Share,
    /// How many mutants run at once.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Only mutants that match. Repeatable.
    #[arg(long, value_name = "GLOB")]
    only: Vec<String>,
    /// Replays the randomness of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum SideName {
    Server,
    Client,
}

#[derive(Args)]
struct ClientOptions {
    /// A command that starts a driver (conformance/proto, driver.proto).
    #[arg(
        long,
        value_name = "CMD",
        conflicts_with = "listen",
        required_unless_present = "listen"
    )]
    exec: Option<String>,
    /// Where drivers dial in over a WebSocket, as those in browsers do:
    /// HOST:PORT; with port 0 a free one is taken, and told.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// How the driver is spoken to.
    #[arg(long, value_enum, default_value = "protobuf")]
    format: FormatName,
    /// Run this deliberately broken variant of the driver's.
    #[arg(long, default_value = "", hide_default_value = true)]
    mutant: String,
    /// Transports, separated by commas, as far as the client has them.
    #[arg(long, value_delimiter = ',', default_value = "grpc,grpc-web")]
    transport: Vec<WireName>,
    /// Patience with one command, in milliseconds.
    #[arg(long, default_value_t = 20_000)]
    timeout: u64,
    /// How many cases run at once.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    reporting: Reporting,
}

#[derive(Args)]
struct Selection {
    /// Only cases that match: 'push/*'. Repeatable.
    #[arg(long, value_name = "GLOB")]
    only: Vec<String>,
    /// No cases that match. Repeatable.
    #[arg(long, value_name = "GLOB")]
    skip: Vec<String>,
    /// Only cases that guard this requirement: PUSH-001. Repeatable.
    #[arg(long, value_name = "ID")]
    requirement: Vec<String>,
    /// Profiles, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "core,heal,live,documents,hardened"
    )]
    profile: Vec<ProfileName>,
}

#[derive(Args)]
struct Reporting {
    /// Forms of report, separated by commas. All but text are files in --out.
    #[arg(long, value_delimiter = ',', default_value = "text")]
    report: Vec<FormName>,
    /// The folder for reports.
    #[arg(long, value_name = "DIR", default_value = "conformance-report")]
    out: PathBuf,
    /// A file that names, one a line, cases that are known to fail (NAME or
    /// NAME@TRANSPORT, then a reason). They do not count as failed; a case
    /// that passes although it stands there makes the baseline stale.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Replays the randomness of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Do not show cases as they pass.
    #[arg(long, short)]
    quiet: bool,
    /// Exit with 1 also where only a recommendation (SHOULD) is departed from.
    /// The report stays the same.
    #[arg(long)]
    strict: bool,
}

#[derive(Args)]
struct ServerOptions {
    /// Where the server is: http://HOST:PORT. Fresh spaces are used.
    #[arg(long, conflicts_with = "exec", required_unless_present = "exec")]
    url: Option<String>,
    /// A command that starts a control adapter (conformance/proto, control.proto).
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// How the adapter is spoken to.
    #[arg(long, value_enum, default_value = "protobuf")]
    format: FormatName,
    /// Run this deliberately broken variant of the adapter's.
    #[arg(long, default_value = "", hide_default_value = true)]
    mutant: String,
    /// A file with a bearer token that may write spaces beginning with the
    /// space prefix. For --url.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How the ids of the spaces that are used begin.
    #[arg(long, default_value = "conf-")]
    space_prefix: String,
    /// Transports, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "grpc,grpc-web")]
    transport: Vec<WireName>,
    /// Patience with one call, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
    /// How many cases run at once.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    reporting: Reporting,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileName {
    Core,
    Heal,
    Live,
    Documents,
    Hardened,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Profile {
        match name {
            ProfileName::Core => Profile::Core,
            ProfileName::Heal => Profile::Heal,
            ProfileName::Live => Profile::Live,
            ProfileName::Documents => Profile::Documents,
            ProfileName::Hardened => Profile::Hardened,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum WireName {
    Grpc,
    GrpcWeb,
}

impl From<WireName> for Wire {
    fn from(name: WireName) -> Wire {
        match name {
            WireName::Grpc => Wire::Grpc,
            WireName::GrpcWeb => Wire::GrpcWeb,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    Protobuf,
    Json,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Format {
        match name {
            FormatName::Protobuf => Format::Protobuf,
            FormatName::Json => Format::Json,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum FormName {
    Text,
    Json,
    Junit,
    Html,
    Badge,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return fault(&format!("no runtime: {e}")),
    };
    let code = match cli.command {
        Command::Server(options) => runtime.block_on(server_mode(options)),
        Command::List(selection) => cases::list(&selection),
        Command::Explain { case } => cases::explain(&case),
        Command::Client(options) => runtime.block_on(client_mode(options)),
        Command::Vectors {
            command: VectorsCommand::Check { files },
        } => check_vectors(&files),
        Command::Report {
            command: ReportCommand::Verify { files },
        } => verify::reports(&files),
        Command::Mutants(options) => runtime.block_on(mutants_mode(options)),
        Command::CrudeDriver { kind } => crude_driver(&kind),
    };
    runtime.shutdown_background();
    code
}

fn fault(text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(INCONCLUSIVE)
}

fn usage(text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(USAGE)
}

fn seed(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |d| d.as_nanos() as u64 & 0xffff_ffff)
    })
}

impl Selection {
    /// What is selected, over all transports.
    fn choice(&self, timeout: u64, jobs: usize) -> Choice {
        Choice {
            profiles: self.profile.iter().map(|p| (*p).into()).collect(),
            only: self.only.clone(),
            skip: self.skip.clone(),
            requirements: self.requirement.clone(),
            ..Choice::everything(Duration::from_millis(timeout), jobs)
        }
    }
}

async fn server_mode(options: ServerOptions) -> ExitCode {
    let token = match options.token_file.as_ref().map(std::fs::read_to_string) {
        None => None,
        Some(Ok(text)) => Some(text.trim().to_owned()),
        Some(Err(e)) => return usage(&format!("the token file cannot be read: {e}")),
    };
    let mut plan = server::Plan::new("");
    plan.url = options.url;
    plan.exec = options.exec;
    plan.format = options.format.into();
    plan.mutant = options.mutant;
    plan.token = token;
    plan.space_prefix = options.space_prefix;
    plan.choice = Choice {
        wires: options.transport.iter().map(|w| (*w).into()).collect(),
        seed: seed(options.reporting.seed),
        ..options.selection.choice(options.timeout, options.jobs)
    };
    if !server::cases::all().iter().any(|c| plan.choice.selects(c)) {
        return usage("no case is selected; `gosync-conformance list` shows all");
    }
    let quiet = options.reporting.quiet;
    let result = server::run(&plan, |case| progress(case, quiet)).await;
    match result {
        Ok(run) => finish(run, &options.reporting),
        Err(problem) => fault(&problem),
    }
}

async fn client_mode(options: ClientOptions) -> ExitCode {
    let launch = match (options.exec, options.listen) {
        (Some(command), _) => Launch::Exec {
            command,
            format: options.format.into(),
        },
        (None, Some(address)) => match Listener::bind(address).await {
            Ok(listener) => {
                println!("listening on {}", listener.url());
                Launch::Listen(listener)
            }
            Err(e) => return usage(&format!("cannot listen on {address}: {e}")),
        },
        (None, None) => return usage("neither --exec nor --listen is given"),
    };
    let mut plan = client::Plan::new(launch);
    plan.mutant = options.mutant;
    plan.choice = Choice {
        wires: options.transport.iter().map(|w| (*w).into()).collect(),
        seed: seed(options.reporting.seed),
        ..options.selection.choice(options.timeout, options.jobs)
    };
    if !client::cases::all().iter().any(|c| plan.choice.selects(c)) {
        return usage("no case is selected; `gosync-conformance list` shows all");
    }
    let quiet = options.reporting.quiet;
    match client::run(&plan, |case| progress(case, quiet)).await {
        Ok(run) => finish(run, &options.reporting),
        Err(problem) => fault(&problem),
    }
}

fn check_vectors(files: &[PathBuf]) -> ExitCode {
    let (mut vectors, mut wrong) = (0, 0);
    for file in files {
        let name = file.display().to_string();
        if name.ends_with("vectors.schema.json") {
            continue;
        }
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) => return usage(&format!("{name} cannot be read: {e}")),
        };
        match vectors::check(&name, &text) {
            Ok(n) => vectors += n,
            Err(found) => {
                wrong += found.len();
                found.iter().for_each(|d| eprintln!("{d}"));
            }
        }
    }
    if wrong > 0 {
        eprintln!("{wrong} vectors disagree with the oracle");
        return ExitCode::from(1);
    }
    if vectors == 0 {
        return usage("there is no vector in these files");
    }
    println!("{vectors} vectors agree with the oracle");
    ExitCode::SUCCESS
}

async fn mutants_mode(options: MutantsOptions) -> ExitCode {
    let side = match options.side {
        SideName::Server => mutants::Side::Server,
        SideName::Client => mutants::Side::Client,
    };
    let file = options.table.as_deref();
    let old = file.map(std::fs::read_to_string).and_then(Result::ok);
    let Some(exec) = options.exec.filter(|_| !options.missing) else {
        return match old {
            Some(text) => missing(&mutants::Table::read(side, &text).missing(side)),
            None => usage("the table cannot be read"),
        };
    };
    let old = old.unwrap_or_default();
    let format = options.format.into();
    let listed = match mutants::list(side, &exec, format).await {
        Ok(listed) => listed,
        Err(problem) => return fault(&problem),
    };
    let named: Vec<_> = listed
        .iter()
        .filter(|m| options.only.is_empty() || options.only.iter().any(|p| glob(p, &m.name)))
        .cloned()
        .collect();
    let chosen = options.share.take(named);
    if chosen.is_empty() {
        return usage("the adapter lists no such mutant; mutants are in test builds only");
    }
    let seed = seed(options.seed);
    let (mut bad, total) = (0, chosen.len());
    let mut over = Vec::new();
    let mut rows = futures::stream::iter(chosen)
        .map(|mutant| mutants::run(side, &exec, format, seed, mutant))
        .buffered(options.jobs.max(1));
    while let Some(row) = rows.next().await {
        let mark = if row.good() { "ok  " } else { "BAD " };
        bad += usize::from(!row.good());
        println!(
            "{mark} {:<34} {:<20} {}",
            row.mutant.name,
            row.mutant.breaks.join(","),
            row.fate
        );
        over.push(row);
    }
    let table = mutants::Table::read(side, &old).with(&listed, &over);
    // a part of them leaves most without one
    let mut code = ExitCode::SUCCESS;
    if over.len() == listed.len() {
        code = missing(&table.missing(side));
    }
    if let Some(file) = file
        && let Err(e) = std::fs::write(file, table.write_into(side, &old))
    {
        return fault(&format!("{}: {e}", file.display()));
    }
    println!(
        "{} of {total} mutants are as they must be   (seed {seed})",
        total - bad
    );
    match bad {
        0 => code,
        _ => ExitCode::from(NOT_CONFORMANT),
    }
}

/// Says what no mutant guards.
fn missing(missing: &mutants::Missing) -> ExitCode {
    for id in &missing.requirements {
        println!("no mutant fails a check for {id}");
    }
    for name in &missing.checks {
        println!("no mutant fails {name}");
    }
    println!(
        "{} requirements and {} checks without a mutant",
        missing.requirements.len(),
        missing.checks.len()
    );
    match missing.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_CONFORMANT),
    }
}

fn crude_driver(kind: &str) -> ExitCode {
    match client::crude::Crude::from_name(kind) {
        None => usage("no such crude driver"),
        Some(kind) => {
            match client::crude::serve(kind, std::io::stdin().lock(), std::io::stdout().lock()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fault(&e.to_string()),
            }
        }
    }
}

fn progress(case: &CaseResult, quiet: bool) {
    if !quiet || case.verdict >= Verdict::NonStrict {
        eprintln!("{}", report::case_line(case));
    }
}

fn finish(mut run: RunResult, reporting: &Reporting) -> ExitCode {
    let mut stale = Vec::new();
    if let Some(file) = &reporting.baseline {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) => return usage(&format!("the baseline cannot be read: {e}")),
        };
        run.filtered = true;
        stale = apply_baseline(&mut run, &text);
    }
    for form in &reporting.report {
        let form = match form {
            FormName::Text => Form::Text,
            FormName::Json => Form::Json,
            FormName::Junit => Form::Junit,
            FormName::Html => Form::Html,
            FormName::Badge if !report::earns_badge(&run) => {
                eprintln!("no badge: it takes a whole run in which every case ran and none failed");
                continue;
            }
            FormName::Badge => Form::Badge,
        };
        if let Err(e) = report::write(form, &run, &reporting.out) {
            return fault(&format!("the report cannot be written: {e}"));
        }
    }
    match run.exit_code() {
        0 if reporting.strict && run.count(Verdict::NonStrict) > 0 => {
            eprintln!("--strict: there are non-strict cases");
            ExitCode::from(NOT_CONFORMANT)
        }
        0 if !stale.is_empty() => {
            for line in stale {
                eprintln!("stale baseline: {line}");
            }
            ExitCode::from(STALE)
        }
        code => ExitCode::from(code),
    }
}

/// Marks known failures as not run, and says which lines of the baseline do
/// not fit any more.
fn apply_baseline(run: &mut RunResult, text: &str) -> Vec<String> {
    let mut stale = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (case, wire) = name.split_once('@').unwrap_or((name, "*"));
        let mut hit = false;
        for result in &mut run.cases {
            if glob(case, &result.name)
                && glob(wire, &result.wire)
                && result.verdict == Verdict::Failed
            {
                hit = true;
                result.verdict = Verdict::NotRun;
                result.reason = format!("known to fail: {}", reason.trim());
            }
        }
        if !hit {
            stale.push(format!("{name} does not fail"));
        }
    }
    stale
}
