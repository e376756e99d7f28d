//! The server's settings: one TOML file, overridden by flags. Every limit is a
//! key. Knows neither sockets nor databases: it checks what can be checked on
//! paper.

use crate::listen::ConnectionConfig;
use gosync_proto::limits::Limits;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `serve` needs to know.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gRPC, gRPC-web and static files are served. Port 0 takes a free
    /// one.
    pub listen: SocketAddr,
    /// The database: `sqlite:PATH`, or `memory:` for one that vanishes with
    /// the process.
    pub db: Database,
    /// A folder of files to serve beside the calls.
    #[serde(rename = "static")]
    pub static_files: Option<PathBuf>,
    /// Who may do what.
    pub auth: AuthConfig,
    /// Whether a proxy in front of the server speaks TLS: then it may listen
    /// without TLS where others can reach it.
    pub behind_proxy: bool,
    /// TLS on the port.
    pub tls: Option<TlsConfig>,
    /// What browsers on other origins may do.
    pub cors: CorsConfig,
    /// What replicas may ask for; names and units as in `gosync.v1.Limits`.
    #[serde(deserialize_with = "limits")]
    pub limits: Limits,
    /// Bounds of each TCP connection.
    pub connections: ConnectionConfig,
    /// Watch streams.
    pub watch: WatchConfig,
    /// Removal of old tombstones.
    pub history: HistoryConfig,
    /// Logs.
    pub log: LogConfig,
    /// Metrics and probes on a listener of their own.
    pub metrics: MetricsConfig,
    /// Whether the schema can be asked for by gRPC reflection.
    pub reflection: bool,
    /// The longest that a unary call may take, from its first byte to the
    /// answer; `grpc-timeout` may shorten it.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Duration,
    /// How long a stopping server waits for calls to end.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 4000)),
            db: Database::Sqlite("gosync.db".into()),
            static_files: None,
            auth: AuthConfig::default(),
            behind_proxy: false,
            tls: None,
            cors: CorsConfig::default(),
            limits: Limits::default(),
            connections: ConnectionConfig::default(),
            watch: WatchConfig::default(),
            history: HistoryConfig::default(),
            log: LogConfig::default(),
            metrics: MetricsConfig::default(),
            reflection: false,
            request_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(8),
        }
    }
}

/// Which database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// Nothing durable; for trials and tests.
    Memory,
}

impl std::str::FromStr for Database {
    type Err = String;

    fn from_str(s: &str) -> Result<Database, String> {
        match s.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Database::Sqlite(path.into())),
            Some(("memory", "")) => Ok(Database::Memory),
            _ => Err(format!(
                "{s:?} names no database; write sqlite:PATH, for example sqlite:gosync.db"
            )),
        }
    }
}

impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Database::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Database::Memory => f.write_str("memory:"),
        }
    }
}

impl<'de> Deserialize<'de> for Database {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Database, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// `[auth]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The file that `gosync-server token mint` writes. Without it everybody
    /// may do everything, which is allowed on loopback addresses only.
    pub tokens: Option<PathBuf>,
    /// From an address that shows more wrong tokens than these, twice as many
    /// after a pause, no call is let in until time has passed. 0: there is no
    /// limit; nor is there one behind a proxy, which is to have its own.
    pub wrong_tokens_per_minute: u64,
}

impl AuthConfig {
    /// The values in force, by key.
    fn entries(&self) -> BTreeMap<&'static str, toml::Value> {
        let path = |path: &PathBuf| path.display().to_string();
        let tokens = self.tokens.as_ref().map(|p| ("tokens", path(p).into()));
        let wrong = i64::try_from(self.wrong_tokens_per_minute).unwrap_or(i64::MAX);
        let wrong = ("wrong_tokens_per_minute", wrong.into());
        tokens.into_iter().chain([wrong]).collect()
    }
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig {
            tokens: None,
            wrong_tokens_per_minute: 60,
        }
    }
}

