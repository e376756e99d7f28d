//! What a case of client mode works with: the driver, the scripted server, and
//! what both have seen.

use super::driver::{self, Driver, Outcome};
use super::launch::Launch;
use super::monitor::{self, Written};
use crate::net::Wire;
use crate::oracle::{Merge, Record, merge};
use crate::peer::{Peer, Seen};
use crate::schema::driver::{self as wire, driver_request::Command};
use crate::schema::v1;
use crate::suite::{Raw, Recorder, Stop, unique};
use bytes::Bytes;
use prost::Message as _;
use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// The context of one run of one case. Cheap to clone.
#[derive(Clone)]
pub struct Cx {
    inner: Arc<Inner>,
}

struct Inner {
    launch: Launch,
    mutant: String,
    wire: Wire,
    space: String,
    /// Names of stores are never used twice.
    stores: String,
    driver: Mutex<Option<Driver>>,
    /// The server's age when the case began.
    began: Duration,
    peer: Mutex<Peer>,
    recorder: Recorder,
    patience: Duration,
    /// How many calls the server had seen at each crash and each opening.
    beginnings: Mutex<Vec<usize>>,
    /// What the application wrote.
    written: Mutex<Written>,
    /// The last command, what was answered, and how it ended.
    last: Mutex<(Bytes, Vec<Bytes>, String)>,
}

/// An opening of a store of the client under test.
#[derive(Clone)]
pub struct Replica {
    pub(super) cx: Cx,
    pub(super) name: String,
}

impl Cx {
    /// A new one, with a driver that is running.
    #[allow(clippy::too_many_arguments)] // made in one place
    pub fn new(
        launch: &Launch,
        mutant: &str,
        wire: Wire,
        seed: u64,
        driver: Driver,
        peer: Peer,
        patience: Duration,
    ) -> Cx {
        Cx {
            inner: Arc::new(Inner {
                launch: launch.clone(),
                mutant: mutant.to_owned(),
                wire,
                space: format!("space-{seed:016x}"),
                stores: format!("store-{:x}-{seed:016x}", unique()),
                driver: Mutex::new(Some(driver)),
                began: peer.age(),
                peer: Mutex::new(peer),
                recorder: Recorder::default(),
                patience,
                beginnings: Mutex::default(),
                written: Mutex::default(),
                last: Mutex::default(),
            }),
        }
    }

    /// What this run of the case collects.
    pub fn recorder(&self) -> &Recorder {
        &self.inner.recorder
    }

    /// The space of the case.
    pub fn space(&self) -> &str {
        &self.inner.space
    }

    /// How the client is asked to call.
    pub fn wire(&self) -> Wire {
        self.inner.wire
    }

    /// Patience with one command.
    pub fn patience(&self) -> Duration {
        self.inner.patience
    }

    /// Emits a check.
    pub fn check(
        &self,
        name: &'static str,
        passed: bool,
        expected: impl Display,
        got: impl Display,
    ) {
        self.inner.recorder.check(name, passed, expected, got);
    }

    /// Emits a check that two values are equal.
    pub fn equal<T: PartialEq + Debug>(&self, name: &'static str, expected: T, got: T) {
        let passed = expected == got;
        self.check(name, passed, format!("{expected:?}"), format!("{got:?}"));
    }

    /// Works with the server.
    pub async fn server<T>(&self, act: impl FnOnce(&mut Peer) -> T) -> T {
        act(&mut *self.inner.peer.lock().await)
    }

    /// The calls that the server has seen.
    pub async fn seen(&self) -> Vec<Seen> {
        self.inner.peer.lock().await.seen()
    }

    /// The records of the case's space at the server, without horizon.
    pub async fn server_records(&self) -> Vec<Record> {
        let space = self.inner.space.clone();
        self.server(|p| {
            p.service.with_space(&space, |s| {
                s.records.values().map(|r| r.record.clone()).collect()
            })
        })
        .await
    }

    /// Another replica writes at the server.
    pub async fn server_writes(&self, records: &[Record]) {
        self.server(|p| p.service.commit(self.space(), records))
            .await;
    }

    /// Closes the server's port; every call fails.
    pub async fn server_down(&self) {
        self.server(Peer::stop).await;
    }

