//! The command line: what it accepts and what its help says. What a command
//! does stands in [`crate::commands`].

use crate::config::{LogFormat, Override};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

const ABOUT: &str = "The GoSync reference server.

Replicas (apps, browsers, services) keep their data themselves and meet here: they push their \
changes, watch those of others, and compare fingerprints until both sides hold the same. One port \
speaks gRPC and gRPC-web; the data lives in one SQLite file.";

const EXAMPLES: &str = "Examples:
  Try it, on this machine only, without tokens:
    gosync-server serve

  For others: make a token, then listen on every address with TLS
    gosync-server token mint --tokens tokens.toml --name alice --space team-1 --access write
    gosync-server serve --listen 0.0.0.0:443 --tokens tokens.toml \\
        --tls-cert cert.pem --tls-key key.pem --allow-origin https://app.example.com

  Back up while it runs, and go back to the backup (replicas notice and re-offer what is newer)
    gosync-server backup --db sqlite:gosync.db backup.db
    gosync-server restore --db sqlite:gosync.db --overwrite backup.db

Settings come from the defaults, then the TOML file (--config), then environment variables and
flags, then --set. `gosync-server config check` shows the result.";

/// The arguments of the program.
#[derive(Parser, Debug)]
#[command(name = "gosync-server", version, about = ABOUT, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve replicas until SIGTERM or SIGINT
    ///
    /// Prints one line, `listening on http://ADDRESS`, to standard output when it is ready, and logs
    /// to standard error. On SIGTERM it stops accepting, tells every open stream to come back later,
    /// and exits within ten seconds. Killing it at any time loses nothing that it acknowledged.
    Serve(ServeArgs),
    /// Make tokens, and look at those there are
    Token {
        /// What to do.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Look after the database
    #[command(flatten)]
    Data(DataCommand),
    /// Look at the settings
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Ask a running server whether it takes calls; exits with 0 or 1
    Healthcheck {
        /// The server's address, or that of its metrics listener
        #[arg(
            long,
            value_name = "ADDR",
            env = "GOSYNC_LISTEN",
            default_value = "127.0.0.1:4000"
        )]
        address: SocketAddr,
    },
}

/// The commands that look after a database.
#[derive(Subcommand, Debug)]
pub enum DataCommand {
    /// Copy the database to a file while a server may be using it
    ///
    /// The copy is consistent: one state between two commits.
    Backup {
        /// Where the data is.
        #[command(flatten)]
        db: DbArgs,
        /// The file to write; it must not exist yet
        to: PathBuf,
    },
    /// Put a backup in the database's place, as a new epoch
    ///
    /// Stop the server first. Replicas notice that history was cut back and offer again what the
    /// backup lacks, so that what they hold is not lost.
    Restore {
        /// Where the data shall be.
        #[command(flatten)]
        db: DbArgs,
        /// The backup
        from: PathBuf,
        /// Replace a database that is there
        #[arg(long)]
        overwrite: bool,
    },
    /// Remove tombstones older than the retention
    ///
    /// A running server does this by itself (history.compact_every). Replicas that were away for
    /// longer than the retention reconcile when they return.
    Compact {
        /// Where the data is.
        #[command(flatten)]
        db: DbArgs,
        /// Only this space
        #[arg(long)]
        space: Option<String>,
        /// Keep tombstones that arrived within this time
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "90d")]
        retention: std::time::Duration,
    },
    /// Re-hash every stored record, rebuild the fingerprints, compare
    ///
    /// Compares the fingerprint over the stored bytes with the one over the kept digests, and with
    /// what a server answers from its tree. May run beside a server.
    ///
    /// Exits with 1 when something is damaged. With --repair damaged content is set aside, so that
    /// replicas that still hold it bring it back.
    Verify {
        /// Where the data is.
        #[command(flatten)]
        db: DbArgs,
        /// Set damaged content aside
        #[arg(long)]
        repair: bool,
    },
    /// Show the spaces: records, bytes, head, horizon, fingerprint
    Inspect {
        /// Where the data is.
        #[command(flatten)]
        db: DbArgs,
        /// Only this space, with its keys
        #[arg(long)]
        space: Option<String>,
        /// Show at most so many keys
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

/// Where the data is.
#[derive(Args, Debug)]
pub struct DbArgs {
    /// The database: sqlite:PATH
    #[arg(
        long,
        value_name = "DB",
        env = "GOSYNC_DB",
        default_value = "sqlite:gosync.db"
    )]
    pub db: crate::config::Database,
}