/// `[tls]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// `[cors]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsConfig {
    /// Origins (`https://app.example.com`) whose pages may call this server,
    /// or `*` for all. Pages on loopback origins and pages that the server
    /// itself serves always may.
    pub allow_origins: Vec<String>,
}

/// `[watch]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchConfig {
    /// A reader that does not take a message for so long is sent away with
    /// SLOW_READER.
    #[serde(deserialize_with = "duration")]
    pub slow_reader_timeout: Duration,
}

impl Default for WatchConfig {
    fn default() -> WatchConfig {
        WatchConfig {
            slow_reader_timeout: Duration::from_secs(10),
        }
    }
}

/// `[history]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Tombstones are kept for at least so long after they arrived. Keep
    /// backups younger than this.
    #[serde(deserialize_with = "duration")]
    pub retention: Duration,
    /// How often a running server removes older ones; zero is never.
    #[serde(deserialize_with = "duration")]
    pub compact_every: Duration,
}

impl Default for HistoryConfig {
    fn default() -> HistoryConfig {
        HistoryConfig {
            retention: Duration::from_secs(90 * 24 * 3600),
            compact_every: Duration::from_secs(3600),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which are written, as `tracing` filters are: `info`, `debug`,
    /// `gosync_server=debug,info`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            format: LogFormat::Auto,
            filter: "info".into(),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Coloured on a terminal, plain otherwise.
    Auto,
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[metrics]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where `/metrics` (Prometheus), `/healthz` and `/readyz` are served;
    /// a loopback address. Absent: nowhere.
    pub listen: Option<SocketAddr>,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {path}: {error}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The text does not say what a configuration says.
    #[error("{source_name}: {problem}")]
    Bad {
        /// A file or a flag.
        source_name: String,
        /// What is wrong and where.
        problem: String,
    },
    /// A value that cannot work.
    #[error("{key} {problem}")]
    Value {
        /// The setting.
        key: &'static str,
        /// The rest of a sentence that begins with the setting, and what to
        /// do.
        problem: String,
    },
}

/// One `KEY=VALUE` that overrides the file: a dotted key and a TOML value, or
/// plain text for a string.
#[derive(Clone, PartialEq, Debug)]
pub struct Override {
    key: String,
    value: toml::Value,
}

impl Override {
    /// Sets a key to a value.
    pub fn new(key: &str, value: impl Into<toml::Value>) -> Override {
        Override {
            key: key.to_owned(),
            value: value.into(),
        }
    }
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(s: &str) -> Result<Override, String> {
        let (key, text) = s
            .split_once('=')
            .ok_or_else(|| format!("{s:?} has no '='; write limits.max_value_bytes=65536"))?;
        let value = toml::from_str::<toml::Table>(&format!("v = {text}"))
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| toml::Value::String(text.to_owned()));
        Ok(Override {
            key: key.trim().to_owned(),
            value,
        })
    }
}

impl Config {
    /// Reads the file, if there is one, applies the overrides in order, and
    /// checks the result.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, line and key.
    pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Config, ConfigError> {
        let mut table = toml::Table::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
                path: path.to_owned(),
                error,
            })?;
            let bad = |problem: String| ConfigError::Bad {
                source_name: path.display().to_string(),
                problem,
            };
            // typed first: its errors know lines
            toml::from_str::<Config>(&text).map_err(|e| bad(with_hint(&e.to_string())))?;
            table = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        }
        for o in overrides {
            let bad = |problem: String| ConfigError::Bad {
                source_name: format!("setting {}", o.key),
                problem,
            };
            insert(&mut table, &o.key, o.value.clone()).map_err(bad)?;
            Config::deserialize(toml::Value::Table(table.clone()))
                .map_err(|e| bad(with_hint(&e.to_string())))?;
        }
        let config =
            Config::deserialize(toml::Value::Table(table)).map_err(|e| ConfigError::Bad {
                source_name: "configuration".into(),
                problem: e.to_string(),
            })?;
        config.check()?;
        Ok(config)
    }

    /// Whether callers need a token.
    pub fn open_to_all(&self) -> bool {
        self.auth.tokens.is_none()
    }

    /// Refuses settings that contradict each other or the protocol.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, problem: String| Err(ConfigError::Value { key, problem });
        if self.open_to_all() && !self.listen.ip().is_loopback() {
            return bad(
                "listen",
                format!(
                    "is {}, which others can reach, and no tokens are asked for. Make some with `gosync-server token mint --tokens tokens.toml …` and start with `--tokens tokens.toml`, or listen on 127.0.0.1",
                    self.listen
                ),
            );
        }
        if self.tls.is_none() && !self.behind_proxy && !self.listen.ip().is_loopback() {
            return bad(
                "listen",
                format!(
                    "is {}, which others can reach, without TLS: tokens would travel in the clear. Start with `--tls-cert cert.pem --tls-key key.pem`, or with --behind-proxy where a proxy in front speaks TLS",
                    self.listen
                ),
            );
        }
        if let Some(addr) = self.metrics.listen.filter(|a| !a.ip().is_loopback()) {
            return bad(
                "metrics.listen",
                format!("is {addr}; metrics are served on loopback addresses only"),
            );
        }
        if let Some((name, wrong)) = self.limits.out_of_bounds().first() {
            return bad("limits", format!("set {name} {wrong}"));
        }
        if self.limits.watchdog_ms < self.limits.heartbeat_interval_ms.saturating_mul(2) {
            return bad(
                "limits.watchdog_ms",
                format!(
                    "is {}, less than two heartbeats of {} ms: replicas would give healthy streams up",
                    self.limits.watchdog_ms, self.limits.heartbeat_interval_ms
                ),
            );
        }
        for (key, value) in [
            ("request_timeout", self.request_timeout),
            ("drain_timeout", self.drain_timeout),
            ("watch.slow_reader_timeout", self.watch.slow_reader_timeout),
        ] {
            some_time(key, value)?;
        }
        a_year_at_most("history.compact_every", self.history.compact_every)?;
        for origin in &self.cors.allow_origins {
            let ok = origin == "*"
                || origin
                    .split_once("://")
                    .is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
            if !ok {
                return bad(
                    "cors.allow_origins",
                    format!(
                        "names {origin:?}; an origin is scheme://host[:port] without a path, or *"
                    ),
                );
            }
        }
        self.connections.check()
    }

    /// The settings in force, as TOML.
    pub fn to_toml(&self) -> String {
        #[derive(Serialize)]
        struct Shown<'a> {
            listen: String,
            db: String,
            #[serde(rename = "static")]
            static_files: Option<&'a Path>,
            reflection: bool,
            behind_proxy: bool,
            request_timeout: String,
            drain_timeout: String,
            auth: BTreeMap<&'static str, toml::Value>,
            tls: Option<BTreeMap<&'a str, &'a Path>>,
            cors: BTreeMap<&'a str, &'a [String]>,
            limits: BTreeMap<&'static str, u64>,
            connections: BTreeMap<&'static str, toml::Value>,
            watch: BTreeMap<&'static str, String>,
            history: BTreeMap<&'static str, String>,
            log: BTreeMap<&'static str, String>,
            metrics: BTreeMap<&'static str, String>,
        }
        let time = |d: Duration| humantime::format_duration(d).to_string();
        let shown = Shown {
            listen: self.listen.to_string(),
            db: self.db.to_string(),
            static_files: self.static_files.as_deref(),
            reflection: self.reflection,
            behind_proxy: self.behind_proxy,
            request_timeout: time(self.request_timeout),
            drain_timeout: time(self.drain_timeout),
            auth: self.auth.entries(),
            tls: self
                .tls
                .as_ref()
                .map(|t| BTreeMap::from([("cert", &*t.cert), ("key", &*t.key)])),
            cors: BTreeMap::from([("allow_origins", &*self.cors.allow_origins)]),
            limits: self.limits.entries().into_iter().collect(),
            connections: self.connections.entries(),
            watch: BTreeMap::from([("slow_reader_timeout", time(self.watch.slow_reader_timeout))]),
            history: BTreeMap::from([
                ("retention", time(self.history.retention)),
                ("compact_every", time(self.history.compact_every)),
            ]),
            log: BTreeMap::from([
                ("format", format!("{:?}", self.log.format).to_lowercase()),
                ("filter", self.log.filter.clone()),
            ]),
            metrics: self
                .metrics
                .listen
                .iter()
                .map(|a| ("listen", a.to_string()))
                .collect(),
        };
        toml::to_string(&shown).unwrap_or_else(|e| format!("# cannot be shown: {e}\n"))
    }
}