    /// Opens it again.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn server_up(&self) -> Result<(), Stop> {
        self.inner
            .peer
            .lock()
            .await
            .restart()
            .await
            .map_err(|e| Stop::Suite(format!("the scripted server cannot come back: {e}")))
    }

    /// Gives the driver a command.
    ///
    /// # Errors
    /// [`Stop::Suite`] when the driver fails.
    pub async fn command(&self, command: Command, patience: Duration) -> Result<Outcome, Stop> {
        let mut driver = self.inner.driver.lock().await;
        let Some(driver) = driver.as_mut() else {
            return Err(Stop::Suite("the driver was killed".into()));
        };
        let at = self.inner.recorder.elapsed();
        let told = driver::shown(&command);
        let outcome = driver.command(command, patience).await;
        let exchange = driver::exchange(at, told, &outcome);
        // one that looks again and again sees mostly the same
        let now = (
            exchange.request.clone(),
            exchange.answers.clone(),
            exchange.end.clone(),
        );
        let before = std::mem::replace(&mut *self.inner.last.lock().await, now.clone());
        if before != now {
            self.inner.recorder.exchange(exchange);
        }
        outcome
    }

    /// Kills the driver and starts another one, which finds its stores.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn crash(&self) -> Result<(), Stop> {
        let mut driver = self.inner.driver.lock().await;
        let inner = &self.inner;
        let new = match driver.take() {
            Some(old) => Driver::start_after(old.kill().await, &inner.launch, &inner.mutant).await,
            None => Driver::start(&inner.launch, &inner.mutant).await,
        };
        let new = new.map_err(Stop::Suite)?;
        *driver = Some(new);
        self.begins().await;
        Ok(())
    }

    /// What comes now knows nothing of the calls before.
    async fn begins(&self) {
        let seen = self.inner.peer.lock().await.seen().len();
        self.inner.beginnings.lock().await.push(seen);
    }

    /// Gives a command that nobody knows.
    ///
    /// # Errors
    /// A sentence when there is no answer.
    pub async fn unknown_command(&self, number: u32) -> Result<Outcome, String> {
        let mut driver = self.inner.driver.lock().await;
        match driver.as_mut() {
            Some(driver) => driver.unknown_command(number).await,
            None => Err("the driver was killed".into()),
        }
    }

    /// Sets the client's wall clock.
    ///
    /// # Errors
    /// [`Stop`] when it cannot.
    pub async fn set_clock(&self, unix_ms: u64) -> Result<(), Stop> {
        let command = Command::SetClock(wire::SetClock { unix_ms });
        done(self.command(command, self.inner.patience).await?)
    }

    /// Opens a store of its own.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn open(&self, name: &str) -> Result<Replica, Stop> {
        self.open_with(name, name, |_| {}).await
    }

    /// Opens a store, with changes to the command.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn open_with(
        &self,
        name: &str,
        store: &str,
        change: impl FnOnce(&mut wire::Open),
    ) -> Result<Replica, Stop> {
        let url = self.server(|p| p.url()).await;
        let mut open = wire::Open {
            replica: name.to_owned(),
            store: format!("{}-{store}", self.inner.stores),
            url,
            transport: match self.inner.wire {
                Wire::Grpc => wire::Transport::Grpc as i32,
                Wire::GrpcWeb => wire::Transport::GrpcWeb as i32,
            },
            space: self.inner.space.clone(),
            tokens: Vec::new(),
            key_prefixes: Vec::new(),
        };
        change(&mut open);
        let (store, prefixes) = (open.store.clone(), open.key_prefixes.clone());
        done(
            self.command(Command::Open(open), self.inner.patience)
                .await?,
        )?;
        self.begins().await;
        let mut written = self.inner.written.lock().await;
        written.open(name, &store, &prefixes);
        drop(written);
        Ok(Replica {
            cx: self.clone(),
            name: name.to_owned(),
        })
    }

    /// What was told and seen, for the report; and what no client may do.
    pub async fn close(&self) {
        let inner = &self.inner;
        if let Some(driver) = inner.driver.lock().await.take() {
            driver.kill().await;
        }
        let seen = inner.peer.lock().await.seen();
        let replicas = inner.written.lock().await.replicas();
        for wrong in monitor::look(&seen, &inner.beginnings.lock().await, replicas) {
            inner.recorder.violation(wrong);
        }
        for call in &seen {
            inner.recorder.exchange(self.exchange(call));
        }
    }

    /// What of the script no call has met. A client that takes no Snapshots is
    /// free to: it reads by Watch.
    pub async fn left_of_script(&self) -> Vec<String> {
        let snapshots = self.seen().await.iter().any(|s| s.method == "Snapshot");
        let mut left = self.server(|p| p.script(|s| s.left())).await;
        left.retain(|step| snapshots || !step.starts_with("Snapshot"));
        left
    }

    fn exchange(&self, call: &Seen) -> Raw {
        let headers = call.headers.iter();
        let metadata = headers.filter(|(n, _)| n.starts_with("gosync-"));
        Raw {
            at: call.at.saturating_sub(self.inner.began),
            wire: self.inner.wire.name(),
            method: call.method.clone(),
            metadata: metadata.cloned().collect(),
            kinds: Raw::kinds(&call.method),
            request: call.message.clone().into(),
            answers: call.answers.iter().cloned().map(Bytes::from).collect(),
            end: call.end.clone(),
        }
    }
}

