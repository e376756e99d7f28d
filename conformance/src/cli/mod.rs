//! Options, commands and exit codes. Everything else is in the library.

mod baseline;
mod cases;
mod mutants;
mod output;
mod values;
mod verify;

use baseline::Baseline;
use clap::{Args, Parser, Subcommand, ValueEnum};
use gosync_conformance::client::{self, Launch, Listener};
use gosync_conformance::mutants::{Share, Side, list as list_mutants};
use gosync_conformance::net::Wire;
use gosync_conformance::process::Format;
use gosync_conformance::report::{self, Form};
use gosync_conformance::server::{self, SpacePrefix, TokenFile};
use gosync_conformance::suite::{
    Case, CaseResult, Choice, Declaration, Profile, RunResult, Verdict, glob, random_seed,
};
use gosync_conformance::vectors::{self, Unfit};
use output::{note, say, tell};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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

/// What a command comes to.
type Outcome = Result<ExitCode, Problem>;

/// Why a command found nothing out.
#[derive(Debug)]
enum Problem {
    /// Whoever called it has to call it otherwise.
    Usage(String),
    /// The suite, or what it works with, failed.
    Fault(String),
}

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
    #[arg(long, value_name = "CMD", value_parser = values::command, required_unless_present = "missing")]
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
    share: Share,
    /// How many mutants run at once.
    #[arg(long, value_name = "N", value_parser = values::jobs, default_value = "4")]
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
        value_parser = values::command,
        conflicts_with = "listen",
        required_unless_present = "listen"
    )]
    exec: Option<String>,
    /// Where drivers dial in over a WebSocket, as those in browsers do:
    /// IP:PORT; with port 0 a free one is taken, and told.
    #[arg(long, value_name = "ADDR", value_parser = values::address)]
    listen: Option<SocketAddr>,
    /// How the driver is spoken to.
    #[arg(long, value_enum, default_value = "protobuf")]
    format: FormatName,
    /// Run this deliberately broken variant of the driver's.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Transports, separated by commas, as far as the client has them.
    #[arg(long, value_delimiter = ',', default_value = "grpc,grpc-web")]
    transport: Vec<WireName>,
    /// Patience with one command, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = values::milliseconds, default_value = "20000")]
    timeout: Duration,
    /// How many cases run at once.
    #[arg(long, value_name = "N", value_parser = values::jobs, default_value = "4")]
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
    #[arg(long, value_name = "ID", value_parser = values::requirement)]
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
    #[arg(long, value_name = "FILE", value_parser = baseline::read)]
    baseline: Option<Baseline>,
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
    #[arg(
        long,
        value_parser = values::url,
        conflicts_with = "exec",
        required_unless_present = "exec"
    )]
    url: Option<String>,
    /// A command that starts a control adapter (conformance/proto, control.proto).
    #[arg(long, value_name = "CMD", value_parser = values::command)]
    exec: Option<String>,
    /// How the adapter is spoken to.
    #[arg(long, value_enum, default_value = "protobuf")]
    format: FormatName,
    /// Run this deliberately broken variant of the adapter's.
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    mutant: Option<String>,
    /// A file with a bearer token that may write spaces beginning with the
    /// space prefix. For --url.
    #[arg(long, value_name = "FILE", value_parser = values::token)]
    token_file: Option<TokenFile>,
    /// How the ids of the spaces that are used begin.
    #[arg(long, default_value_t)]
    space_prefix: SpacePrefix,
    /// Transports, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "grpc,grpc-web")]
    transport: Vec<WireName>,
    /// Patience with one call, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = values::milliseconds, default_value = "10000")]
    timeout: Duration,
    /// How many cases run at once.
    #[arg(long, value_name = "N", value_parser = values::jobs, default_value = "8")]
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormName {
    Text,
    Json,
    Junit,
    Html,
    Badge,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(Problem::Usage(text)) => {
            note!("error: {text}");
            ExitCode::from(USAGE)
        }
        Err(Problem::Fault(text)) => {
            note!("error: {text}");
            ExitCode::from(INCONCLUSIVE)
        }
    }
}

fn run(command: Command) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Problem::Fault(format!("no runtime: {e}")))?;
    let outcome = match command {
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
        Command::Mutants(options) => runtime.block_on(mutants::run(options)),
        Command::CrudeDriver { kind } => crude_driver(&kind),
    };
    runtime.shutdown_background();
    outcome
}