/// Puts `value` at a dotted key, making tables on the way.
fn insert(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), String> {
    let Some((head, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    table
        .entry(head)
        .or_insert_with(|| toml::Table::new().into())
        .as_table_mut()
        .ok_or_else(|| format!("{head} is a value, not a table"))
        .and_then(|inner| insert(inner, rest, value))
}

/// Adds "did you mean" to serde's message about an unknown field.
fn with_hint(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let hint = match (message.contains("unknown field"), quoted.split_first()) {
        (true, Some((unknown, known))) => closest(unknown, known.iter().copied()),
        _ => None,
    };
    match hint {
        Some(hint) => format!("{}\ndid you mean `{hint}`?", message.trim_end()),
        None => message.trim_end().to_owned(),
    }
}

fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::jaro_winkler(word, k), k))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// A duration as people write it: `"250ms"`, `"10s"`, `"90d"`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    humantime::parse_duration(&text).map_err(|e| {
        serde::de::Error::custom(format!("{text:?} is not a duration such as \"10s\": {e}"))
    })
}

/// Refuses a time to wait that is none, or too long.
pub(crate) fn some_time(key: &'static str, value: Duration) -> Result<(), ConfigError> {
    if value.is_zero() {
        let problem = "is zero; give it some time, such as \"10s\"".into();
        return Err(ConfigError::Value { key, problem });
    }
    a_year_at_most(key, value)
}

