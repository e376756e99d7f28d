//! The reference server behind `control.proto`: what each command does to its
//! process, its database file and its tokens. Knows no case.

pub mod child;
mod process;
mod tokens;

use crate::framing;
use anyhow::{Context, Result, bail, ensure};
use gosync_conformance::schema::driver::{
    Backup, Compact, ControlCapability, ControlDone, ControlInfo, ControlRequest, ControlResponse,
    DamageStore, FailWrites, Fault, Restore, ServerStarted, StartServer, Token, Unsupported,
    control_request::Command, control_response,
};
use gosync_proto::history::Epoch;
use gosync_proto::mutant::Side;
use gosync_proto::{SpaceId, Time};
use gosync_server::maintenance::{self, CompactOptions, Reach};
use gosync_server::store::{self, Store, sqlite::SqliteStore};
use process::{Process, Setup};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What the adapter can do.
const CAPABILITIES: [ControlCapability; 13] = [
    ControlCapability::Stop,
    ControlCapability::Kill,
    ControlCapability::Clock,
    ControlCapability::Compact,
    ControlCapability::Backup,
    ControlCapability::Tokens,
    ControlCapability::Revoke,
    ControlCapability::Wipe,
    ControlCapability::Damage,
    ControlCapability::Limits,
    ControlCapability::Retire,
    ControlCapability::Retention,
    ControlCapability::FailWrites,
];

/// Answers commands until the input ends.
///
/// # Errors
/// When the channel breaks. What goes wrong with the server is an answer.
pub fn run(input: &mut impl Read, output: &mut impl Write) -> Result<()> {
    let mut control = Control::new()?;
    while let Some(request) = framing::read::<ControlRequest>(input)? {
        let result = control.answer(request.command).unwrap_or_else(|error| {
            control_response::Result::Fault(Fault {
                detail: format!("{error:#}"),
            })
        });
        framing::write(
            output,
            &ControlResponse {
                id: request.id,
                result: Some(result),
            },
        )?;
    }
    Ok(())
}

/// One server with all that belongs to it, in a folder of its own.
struct Control {
    folder: TempDir,
    clock_offset_ms: i64,
    backups: HashMap<String, PathBuf>,
    process: Option<Process>,
}

impl Control {
    fn new() -> Result<Control> {
        Ok(Control {
            folder: TempDir::with_prefix("gosync-adapter-")?,
            clock_offset_ms: 0,
            backups: HashMap::new(),
            process: None,
        })
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("server.db")
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("tokens.toml")
    }

    fn answer(&mut self, command: Option<Command>) -> Result<control_response::Result> {
        use control_response::Result as Answer;
        let done = Ok(Answer::Done(ControlDone {}));
        match command {
            None => Ok(Answer::Unsupported(Unsupported {})),
            Some(Command::Hello(_)) => Ok(Answer::Info(info())),
            Some(Command::Start(start)) => Ok(Answer::Started(ServerStarted {
                url: self.start(start)?,
            })),
            Some(Command::Stop(_)) => {
                self.running()?.stop()?;
                self.process = None;
                done
            }
            Some(Command::Kill(_)) => {
                self.running()?.kill()?;
                self.process = None;
                done
            }
            Some(Command::SetClock(clock)) => {
                self.clock_offset_ms = clock.offset_ms;
                if let Some(process) = &mut self.process {
                    process.set_clock(clock.offset_ms)?;
                }
                done
            }
            Some(Command::Compact(compact)) => {
                self.compact(&compact)?;
                done
            }
            Some(Command::Backup(Backup { name })) => {
                self.backup(name)?;
                done
            }
            Some(Command::Restore(Restore { name })) => {
                self.restore(&name)?;
                done
            }
            Some(Command::MintToken(mint)) => {
                let token = tokens::mint(&self.token_file(), &mint, self.now_ms()?)?;
                self.reload_tokens()?;
                Ok(Answer::Token(Token { token }))
            }
            Some(Command::RevokeToken(revoke)) => {
                tokens::revoke(&self.token_file(), &revoke.token)?;
                self.reload_tokens()?;
                done
            }
            Some(Command::Wipe(_)) => {
                self.stopped()?;
                remove_database(&self.database())?;
                done
            }
            Some(Command::Retire(retire)) => {
                let store = SqliteStore::open_existing(&self.database())?;
                let now_ms = self.now_ms()?;
                let store: &dyn Store = &store;
                store.write(&SpaceId::new(&retire.space)?, move |tx| tx.retire(now_ms))?;
                done
            }
            Some(Command::FailWrites(FailWrites { failing })) => {
                self.running()?;
                fail_writes(&self.database(), failing)?;
                done
            }
            Some(Command::Damage(DamageStore { space, key })) => {
                self.stopped()?;
                damage(&self.database(), &space, &key)?;
                done
            }
        }
    }