fn seed(given: Option<u64>) -> u64 {
    given.unwrap_or_else(random_seed)
}

/// Without repetitions, which would make a case run twice.
fn each<N: Copy, T: From<N> + PartialEq>(names: &[N]) -> Vec<T> {
    let mut values = Vec::new();
    for value in names.iter().map(|n| T::from(*n)) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

impl Selection {
    /// What is selected among these cases, over all transports. An option that
    /// says nothing about any of them is taken for a slip.
    fn choice(&self, among: &[Declaration], everything: Choice) -> Result<Choice, Problem> {
        let patterns = [("--only", &self.only), ("--skip", &self.skip)];
        for (option, patterns) in patterns {
            let strange = |p: &&String| !among.iter().any(|case| glob(p, case.name));
            if let Some(pattern) = patterns.iter().find(strange) {
                return Err(Problem::Usage(format!(
                    "{option} {pattern:?}: no case is called so; `gosync-conformance list` shows all"
                )));
            }
        }
        let cited = |id: &str| {
            let mut checks = among.iter().flat_map(|case| case.checks);
            checks.any(|check| check.cites.contains(&id))
        };
        if let Some(id) = self.requirement.iter().find(|id| !cited(id)) {
            return Err(Problem::Usage(format!(
                "--requirement {id}: no case guards it"
            )));
        }
        let choice = Choice {
            profiles: each(&self.profile),
            only: self.only.clone(),
            skip: self.skip.clone(),
            requirements: self.requirement.clone(),
            ..everything
        };
        match among.iter().any(|case| choice.picks(case)) {
            true => Ok(choice),
            false => Err(Problem::Usage(
                "no case is selected; `gosync-conformance list` shows all".into(),
            )),
        }
    }
}

impl Reporting {
    /// Finds out before the run whether its reports can be written.
    fn prepare(&self) -> Result<(), Problem> {
        if self.report.iter().all(|form| *form == FormName::Text) {
            return Ok(());
        }
        let out = &self.out;
        let probe = out.join(format!(".gosync-conformance-{}", std::process::id()));
        std::fs::create_dir_all(out)
            .and_then(|()| std::fs::write(&probe, ""))
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|e| {
                Problem::Usage(format!(
                    "--out {}: it is to be a folder that can be written to: {e}",
                    out.display()
                ))
            })
    }
}

/// That the adapter lists this mutant: one that knows none may run what it has
/// instead.
async fn see_that_it_is_listed(
    mutant: &str,
    side: Side,
    command: &str,
    format: Format,
) -> Result<(), Problem> {
    let listed = list_mutants(side, command, format)
        .await
        .map_err(Problem::Fault)?;
    match listed.iter().any(|m| m.name == mutant) {
        true => Ok(()),
        false => Err(Problem::Usage(format!(
            "--mutant {mutant:?}: {command:?} lists no such mutant; mutants are in test builds only"
        ))),
    }
}

async fn server_mode(options: ServerOptions) -> Outcome {
    let format = options.format.into();
    let everything = Choice {
        wires: each(&options.transport),
        seed: seed(options.reporting.seed),
        ..Choice::everything(options.timeout, options.jobs)
    };
    let among = declarations(&server::cases::all());
    let choice = options.selection.choice(&among, everything)?;
    options.reporting.prepare()?;
    if let (Some(mutant), Some(exec)) = (&options.mutant, &options.exec) {
        see_that_it_is_listed(mutant, Side::Server, exec, format).await?;
    }
    let plan = server::Plan {
        url: options.url,
        exec: options.exec,
        format,
        mutant: options.mutant.unwrap_or_default(),
        token: options.token_file,
        space_prefix: options.space_prefix,
        choice,
    };
    server::reach(&plan).await.map_err(Problem::Fault)?;
    let quiet = options.reporting.quiet;
    let run = server::run(&plan, |case| progress(case, quiet)).await;
    finish(run.map_err(Problem::Fault)?, &options.reporting)
}

