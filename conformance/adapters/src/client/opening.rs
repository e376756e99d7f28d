//! One opening of a store: the client, whether it may use the network, and the
//! other openings that hear of what it does. Knows no command's encoding.

use super::runtime::DriverRuntime;
use anyhow::{Context, Result};
use futures::StreamExt as _;
use gosync_client::client::{
    AuthError, Authenticate, Client, Config, Connection, Event, PendingWrite, Row, Status,
};
use gosync_client::engine::Phase;
use gosync_client::replica::edit::{Edit, WriteError as ClientError};
use gosync_client::store::{MemoryStore, SqliteStore, Store, WriteId, WriteState};
use gosync_client::transport::{GrpcTransport, Token};
use gosync_conformance::schema::driver::{
    Entry, Open, PendingWrite as WirePending, StoreContents, SyncError, WriteError,
    sync_error::Kind,
};
use gosync_proto::{Key, KeyRange, RangeSet};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A client on either store.
#[derive(Clone)]
pub(super) enum AnyClient {
    Memory(Client<MemoryStore>),
    Sqlite(Client<SqliteStore>),
}

/// Runs the same code for either store.
macro_rules! on {
    ($client:expr, $c:ident => $body:expr) => {
        match $client {
            AnyClient::Memory($c) => $body,
            AnyClient::Sqlite($c) => $body,
        }
    };
}

pub(super) use on;

type Siblings = Arc<Mutex<HashMap<String, AnyClient>>>;

/// One opening.
pub struct Opening {
    pub(super) client: AnyClient,
    store: String,
    plugged_in: bool,
    watching: bool,
    siblings: Siblings,
}

impl Opening {
    /// Opens the store; the network stays unused.
    pub async fn open(open: Open, runtime: DriverRuntime) -> Result<Opening> {
        let transport = GrpcTransport::new(&open.url)?;
        let mut config = Config::new(&open.space)?;
        config.online = false;
        config.software = "gosync-adapter-client".into();
        if !open.key_prefixes.is_empty() {
            let ranges = open.key_prefixes.iter().map(|p| KeyRange::prefix(p));
            config.ranges = RangeSet::union(ranges.collect::<Result<_, _>>()?);
        }
        if !open.tokens.is_empty() {
            config.auth = Some(tokens_in_turn(open.tokens));
        }
        let client = if open.store.is_empty() {
            AnyClient::Memory(Client::open(MemoryStore::new(), transport, runtime, config).await?)
        } else {
            let store = SqliteStore::open(format!("{}.db", open.store))?;
            AnyClient::Sqlite(Client::open(store, transport, runtime, config).await?)
        };
        let siblings = Siblings::default();
        on!(&client, c => pass_on(c.events(), siblings.clone()));
        Ok(Opening {
            client,
            store: open.store,
            plugged_in: true,
            watching: false,
            siblings,
        })
    }

    /// Whether both are openings of one store.
    pub fn shares_store_with(&self, other: &Opening) -> bool {
        !self.store.is_empty() && self.store == other.store
    }

    /// From now on `sibling` hears of what happens here.
    pub fn tell(&self, name: &str, sibling: &Opening) {
        lock(&self.siblings).insert(name.to_owned(), sibling.client.clone());
    }

    /// The sibling was closed.
    pub fn forget(&self, name: &str) {
        lock(&self.siblings).remove(name);
    }

    /// Writes; the inner error is the client's refusal.
    pub async fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<Result<(), WriteError>> {
        let key = match Key::new(key) {
            Ok(key) => key,
            Err(e) => return Ok(Err(refusal(e.into()))),
        };
        Ok(on!(&self.client, c => c.put(key, value).await)
            .map(drop)
            .map_err(refusal))
    }