/// Refuses a time to wait that is too long: the system's clock, to which it is
/// added, has an end.
pub(crate) fn a_year_at_most(key: &'static str, value: Duration) -> Result<(), ConfigError> {
    // as humantime reads "1y"
    const YEAR: Duration = Duration::from_secs(31_557_600);
    if value > YEAR {
        let problem = format!(
            "is {}; give it a year (\"1y\") at most",
            humantime::format_duration(value)
        );
        return Err(ConfigError::Value { key, problem });
    }
    Ok(())
}

fn limits<'de, D: Deserializer<'de>>(d: D) -> Result<Limits, D::Error> {
    use serde::de::Error;
    let mut limits = Limits::default();
    for (name, value) in BTreeMap::<String, u64>::deserialize(d)? {
        if !limits.set(&name, value) {
            let known = limits.entries();
            let names = || known.iter().map(|(n, _)| *n);
            let hint = closest(&name, names()).map_or_else(
                || format!("the limits are {}", names().collect::<Vec<_>>().join(", ")),
                |n| format!("did you mean `{n}`?"),
            );
            return Err(D::Error::custom(format!(
                "there is no limit `{name}`; {hint}"
            )));
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, overrides: &[&str]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gosync.toml");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<Override> = overrides.iter().map(|o| o.parse().unwrap()).collect();
        Config::load(Some(&path), &overrides).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:4000");
        assert_eq!(config.db, Database::Sqlite("gosync.db".into()));
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn overrides_win_over_the_file() {
        let config = load(
            "listen = '127.0.0.1:1'\n[limits]\nmax_push_records = 500\n",
            &[
                "limits.max_push_records=700",
                "listen=127.0.0.1:2",
                "db=memory:",
            ],
        )
        .unwrap();
        assert_eq!(config.limits.max_push_records, 700);
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.db, Database::Memory);
    }

    #[test]
    fn unknown_settings_are_refused_with_the_place_and_a_hint() {
        let e = load("\nlisten = '127.0.0.1:1'\nstatik = 'x'\n", &[]).unwrap_err();
        assert!(
            e.contains("line 3") && e.contains("did you mean `static`?"),
            "{e}"
        );
        let e = load("[limits]\nmax_push_record = 5\n", &[]).unwrap_err();
        assert!(e.contains("did you mean `max_push_records`?"), "{e}");
        let e = load("", &["watch.slow=5"]).unwrap_err();
        assert!(
            e.contains("setting watch.slow") && e.contains("slow_reader_timeout"),
            "{e}"
        );
    }

    #[test]
    fn serving_everybody_is_possible_on_loopback_only() {
        for addr in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1"] {
            let e = load(&format!("listen = '{addr}'"), &[]).unwrap_err();
            assert!(e.contains("token mint"), "{e}");
            let listen = format!("listen = '{addr}'");
            let e = load(&listen, &["auth.tokens=t.toml"]).unwrap_err();
            assert!(e.contains("--tls-cert"), "{e}");
            load(&listen, &["auth.tokens=t.toml", "behind_proxy=true"]).unwrap();
            load(&listen, &["auth.tokens=t.toml", "tls={cert='c',key='k'}"]).unwrap();
        }
        load("listen = '[::1]:1'", &[]).unwrap();
        load("[metrics]\nlisten = '0.0.0.0:9'", &[]).unwrap_err();
    }

    #[test]
    fn values_that_break_promises_are_refused() {
        let e = load("[limits]\nmax_value_bytes = 5", &[]).unwrap_err();
        assert!(e.contains("max_value_bytes below 65536"), "{e}");
        load("[limits]\nheartbeat_interval_ms = 30000", &[]).unwrap_err();
        load("request_timeout = '0s'", &[]).unwrap_err();
        load("[cors]\nallow_origins = ['example.com']", &[]).unwrap_err();
        let e = load("drain_timeout = 8", &[]).unwrap_err();
        assert!(e.contains("line 1"), "{e}");
    }

    #[test]
    fn values_that_nothing_has_room_for_are_refused_and_those_at_the_edge_are_not() {
        for (key, most, too_much) in [
            (
                "connections.max",
                "2305843009213693951",
                "2305843009213693952",
            ),
            ("connections.send_buffer_bytes", "4294967295", "4294967296"),
            ("connections.first_byte_timeout", "1y", "580000000000y"),
            ("connections.header_timeout", "1y", "580000000000y"),
            ("connections.keepalive_interval", "1y", "580000000000y"),
            ("connections.keepalive_timeout", "1y", "1y 1ms"),
            ("connections.max_age", "1y", "1y 1ms"),
            ("connections.max_age_grace", "1y", "1y 1ms"),
            ("request_timeout", "1y", "1y 1ms"),
            ("drain_timeout", "1y", "1y 1ms"),
            ("watch.slow_reader_timeout", "1y", "1y 1ms"),
            ("history.compact_every", "1y", "1y 1ms"),
        ] {
            load("", &[&format!("{key}={most}")]).unwrap_or_else(|e| panic!("{e}"));
            let e = load("", &[&format!("{key}={too_much}")]).unwrap_err();
            assert!(e.starts_with(&format!("{key} is ")), "{e}");
        }
        load("history.retention = '580000000000y'", &[]).unwrap();
    }

    #[test]
    fn what_is_shown_can_be_loaded_again() {
        let shown = load("[cors]\nallow_origins = ['https://a.example']", &[])
            .unwrap()
            .to_toml();
        let again = load(&shown, &[]).unwrap_or_else(|e| panic!("{e}\n{shown}"));
        assert_eq!(again.to_toml(), shown);
    }
}