async fn client_mode(options: ClientOptions) -> Outcome {
    let format = options.format.into();
    let everything = Choice {
        wires: each(&options.transport),
        seed: seed(options.reporting.seed),
        ..Choice::everything(options.timeout, options.jobs)
    };
    let among = declarations(&client::cases::all());
    let choice = options.selection.choice(&among, everything)?;
    options.reporting.prepare()?;
    if let (Some(mutant), Some(exec)) = (&options.mutant, &options.exec) {
        see_that_it_is_listed(mutant, Side::Client, exec, format).await?;
    }
    let launch = match (options.exec, options.listen) {
        (Some(command), _) => Launch::Exec { command, format },
        (None, Some(address)) => {
            let listener = Listener::bind(address)
                .await
                .map_err(|e| Problem::Usage(format!("cannot listen on {address}: {e}")))?;
            say!("listening on {}", listener.url())?;
            Launch::Listen(listener)
        }
        (None, None) => {
            return Err(Problem::Usage(
                "neither --exec nor --listen is given".into(),
            ));
        }
    };
    let plan = client::Plan {
        launch,
        mutant: options.mutant.unwrap_or_default(),
        choice,
    };
    let quiet = options.reporting.quiet;
    let run = client::run(&plan, |case| progress(case, quiet)).await;
    finish(run.map_err(Problem::Fault)?, &options.reporting)
}

fn declarations<C>(cases: &[&'static Case<C>]) -> Vec<Declaration> {
    cases.iter().map(|case| case.declaration()).collect()
}

fn check_vectors(files: &[PathBuf]) -> Outcome {
    let (mut vectors, mut wrong) = (0, 0);
    for file in files {
        let name = file.display().to_string();
        if name.ends_with("vectors.schema.json") {
            continue;
        }
        let text = std::fs::read_to_string(file)
            .map_err(|e| Problem::Usage(format!("{name} cannot be read: {e}")))?;
        match vectors::check(&name, &text) {
            Ok(n) => vectors += n,
            Err(Unfit::NoVectors(why)) => {
                return Err(Problem::Usage(format!(
                    "{name} is no file of vectors: {why}"
                )));
            }
            Err(Unfit::Disagrees(found)) => {
                wrong += found.len();
                found.iter().for_each(|d| note!("{d}"));
            }
        }
    }
    if wrong > 0 {
        note!("{wrong} vectors disagree with the oracle");
        return Ok(ExitCode::from(NOT_CONFORMANT));
    }
    if vectors == 0 {
        return Err(Problem::Usage("there is no vector in these files".into()));
    }
    say!("{vectors} vectors agree with the oracle")?;
    Ok(ExitCode::SUCCESS)
}

fn crude_driver(kind: &str) -> Outcome {
    let kind = client::crude::Crude::from_name(kind)
        .ok_or_else(|| Problem::Usage("no such crude driver".into()))?;
    client::crude::serve(kind, std::io::stdin().lock(), std::io::stdout().lock())
        .map_err(|e| Problem::Fault(e.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

fn progress(case: &CaseResult, quiet: bool) {
    if !quiet || case.verdict >= Verdict::NonStrict {
        note!("{}", report::case_line(case));
    }
}

fn finish(mut run: RunResult, reporting: &Reporting) -> Outcome {
    let stale = match &reporting.baseline {
        Some(baseline) => baseline.apply(&mut run),
        None => Vec::new(),
    };
    for form in &reporting.report {
        write(*form, &run, &reporting.out)?;
    }
    for line in &stale {
        note!("stale baseline: {line}");
    }
    match run.exit_code() {
        0 if reporting.strict && run.count(Verdict::NonStrict) > 0 => {
            note!("--strict: there are non-strict cases");
            Ok(ExitCode::from(NOT_CONFORMANT))
        }
        0 if !stale.is_empty() => Ok(ExitCode::from(STALE)),
        code => Ok(ExitCode::from(code)),
    }
}

fn write(form: FormName, run: &RunResult, out: &Path) -> Result<(), Problem> {
    let form = match form {
        FormName::Text => return tell(format_args!("{}", report::text(run))),
        FormName::Json => Form::Json,
        FormName::Junit => Form::Junit,
        FormName::Html => Form::Html,
        FormName::Badge if !report::earns_badge(run) => {
            note!("no badge: it takes a whole run in which every case ran and none failed");
            return Ok(());
        }
        FormName::Badge => Form::Badge,
    };
    report::write(form, run, out)
        .map_err(|e| Problem::Fault(format!("the report cannot be written: {e}")))
}