/// Arguments of `serve` and `config`.
#[derive(Args, Debug, Default)]
pub struct ServeArgs {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE", env = "GOSYNC_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:4000]
    #[arg(long, value_name = "ADDR", env = "GOSYNC_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Database: sqlite:PATH, or memory: [default: sqlite:gosync.db]
    #[arg(long, value_name = "DB", env = "GOSYNC_DB")]
    pub db: Option<crate::config::Database>,
    /// Token file; without it everybody may do everything, on loopback addresses only
    #[arg(long, value_name = "FILE", env = "GOSYNC_TOKENS")]
    pub tokens: Option<PathBuf>,
    /// Serve the files of this folder too
    #[arg(long = "static", value_name = "DIR", env = "GOSYNC_STATIC")]
    pub static_files: Option<PathBuf>,
    /// TLS certificate chain (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "GOSYNC_TLS_CERT",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// TLS private key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "GOSYNC_TLS_KEY",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// Serve without TLS to others than this machine, because a proxy in front speaks TLS
    #[arg(long, env = "GOSYNC_BEHIND_PROXY")]
    pub behind_proxy: bool,
    /// Origin whose pages may call this server, or *; repeatable
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "GOSYNC_ALLOW_ORIGIN",
        value_delimiter = ','
    )]
    pub allow_origin: Vec<String>,
    /// Serve /metrics, /healthz and /readyz on this loopback address
    #[arg(long, value_name = "ADDR", env = "GOSYNC_METRICS")]
    pub metrics: Option<SocketAddr>,
    /// Let clients ask for the schema (gRPC reflection)
    #[arg(long, env = "GOSYNC_REFLECTION")]
    pub reflection: bool,
    /// Log lines as text or JSON [default: auto]
    #[arg(long, value_name = "FORMAT", env = "GOSYNC_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Which log lines: info, debug, gosync_server=debug,info [default: info]
    #[arg(long, value_name = "FILTER", env = "GOSYNC_LOG")]
    pub log: Option<String>,
    /// Any other setting, by its key in the file: --set limits.max_value_bytes=65536
    #[arg(
        long,
        value_name = "KEY=VALUE",
        env = "GOSYNC_SET",
        value_delimiter = ';'
    )]
    pub set: Vec<Override>,
    /// Also write the ready line's URL to this file when the server is ready
    #[arg(long, value_name = "FILE", env = "GOSYNC_READY_FILE")]
    pub ready_file: Option<PathBuf>,
}

impl ServeArgs {
    /// The flags as overrides of the file, in the order in which they apply.
    pub fn overrides(&self) -> Vec<Override> {
        let path = |p: &PathBuf| p.to_string_lossy().into_owned();
        let named = [
            ("listen", self.listen.map(|a| a.to_string())),
            ("db", self.db.as_ref().map(ToString::to_string)),
            ("auth.tokens", self.tokens.as_ref().map(path)),
            ("static", self.static_files.as_ref().map(path)),
            ("metrics.listen", self.metrics.map(|a| a.to_string())),
            ("log.filter", self.log.clone()),
            (
                "log.format",
                self.log_format
                    .and_then(|f| f.to_possible_value())
                    .map(|v| v.get_name().to_owned()),
            ),
        ];
        let mut all: Vec<Override> = named
            .into_iter()
            .filter_map(|(key, value)| Some(Override::new(key, value?)))
            .collect();
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let mut tls = toml::Table::new();
            tls.insert("cert".into(), path(cert).into());
            tls.insert("key".into(), path(key).into());
            all.push(Override::new("tls", tls));
        }
        if !self.allow_origin.is_empty() {
            all.push(Override::new(
                "cors.allow_origins",
                self.allow_origin.clone(),
            ));
        }
        for (key, on) in [
            ("reflection", self.reflection),
            ("behind_proxy", self.behind_proxy),
        ] {
            if on {
                all.push(Override::new(key, true));
            }
        }
        all.extend(self.set.iter().cloned());
        all
    }
}

/// `token …`
#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    /// Make a token and print it, once
    ///
    /// The file gets its SHA-256 only. A running server takes the new token within a second.
    Mint {
        /// Token file; made if need be
        #[arg(
            long,
            value_name = "FILE",
            env = "GOSYNC_TOKENS",
            default_value = "tokens.toml"
        )]
        tokens: PathBuf,
        /// Whose token it is, for logs
        #[arg(long)]
        name: String,
        /// Space, or the beginning of space ids followed by *; repeatable
        #[arg(long, required = true)]
        space: Vec<String>,
        /// Only keys that begin with this text
        #[arg(long, default_value = "", conflicts_with = "prefix_hex")]
        prefix: String,
        /// Only keys that begin with these bytes
        #[arg(long, value_name = "HEX")]
        prefix_hex: Option<String>,
        /// What it allows; write includes read
        #[arg(long, value_enum, default_value_t = AccessArg::Write)]
        access: AccessArg,
        /// How long it is valid, such as 12h or 90d; without it: until revoked
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
    },
    /// Take tokens out of the file
    ///
    /// A running server notices within a second and ends their streams.
    Revoke {
        /// Token file
        #[arg(
            long,
            value_name = "FILE",
            env = "GOSYNC_TOKENS",
            default_value = "tokens.toml"
        )]
        tokens: PathBuf,
        /// Every token of this name
        #[arg(long)]
        name: String,
    },
    /// List the tokens of a file: names, grants, expiry
    List {
        /// Token file
        #[arg(
            long,
            value_name = "FILE",
            env = "GOSYNC_TOKENS",
            default_value = "tokens.toml"
        )]
        tokens: PathBuf,
    },
}

/// What a token allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AccessArg {
    /// Hello, Watch, Reconcile and Snapshot.
    Read,
    /// Those and Push.
    Write,
}

/// `config …`
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Check the settings and print those in force, as TOML
    Check(ServeArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let cli = Cli::try_parse_from([
            "gosync-server",
            "serve",
            "--listen",
            "0.0.0.0:9",
            "--db",
            "sqlite:/x/y.db",
            "--tokens",
            "t.toml",
            "--allow-origin",
            "https://a.example,https://b.example",
            "--log-format",
            "json",
            "--set",
            "limits.heartbeat_interval_ms=100",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
        ])
        .unwrap();
        let Command::Serve(args) = cli.command else {
            panic!("not serve")
        };
        let config = Config::load(None, &args.overrides()).unwrap();
        assert_eq!(config.listen.port(), 9);
        assert_eq!(config.limits.heartbeat_interval_ms, 100);
        assert_eq!(config.cors.allow_origins.len(), 2);
        assert_eq!(config.log.format, LogFormat::Json);
        assert!(config.tls.is_some());
    }
}