    fn start(&mut self, start: StartServer) -> Result<String> {
        self.stopped()?;
        // what the adapter does to the store is the mutant's doing as well
        crate::mutants::become_one(&start.mutant, Side::Server)?;
        let tokens = self.token_file();
        if start.authenticate && !tokens.exists() {
            std::fs::write(&tokens, "")?;
        }
        let process = Process::start(&Setup {
            database: self.database(),
            tokens: start.authenticate.then_some(tokens),
            limits: start.limits.into_iter().collect(),
            clock_offset_ms: self.clock_offset_ms,
            mutant: start.mutant,
        })?;
        let url = process.url().to_owned();
        self.process = Some(process);
        Ok(url)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the server is not running")
    }

    /// A running server takes the token file at once, not at its next look.
    fn reload_tokens(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::reload_tokens)
    }

    fn stopped(&self) -> Result<()> {
        ensure!(
            self.process.is_none(),
            "the server is running; stop it first"
        );
        Ok(())
    }

    fn now_ms(&self) -> Result<u64> {
        child::system_ms()
            .checked_add_signed(self.clock_offset_ms)
            .context("the clock's offset leaves the range of time")
    }

    fn compact(&self, compact: &Compact) -> Result<()> {
        let store = SqliteStore::open_existing(&self.database())?;
        let options = CompactOptions {
            retention_ms: compact.retention_ms,
            max_step_ms: u64::MAX,
            reach: Reach::Until(Time::from_millis(compact.before_ms)),
        };
        let space = SpaceId::new(&compact.space)?;
        maintenance::compact(&store, &space, self.now_ms()?, options)?;
        Ok(())
    }

    fn backup(&mut self, name: String) -> Result<()> {
        let to = self
            .folder
            .path()
            .join(format!("backup-{}.db", self.backups.len()));
        SqliteStore::open_existing(&self.database())?.backup(&to, &mut |_| {})?;
        self.backups.insert(name, to);
        Ok(())
    }

    fn restore(&mut self, name: &str) -> Result<()> {
        self.stopped()?;
        let Some(from) = self.backups.get(name) else {
            bail!("there is no backup {name:?}")
        };
        let now_ms = self.now_ms()?;
        remove_database(&self.database())?;
        let epoch = Epoch(getrandom::u64()?);
        store::sqlite::restore(from, &self.database(), false, epoch, now_ms, &mut |_| {})?;
        Ok(())
    }
}

fn info() -> ControlInfo {
    ControlInfo {
        name: "gosync-server".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        capabilities: CAPABILITIES.map(Into::into).to_vec(),
        profiles: ["core", "heal", "live", "hardened"]
            .map(Into::into)
            .to_vec(),
        mutants: crate::mutants::list(Side::Server),
    }
}

fn remove_database(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Lets each record that the server would store fail in the database, and so
/// after it was judged. What a full disk does, without filling one.
fn fail_writes(database: &Path, failing: bool) -> Result<()> {
    let db = rusqlite::Connection::open(database)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    db.execute_batch(match failing {
        true => {
            "CREATE TRIGGER failing BEFORE INSERT ON records
             BEGIN SELECT RAISE(ABORT, 'storing fails'); END"
        }
        false => "DROP TRIGGER failing",
    })?;
    Ok(())
}

/// Inverts the first byte of a stored value (an empty one gets a byte), behind
/// the server's back.
fn damage(database: &Path, space: &str, key: &[u8]) -> Result<()> {
    let db = rusqlite::Connection::open(database)?;
    let which = "key = ?2 AND space = (SELECT id FROM spaces WHERE name = ?1)";
    let read = format!("SELECT value FROM records WHERE {which}");
    let mut value: Vec<u8> = db
        .query_row(&read, rusqlite::params![space, key], |row| row.get(0))
        .context("the store has no record of that key")?;
    match value.first_mut() {
        Some(first) => *first = !*first,
        None => value.push(0),
    }
    let write = format!("UPDATE records SET value = ?3 WHERE {which}");
    let hit = db.execute(&write, rusqlite::params![space, key, value])?;
    ensure!(hit == 1, "the store has no record of that key");
    Ok(())
}