/// # Errors
/// [`Stop::Peer`] for what the client reports, [`Stop::Suite`] for what the
/// driver cannot do although it said so.
pub(super) fn done(outcome: Outcome) -> Result<(), Stop> {
    match outcome {
        Outcome::Done(_) => Ok(()),
        Outcome::Unsupported(_) => Err(Stop::Suite(
            "the driver does not support a command that it announced, or must support".into(),
        )),
        other => Err(Stop::Peer(format!("{other:?}"))),
    }
}

impl Replica {
    /// Writes a record.
    ///
    /// # Errors
    /// [`Stop::Peer`] when the client refuses.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Stop> {
        let command = Command::Put(wire::Put {
            replica: self.name.clone(),
            key: key.as_ref().to_vec(),
            value: value.as_ref().to_vec(),
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)?;
        let mut written = self.cx.inner.written.lock().await;
        written.put(&self.name, key.as_ref(), value.as_ref());
        Ok(())
    }

    /// Writes several records as one batch.
    ///
    /// # Errors
    /// [`Stop::Peer`] when the client refuses.
    pub async fn batch<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: &[(K, V)],
    ) -> Result<(), Stop> {
        let entry = |(key, value): &(K, V)| wire::Entry {
            key: key.as_ref().to_vec(),
            value: value.as_ref().to_vec(),
            ..wire::Entry::default()
        };
        let command = Command::PutBatch(wire::PutBatch {
            replica: self.name.clone(),
            entries: entries.iter().map(entry).collect(),
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)?;
        let mut written = self.cx.inner.written.lock().await;
        for (key, value) in entries {
            written.put(&self.name, key.as_ref(), value.as_ref());
        }
        Ok(())
    }

    /// Gives a write up, as a user does.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn discard(&self, key: impl AsRef<[u8]>) -> Result<(), Stop> {
        self.forget(key.as_ref()).await;
        let command = Command::Discard(wire::Discard {
            replica: self.name.clone(),
            key: key.as_ref().to_vec(),
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)
    }

    /// Has the rejected writes of a key sent again, as a user does.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn retry(&self, key: impl AsRef<[u8]>) -> Result<(), Stop> {
        let command = Command::Retry(wire::Retry {
            replica: self.name.clone(),
            key: key.as_ref().to_vec(),
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// [`Stop::Peer`] when the client refuses.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), Stop> {
        self.forget(key.as_ref()).await;
        let command = Command::Delete(wire::Delete {
            replica: self.name.clone(),
            key: key.as_ref().to_vec(),
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)
    }

    /// A session that must succeed.
    ///
    /// # Errors
    /// [`Stop::Peer`] when it does not.
    pub async fn sync(&self) -> Result<(), Stop> {
        done(self.try_sync(self.cx.inner.patience).await?)
    }

    /// A session, and what came of it.
    ///
    /// # Errors
    /// [`Stop::Suite`] when the driver fails.
    pub async fn try_sync(&self, timeout: Duration) -> Result<Outcome, Stop> {
        let command = Command::Sync(wire::Sync {
            replica: self.name.clone(),
            timeout_ms: timeout.as_millis() as u32,
        });
        // the driver keeps the time; a little more, so that it can answer
        self.cx
            .command(command, timeout + Duration::from_secs(5))
            .await
    }

    /// Looks at everything stored again, and heals what is damaged.
    ///
    /// # Errors
    /// [`Stop::Peer`] when that does not come to its end.
    pub async fn verify(&self) -> Result<(), Stop> {
        let timeout = self.cx.inner.patience;
        let command = Command::Verify(wire::Verify {
            replica: self.name.clone(),
            timeout_ms: timeout.as_millis() as u32,
        });
        let outcome = self.cx.command(command, timeout + Duration::from_secs(5));
        done(outcome.await?)
    }

    /// Starts live synchronisation.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn watch(&self) -> Result<(), Stop> {
        let command = Command::Watch(wire::Watch {
            replica: self.name.clone(),
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)
    }

    /// Waits until it is caught up and nothing is pending.
    ///
    /// # Errors
    /// [`Stop::Peer`] when that does not come.
    pub async fn await_idle(&self) -> Result<(), Stop> {
        let timeout = self.cx.inner.patience;
        let command = Command::AwaitIdle(wire::AwaitIdle {
            replica: self.name.clone(),
            timeout_ms: timeout.as_millis() as u32,
        });
        done(
            self.cx
                .command(command, timeout + Duration::from_secs(5))
                .await?,
        )
    }

    /// Cuts or mends the network.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn set_online(&self, online: bool) -> Result<(), Stop> {
        let command = Command::SetOnline(wire::SetOnline {
            replica: self.name.clone(),
            online,
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)
    }

    /// Closes it in good order.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn close(&self) -> Result<(), Stop> {
        let command = Command::Close(wire::Close {
            replica: self.name.clone(),
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)
    }

    /// Damages a stored value.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn damage(&self, key: impl AsRef<[u8]>) -> Result<(), Stop> {
        self.forget(key.as_ref()).await;
        let command = Command::Damage(wire::Damage {
            replica: self.name.clone(),
            key: key.as_ref().to_vec(),
        });
        done(self.cx.command(command, self.cx.inner.patience).await?)
    }

    /// The last put under the key is not to be seen any more.
    async fn forget(&self, key: &[u8]) {
        let mut written = self.cx.inner.written.lock().await;
        written.forget(&self.name, key);
    }

    /// What the application sees.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn contents(&self) -> Result<wire::StoreContents, Stop> {
        let command = Command::ReadAll(wire::ReadAll {
            replica: self.name.clone(),
        });
        match self.cx.command(command, self.cx.inner.patience).await? {
            Outcome::Contents(contents) => {
                let (inner, seen) = (&self.cx.inner, self.cx.seen().await);
                let written = inner.written.lock().await;
                for wrong in written.missing(&self.name, &contents, &seen) {
                    inner.recorder.violation(wrong);
                }
                Ok(contents)
            }
            other => Err(Stop::Peer(format!("ReadAll answers {other:?}"))),
        }
    }

    /// Keys and values that the application sees.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn entries(&self) -> Result<Vec<(String, String)>, Stop> {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        Ok(self
            .contents()
            .await?
            .entries
            .iter()
            .map(|e| (text(&e.key), text(&e.value)))
            .collect())
    }
}

/// Every record that was pushed, with the call that it came in.
pub fn pushed(seen: &[Seen]) -> Vec<(usize, Record)> {
    seen.iter()
        .enumerate()
        .filter(|(_, s)| s.method == "Push")
        .flat_map(|(i, s)| {
            let records = v1::PushRequest::decode(s.message.as_slice())
                .map(|p| p.records)
                .unwrap_or_default();
            records
                .into_iter()
                .filter_map(move |r| Record::from_wire(&r).ok().map(|r| (i, r)))
        })
        .collect()
}

/// What a reader sees of some records: the winners that are no tombstones.
pub fn visible_entries(records: &[Record]) -> Vec<(String, String)> {
    let mut winners: std::collections::BTreeMap<&[u8], &Record> = std::collections::BTreeMap::new();
    for record in records {
        let wins = winners
            .get(record.key.as_slice())
            .is_none_or(|held| merge(record, held) == Merge::Wins);
        if wins {
            winners.insert(&record.key, record);
        }
    }
    winners
        .values()
        .filter(|r| !r.is_tombstone())
        .map(|r| {
            (
                r.key.escape_ascii().to_string(),
                r.value.escape_ascii().to_string(),
            )
        })
        .collect()
}