    /// Writes one batch; the inner error is the client's refusal.
    pub async fn put_batch(
        &self,
        entries: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Result<(), WriteError>> {
        let mut edits = Vec::new();
        for (key, value) in entries {
            match Key::new(key) {
                Ok(key) => edits.push(Edit::Put(key, value.into())),
                Err(e) => return Ok(Err(refusal(e.into()))),
            }
        }
        Ok(on!(&self.client, c => c.batch(edits).await)
            .map(drop)
            .map_err(refusal))
    }

    /// Deletes; the inner error is the client's refusal.
    pub async fn delete(&self, key: Vec<u8>) -> Result<Result<(), WriteError>> {
        let key = match Key::new(key) {
            Ok(key) => key,
            Err(e) => return Ok(Err(refusal(e.into()))),
        };
        Ok(on!(&self.client, c => c.delete(key).await)
            .map(drop)
            .map_err(refusal))
    }

    /// One session; the network is used for no longer unless it is watching.
    pub async fn sync(&mut self, timeout: Duration) -> Result<(), SyncError> {
        self.online_for(timeout, async |opening| opening.finish_sync().await)
            .await
    }

    /// Looks at everything stored again.
    pub async fn verify(&mut self, timeout: Duration) -> Result<(), SyncError> {
        self.online_for(timeout, async |opening| {
            // what was found before the network came has to be compared as well
            opening.finish_sync().await?;
            let report = on!(&opening.client, c => c.verify().await);
            report
                .map(drop)
                .map_err(|why| failure(&opening.status(), &why.to_string()))
        })
        .await
    }

    /// Does something with the network, for no longer than that unless it is
    /// watching.
    async fn online_for(
        &mut self,
        timeout: Duration,
        work: impl AsyncFnOnce(&Opening) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        if !self.plugged_in {
            return Err(unplugged());
        }
        self.switch(true);
        let result = tokio::time::timeout(timeout, work(self)).await;
        let status = self.status();
        if !self.watching {
            self.unplug().await;
        }
        match result {
            Ok(result) => result,
            Err(_) => Err(failure(&status, "the time is over")),
        }
    }

    /// One session. When the first try fails, those that follow are the
    /// client's own, at its own pace: asking again would skip its pause.
    async fn finish_sync(&self) -> Result<(), SyncError> {
        match on!(&self.client, c => c.sync().await) {
            Ok(()) => Ok(()),
            Err(why) if gives_up(self.status().phase) => {
                Err(failure(&self.status(), &why.to_string()))
            }
            Err(_) => self.settled().await,
        }
    }

    /// Resolves when the client is live and its store holds nothing that the
    /// server has to get.
    async fn settled(&self) -> Result<(), SyncError> {
        let mut statuses = on!(&self.client, c => c.statuses());
        while let Some(status) = statuses.next().await {
            if gives_up(status.phase) {
                return Err(failure(&status, "the client gave up"));
            }
            // the store knows of a write before the status does
            let counts = on!(&self.client, c => c.counts().await)
                .map_err(|e| failure(&status, &e.to_string()))?;
            if status.connection == Connection::Online && counts.waiting + counts.offers == 0 {
                return Ok(());
            }
        }
        Err(failure(&self.status(), "the client was closed"))
    }

    /// Syncs live from now on.
    pub fn watch(&mut self) {
        self.watching = true;
        self.switch(self.plugged_in);
    }

    /// Waits until it is live and nothing waits.
    pub async fn idle(&self, timeout: Duration) -> Result<(), SyncError> {
        let result = tokio::time::timeout(timeout, self.settled()).await;
        result.unwrap_or_else(|_| Err(failure(&self.status(), "the time is over")))
    }

    /// Plugs the network in or out.
    pub async fn set_online(&mut self, online: bool) {
        self.plugged_in = online;
        match online {
            true => self.switch(self.watching),
            false => self.unplug().await,
        }
    }

    /// Everything that the application can see.
    pub async fn contents(&self) -> Result<StoreContents> {
        let (rows, pending, quarantined) = on!(&self.client, c => (
            c.list_all(&KeyRange::all()).await?,
            c.pending(None, usize::MAX).await?,
            c.quarantined().await?.len() as u64,
        ));
        Ok(StoreContents {
            entries: rows.into_iter().map(entry).collect(),
            pending: pending.into_iter().map(pending_write).collect(),
            quarantined,
            verified: self.status().verified,
        })
    }

    /// Spoils the stored bytes under a key.
    pub async fn damage(&self, key: Vec<u8>) -> Result<()> {
        let key = Key::new(key)?;
        Ok(on!(&self.client, c => c.store().damage(&[key]).await)?)
    }

    /// Gives up every unsent or refused write of a key.
    pub async fn discard(&self, key: Vec<u8>) -> Result<()> {
        for id in self.writes_of(&key).await? {
            on!(&self.client, c => c.discard(id).await)?;
        }
        Ok(())
    }

    /// Has the refused writes of a key sent again.
    pub async fn retry(&self, key: Vec<u8>) -> Result<()> {
        for id in self.writes_of(&key).await? {
            on!(&self.client, c => c.retry(id).await)?;
        }
        Ok(())
    }

    async fn writes_of(&self, key: &[u8]) -> Result<Vec<WriteId>> {
        let pending = on!(&self.client, c => c.pending(None, usize::MAX).await)?;
        let of_key = pending.iter().filter(|w| w.key.as_bytes() == key);
        let ids: Vec<_> = of_key.map(|w| w.id).collect();
        anyhow::ensure!(!ids.is_empty(), "no write of that key is pending");
        Ok(ids)
    }

    /// Closes it; what waits stays in the store.
    pub async fn close(self) -> Result<()> {
        on!(self.client, c => c.close(false).await)
            .map(drop)
            .context("closing")
    }

    /// Uses the network no more. The client does what it is told one after the
    /// other: once it has refused to sync, it has stopped to.
    async fn unplug(&self) {
        self.switch(false);
        let _ = on!(&self.client, c => c.sync().await);
    }

    fn switch(&self, online: bool) {
        on!(&self.client, c => c.set_online(online));
    }

    fn status(&self) -> Status {
        on!(&self.client, c => c.status())
    }
}

/// Hands out one token after the other.
fn tokens_in_turn(tokens: Vec<String>) -> Authenticate {
    let left = Mutex::new(VecDeque::from(tokens));
    let current: Mutex<Option<Token>> = Mutex::default();
    Authenticate::new(move |request| {
        let mut current = lock(&current);
        if request.refused || current.is_none() {
            *current = lock(&left).pop_front().map(Token::new);
        }
        let answer = current.clone().ok_or(AuthError::SignIn);
        Box::pin(async move { answer })
    })
}

fn pass_on(
    mut events: impl futures::Stream<Item = Event> + Send + Unpin + 'static,
    siblings: Siblings,
) {
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            for sibling in lock(&siblings).values() {
                on!(sibling, c => c.hear(event.clone()));
            }
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gives_up(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::NeedsAuth | Phase::UpgradeRequired | Phase::Stopped
    )
}

fn unplugged() -> SyncError {
    SyncError {
        kind: Kind::Retryable.into(),
        reason: String::new(),
        detail: "the network is cut".into(),
    }
}

fn failure(status: &Status, detail: &str) -> SyncError {
    let kind = match status.phase {
        Phase::NeedsAuth => Kind::NeedsAuth,
        Phase::UpgradeRequired | Phase::Stopped => Kind::Stopped,
        _ => Kind::Retryable,
    };
    let problem = status.problem.as_ref();
    let reason = problem
        .and_then(|p| p.reason)
        .map_or_else(String::new, |r| r.as_str().to_owned());
    let detail = match problem {
        Some(p) => format!("{detail}: {}", p.message),
        None => detail.to_owned(),
    };
    SyncError {
        kind: kind.into(),
        reason,
        detail,
    }
}

pub(super) fn refusal(error: ClientError) -> WriteError {
    let reason = match &error {
        ClientError::Invalid(invalid) => invalid.reason.as_str(),
        ClientError::ClockExhausted(_) | ClientError::Store(_) => "",
    };
    WriteError {
        reason: reason.into(),
        detail: error.to_string(),
    }
}

fn entry(row: Row) -> Entry {
    Entry {
        key: row.key.as_bytes().to_vec(),
        value: row.value.to_vec(),
        time: row.version.time.0,
        writer: row.version.replica.0,
    }
}

fn pending_write(write: PendingWrite) -> WirePending {
    let rejected = match &write.state {
        WriteState::Waiting => String::new(),
        WriteState::Rejected { reason, .. } => {
            reason.map_or("UNSPECIFIED", |r| r.as_str()).to_owned()
        }
    };
    WirePending {
        key: write.key.as_bytes().to_vec(),
        tombstone: write.value.is_none(),
        rejected,
        in_doubt: write.in_doubt,
    }
}
