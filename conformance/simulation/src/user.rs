//! Who sits in front of a device: writes the same few keys as everybody, imports
//! many, and edits documents field by field through the documents' own code.
//! Knows the client as an application does.

use crate::chance::Chance;
use crate::executor::Executor;
use crate::household::Household;
use crate::ledger::Ledger;
use crate::store::{SimStore, is_simulated};
use crate::trace::Trace;
use futures::FutureExt as _;
use gosync_client::Client;
use gosync_client::client::{Closed, WriteHandle};
use gosync_client::documents::{DocumentEdit, DocumentError, DocumentId, Documents};
use gosync_client::platform::BoxFuture;
use gosync_client::replica::Fate;
use gosync_client::replica::edit::{Edit, WriteError};
use gosync_client::store::WriteId;
use gosync_proto::{Key, RangeSet};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How busy users are.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Keys that are written again and again.
    pub hot_keys: u64,
    /// The longest pause between two writes, milliseconds.
    pub pause_ms: u64,
    /// Imports of many keys at once, of a thousand writes.
    pub imports: u64,
    /// Edits of documents that several people edit, of a thousand writes.
    pub documents: u64,
}

/// What the server makes of a write, once that is known here.
type Verdict = BoxFuture<'static, Result<Fate, Closed>>;

/// Clones are the same user.
#[derive(Clone)]
pub(crate) struct User {
    /// The number of the device.
    index: usize,
    writing: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    executor: Executor,
    chance: Chance,
    ledger: Ledger,
    trace: Trace,
    habits: Habits,
}

impl User {
    pub(crate) fn new(
        index: usize,
        executor: Executor,
        chance: Chance,
        ledger: Ledger,
        trace: Trace,
        habits: Habits,
    ) -> User {
        User {
            index,
            writing: Arc::new(AtomicBool::new(true)),
            written: Arc::default(),
            executor,
            chance,
            ledger,
            trace,
            habits,
        }
    }

    /// Whether there is anything to write.
    pub(crate) fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::Relaxed);
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        let now = self.executor.now_ms();
        self.trace.line(now, format_args!("d{} {what}", self.index));
    }

    /// Sits there for good.
    pub(crate) async fn use_it(self, home: Household, client: Client<SimStore>) {
        let documents = Documents::new(client.clone());
        let mut awaited: Vec<(Vec<WriteId>, Verdict)> = Vec::new();
        loop {
            let pause = self.chance.skewed(self.habits.pause_ms);
            self.executor.sleep(pause + 1).await;
            // looked at from time to time, so that listening changes no run
            awaited.retain_mut(|(ids, verdict)| match verdict.now_or_never() {
                None => true,
                Some(fate) => {
                    if let Ok(fate) = fate {
                        self.ledger.told_fate(home.number(), ids, &fate);
                    }
                    false
                }
            });
            if !self.writing.load(Ordering::Relaxed) {
                continue;
            }
            let ranges = home.ranges();
            let written = match self.chance.permille(self.habits.documents) {
                true => self.edit_document(&documents, &ranges).await,
                false => self.edit_keys(&client, &ranges).await,
            };
            match written {
                Ok(Some(handle)) => {
                    self.tell(handle.keys());
                    self.ledger.told(home.number(), handle.ids());
                    let ids = handle.ids().to_vec();
                    awaited.push((ids, Box::pin(handle.server())));
                }
                Ok(None) => {}
                Err(
                    DocumentError::Write(WriteError::Store(error)) | DocumentError::Store(error),
                ) if is_simulated(&error) => {
                    self.note(format_args!("cannot write: {error}"));
                }
                Err(error) => {
                    let what = format!("device {} cannot write: {error}", self.index);
                    self.ledger.violation(what);
                }
            }
        }
    }

    fn tell(&self, keys: &[Key]) {
        match keys {
            [] => {}
            [first, .., _] if keys.len() > 5 => {
                self.note(format_args!("writes {first} ({} keys)", keys.len()));
            }
            _ => {
                let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
                self.note(format_args!("writes {}", keys.join(" ")));
            }
        }
    }

    async fn edit_keys(
        &self,
        client: &Client<SimStore>,
        ranges: &RangeSet,
    ) -> Result<Option<WriteHandle>, DocumentError> {
        let count = match self.chance.between(0, 999) {
            x if x < self.habits.imports => self.chance.between(20, 90),
            x if x < 150 => self.chance.between(2, 6),
            _ => 1,
        };
        let edits = (0..count).filter_map(|_| self.edit(count > 6, ranges));
        match edits.collect::<Vec<_>>() {
            edits if edits.is_empty() => Ok(None),
            edits => Ok(Some(client.batch(edits).await?)),
        }
    }

    /// A key in the ranges that are held here; `None` where there are hardly
    /// any.
    fn key(&self, import: Option<u64>, ranges: &RangeSet) -> Option<Key> {
        for _ in 0..30 {
            let key = match import {
                Some(n) => format!("import/{}/{n:05}", self.index),
                None => format!("k{:03}", self.chance.skewed(self.habits.hot_keys)),
            };
            if ranges.contains(key.as_bytes()) {
                return Key::new(key.as_bytes()).ok();
            }
        }
        None
    }

    fn edit(&self, import: bool, ranges: &RangeSet) -> Option<Edit> {
        let n = self.written.fetch_add(1, Ordering::Relaxed);
        let key = self.key(import.then_some(n), ranges)?;
        if self.chance.permille(200) {
            return Some(Edit::Delete(key));
        }
        Some(Edit::Put(key, self.value(n).into()))
    }

    /// No two values alike: content tells who wrote it.
    fn value(&self, n: u64) -> String {
        let more = match self.chance.permille(10) {
            true => 20_000,
            false => self.chance.skewed(300),
        };
        format!("d{}.{n} {}", self.index, ".".repeat(more as usize))
    }

    /// A document is put, some of its fields are set or removed, or all of it
    /// is deleted.
    async fn edit_document(
        &self,
        documents: &Documents<SimStore>,
        ranges: &RangeSet,
    ) -> Result<Option<WriteHandle>, DocumentError> {
        let id = DocumentId::new("doc", &format!("d{}", self.chance.skewed(6)))?;
        let whole = id.range()?;
        if !ranges.iter().any(|held| held.covers(&whole)) {
            return Ok(None);
        }
        let n = self.written.fetch_add(1, Ordering::Relaxed);
        let names = ["title", "text", "done"].map(str::to_owned);
        let only = self.chance.pick(&names).cloned().unwrap_or_default();
        let fields = |names: &[String]| -> BTreeMap<String, Value> {
            let value = |name: &String| (name.clone(), Value::String(self.value(n)));
            names.iter().map(value).collect()
        };
        let put = DocumentEdit::Put(id.clone(), fields(&names));
        let edit = match self.chance.between(0, 9) {
            0 => DocumentEdit::Delete(id),
            1 => put.clone(),
            2 => DocumentEdit::Put(id, fields(std::slice::from_ref(&only))),
            3 => DocumentEdit::Patch(id, BTreeMap::new(), vec![only]),
            _ => DocumentEdit::Patch(id, fields(std::slice::from_ref(&only)), Vec::new()),
        };
        match documents.write(vec![edit]).await {
            // there is none to change, so its author makes it
            Err(DocumentError::NoDocument { .. }) => Ok(Some(documents.write(vec![put]).await?)),
            written => Ok(Some(written?)),
        }
    }
}
