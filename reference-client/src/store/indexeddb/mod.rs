//! The browser's store: IndexedDB. Every method is one IndexedDB transaction,
//! so several tabs can use the same store at once. Knows no sync.
//!
//! | object store | key | value |
//! |---|---|---|
//! | `meta` | `"meta"` | the meta row |
//! | `clean` | lowest key | a page of clean records (see [`super::pages`]) |
//! | `writes` | write id | `{k: record key, b: the write, r: 1 where rejected, d: 1 where in doubt}`, indexes `k`, `r` and `d` |
//! | `offers` | record key | 1 |
//! | `quarantine` | record key | a record, and why it is there |

mod idb;

use super::{
    Changes, Counts, Leaf, Meta, Page, Quarantined, Reads, SCHEMA_VERSION, Store, StoreError,
    Stored, View, Write, WriteId, pages,
};
use gosync_proto::{Key, KeyRange, RangeSet};
use idb::{Database, IdbError, Schema, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{
    IdbDatabase, IdbIndexParameters, IdbObjectStore, IdbTransaction, IdbTransactionMode,
};

const META: &str = "meta";
const CLEAN: &str = "clean";
const WRITES: &str = "writes";
const OFFERS: &str = "offers";
const QUARANTINE: &str = "quarantine";
const ALL: &[&str] = &[META, CLEAN, WRITES, OFFERS, QUARANTINE];

/// Of the writes: by the record's key, those that were rejected, and those that
/// are in doubt.
const BY_KEY: &str = "k";
const REJECTED: &str = "r";
const IN_DOUBT: &str = "d";

/// No record's key is lower: where the first page lies.
const LOWEST: &[u8] = &[0];

/// Above this many keys, one request for everything between the lowest and
/// the highest is cheaper than one request each.
const SINGLE_READS: usize = 16;
/// Pages that one request reads of a longer run.
const PAGES_AT_ONCE: u32 = 64;

/// One more than that of what is kept, which did not change with the index of
/// the writes in doubt: a database gets an index with a new version only.
const VERSION: u32 = SCHEMA_VERSION + 1;

static SCHEMA: Schema = Schema {
    version: VERSION,
    upgrade,
};

// version 2 added the reason behind each quarantined record, which reads as none
// where it is missing; version 4 is that of SQLite's digests, which the rows here
// always had
fn upgrade(db: &IdbDatabase, tx: &IdbTransaction, old_version: u32) -> Result<(), JsValue> {
    let options = IdbIndexParameters::new();
    if old_version < 1 {
        for name in [META, CLEAN, OFFERS, QUARANTINE] {
            db.create_object_store(name)?;
        }
        let writes = db.create_object_store(WRITES)?;
        for index in [BY_KEY, REJECTED] {
            writes.create_index_with_str_and_optional_parameters(index, index, &options)?;
        }
    }
    if old_version < 3 {
        let writes = tx.object_store(WRITES)?;
        writes.create_index_with_str_and_optional_parameters(IN_DOUBT, IN_DOUBT, &options)?;
        if old_version > 0 {
            mark_doubts(writes)?;
        }
    }
    Ok(())
}

/// Puts the writes in doubt that are there already into the new index. Goes on
/// in the upgrade's transaction after this returned; what it throws there
/// aborts the upgrade.
fn mark_doubts(writes: IdbObjectStore) -> Result<(), JsValue> {
    let request = writes.get_all()?;
    let answered = request.clone();
    let mark = Closure::once_into_js(move || -> Result<(), JsValue> {
        for row in answered.result()?.unchecked_into::<js_sys::Array>().iter() {
            if let Some(w) = write_of(&row).filter(|w| w.in_doubt) {
                writes.put_with_key(&write_row(&w)?, &id_key(w.id))?;
            }
        }
        Ok(())
    });
    request.set_onsuccess(Some(mark.unchecked_ref()));
    Ok(())
}

/// A store in the browser's IndexedDB, under the name of its database.
pub struct IndexedDbStore {
    db: Database,
}

impl IndexedDbStore {
    /// Opens the database, or creates it.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`]; [`StoreError::Io`] where the browser
    /// offers no storage or another tab holds an older version open.
    pub async fn open(name: &str) -> Result<IndexedDbStore, StoreError> {
        Ok(IndexedDbStore {
            db: Database::open(name, &SCHEMA).await?,
        })
    }

    /// Whether nothing was ever stored.
    ///
    /// # Errors
    /// As for any read.
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        let found = self
            .read(&[META], async |tx| {
                tx.store(META)?.get(&JsValue::from_str(META)).await
            })
            .await?;
        Ok(found.is_none())
    }

    async fn read<T, F>(&self, stores: &[&str], body: F) -> Result<T, StoreError>
    where
        F: AsyncFnMut(&Transaction) -> Result<T, IdbError>,
    {
        let mode = IdbTransactionMode::Readonly;
        Ok(self.db.transaction(stores, mode, body).await?)
    }

    /// The meta row that was read, or what a new store has.
    fn meta(&self, row: Option<JsValue>) -> Result<Meta, StoreError> {
        match row {
            None => Ok(Meta::default()),
            Some(row) => {
                let bytes = idb::to_vec(&row)
                    .ok_or_else(|| StoreError::Corrupt("the meta row is not bytes".into()))?;
                Meta::decode(self.db.name(), &bytes)
            }
        }
    }
}

impl From<IdbError> for StoreError {
    fn from(e: IdbError) -> StoreError {
        match e {
            IdbError::QuotaExceeded => StoreError::Full(e.to_string()),
            IdbError::TooNew { name, found } => StoreError::NewerSchema {
                store: name,
                found,
                supported: VERSION,
            },
            other => StoreError::Io(other.to_string()),
        }
    }
}

impl Store for IndexedDbStore {
    async fn transact<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: 'static,
        F: FnOnce(&View) -> (Changes, T) + 'static,
    {
        // The body runs again when the connection was lost; the decision is
        // taken once.
        let mut decide = Some(decide);
        let mut result = None;
        let mode = IdbTransactionMode::Readwrite;
        let refused = self
            .db
            .transaction(ALL, mode, async |tx| {
                let mut clean = CleanPages::new(tx)?;
                let (mut view, meta) = load(tx, &mut clean, &reads).await?;
                match self.meta(meta) {
                    Ok(meta) => view.meta = meta,
                    Err(e) => return Ok(Some(e)),
                }
                let Some(decide) = decide.take() else {
                    return Err(IdbError::ConnectionLost("while it committed".into()));
                };
                let (changes, outcome) = decide(&view);
                result = Some(outcome);
                store(tx, &mut clean, changes).await?;
                Ok(None)
            })
            .await?;
        match (refused, result) {
            (Some(e), _) => Err(e),
            (None, Some(result)) => Ok(result),
            (None, None) => Err(StoreError::Io(
                "the transaction ended without a decision".into(),
            )),
        }
    }

    async fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let Some(range) = above(range, after) else {
            return Ok(Page::default());
        };
        let limit = limit.max(1);
        self.read(&[CLEAN, WRITES, QUARANTINE], async |tx| {
            let clean = CleanPages::new(tx)?
                .scan(&range, limit.saturating_add(1), Some)
                .await?;
            let mut page = Page {
                clean,
                ..Page::default()
            };
            if page.clean.len() > limit {
                page.clean.truncate(limit);
                page.next = page.clean.last().map(|s| s.record.key.clone());
            }
            let end = page.next.as_ref().map(Key::successor);
            let Some(covered) = cut(&range, end.as_deref()) else {
                return Ok(page);
            };
            let keys = key_range(&covered)?;
            for row in tx.store(WRITES)?.by_index(BY_KEY, &keys).await? {
                page.writes.extend(write_of(&row));
            }
            page.writes.sort_by_key(|w| w.id);
            for row in tx.store(QUARANTINE)?.values(&keys, u32::MAX).await? {
                page.quarantine.extend(quarantined_of(&row));
            }
            Ok(page)
        })
        .await
    }

    async fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        let Some(range) = above(range, after) else {
            return Ok(Vec::new());
        };
        self.read(&[CLEAN], async |tx| {
            CleanPages::new(tx)?
                .scan(&range, limit.max(1), |s| Some(Leaf::from(&s)))
                .await
        })
        .await
    }

    async fn writes(&self, after: Option<WriteId>, limit: usize) -> Result<Vec<Write>, StoreError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.read(&[WRITES], async |tx| {
            let above = match after {
                Some(id) => idb::from(&id_key(id), true)?,
                None => JsValue::UNDEFINED,
            };
            let rows = tx.store(WRITES)?.values(&above, limit).await?;
            Ok(rows.iter().filter_map(|row| write_of(&row)).collect())
        })
        .await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.read(&[WRITES, OFFERS, QUARANTINE], async |tx| {
            let writes = tx.store(WRITES)?;
            let (all, rejected) = (
                writes.count().await?,
                writes.count_by_index(REJECTED).await?,
            );
            Ok(Counts {
                waiting: all.saturating_sub(rejected),
                rejected,
                in_doubt: writes.count_by_index(IN_DOUBT).await?,
                offers: tx.store(OFFERS)?.count().await?,
                quarantined: tx.store(QUARANTINE)?.count().await?,
            })
        })
        .await
    }

    async fn damage(&self, keys: &[Key]) -> Result<(), StoreError> {
        let mode = IdbTransactionMode::Readwrite;
        let body = async |tx: &Transaction| {
            let mut clean = CleanPages::new(tx)?;
            let sorted: BTreeSet<&Key> = keys.iter().collect();
            for key in sorted {
                clean
                    .edit(key, |page| {
                        if let Some(stored) = page.records.get_mut(key) {
                            pages::spoil(stored);
                        }
                    })
                    .await?;
            }
            clean.flush()
        };
        Ok(self.db.transaction(&[CLEAN], mode, body).await?)
    }
}

/// What the transaction asked to see, but for the meta row, which comes as it
/// is stored.
async fn load(
    tx: &Transaction,
    clean: &mut CleanPages,
    reads: &Reads,
) -> Result<(View, Option<JsValue>), IdbError> {
    let meta = tx.store(META)?.get(&JsValue::from_str(META)).await?;
    let mut view = View::default();
    let keys: BTreeSet<&Key> = reads.keys.iter().collect();
    for key in &keys {
        let page = clean.page_of(key).await?;
        if let Some(stored) = page.records.get(*key) {
            view.clean.insert((*key).clone(), stored.clone());
        }
    }
    // Whole ranges, and the few or the many single keys, each as key ranges
    // of IndexedDB; what lies between the keys is filtered out again.
    let ranges = RangeSet::union(reads.ranges.clone());
    let wanted = |key: &Key| keys.contains(key) || ranges.contains(key.as_bytes());
    let mut spans = Vec::new();
    for range in &ranges {
        let found = match ranges.len() > SINGLE_READS {
            true => clean.walk(range).await?,
            false => clean.scan(range, usize::MAX, Some).await?,
        };
        view.clean
            .extend(found.into_iter().map(|s| (s.record.key.clone(), s)));
        spans.push(key_range(range)?);
    }
    match (keys.first(), keys.last()) {
        (Some(first), Some(last)) if keys.len() > SINGLE_READS => {
            let (first, last) = (idb::bytes(first.as_bytes()), idb::bytes(last.as_bytes()));
            spans.push(idb::between(&first, &last, false)?);
        }
        _ => spans.extend(keys.iter().map(|k| idb::bytes(k.as_bytes()))),
    }
    let writes = tx.store(WRITES)?;
    let (offers, quarantine) = (tx.store(OFFERS)?, tx.store(QUARANTINE)?);
    // Both are empty but for hours of trouble.
    let any_offers = offers.count().await? > 0;
    let any_quarantined = quarantine.count().await? > 0;
    for rows in writes.by_index_each(BY_KEY, &spans).await? {
        let found = rows.iter().filter_map(|row| write_of(&row));
        let found = found.filter(|w| wanted(&w.record.key));
        view.writes.extend(found.map(|w| (w.id, w)));
    }
    for span in &spans {
        if any_offers {
            let found = offers.keys(span, u32::MAX).await?;
            view.offers
                .extend(found.iter().filter_map(|k| key_of(&k)).filter(wanted));
        }
        if any_quarantined {
            for row in quarantine.values(span, u32::MAX).await? {
                if let Some(q) = quarantined_of(&row).filter(|q| wanted(&q.record.key)) {
                    view.quarantine.insert(q.record.key.clone(), q);
                }
            }
        }
    }
    let ids: BTreeSet<WriteId> = reads.writes.iter().copied().collect();
    for run in runs(&ids) {
        for row in writes.values(&run?, u32::MAX).await? {
            view.writes.extend(write_of(&row).map(|w| (w.id, w)));
        }
    }
    if reads.all_writes {
        for row in writes.values(&JsValue::UNDEFINED, u32::MAX).await? {
            view.writes.extend(write_of(&row).map(|w| (w.id, w)));
        }
    }
    if reads.offers > 0 && any_offers {
        let limit = u32::try_from(reads.offers).unwrap_or(u32::MAX);
        let found = offers.keys(&JsValue::UNDEFINED, limit).await?;
        view.offers.extend(found.iter().filter_map(|k| key_of(&k)));
    }
    if reads.all_quarantined && any_quarantined {
        for row in quarantine.values(&JsValue::UNDEFINED, u32::MAX).await? {
            view.quarantine
                .extend(quarantined_of(&row).map(|q| (q.record.key.clone(), q)));
        }
    }
    Ok((view, meta))
}

async fn store(tx: &Transaction, clean: &mut CleanPages, changes: Changes) -> Result<(), IdbError> {
    if let Some(meta) = &changes.meta {
        let row = idb::bytes(&meta.encode());
        tx.store(META)?.put(&JsValue::from_str(META), &row)?;
    }
    // In key order, so that each page is looked up once; a removal gives way
    // to a put of the same key.
    let mut edits: BTreeMap<Key, Option<Stored>> = BTreeMap::new();
    edits.extend(changes.remove.into_iter().map(|key| (key, None)));
    edits.extend(
        changes
            .put
            .into_iter()
            .map(|s| (s.record.key.clone(), Some(s))),
    );
    for (key, edit) in edits {
        clean
            .edit(&key, |page| {
                match edit {
                    Some(stored) => page.records.insert(key.clone(), stored),
                    None => page.records.remove(&key),
                };
            })
            .await?;
    }
    clean.flush()?;

    let writes = tx.store(WRITES)?;
    for run in runs(&changes.remove_writes.into_iter().collect()) {
        writes.delete(&run?)?;
    }
    for w in &changes.put_writes {
        let row = write_row(w).map_err(|e| IdbError::from_js(&e))?;
        writes.put(&id_key(w.id), &row)?;
    }
    let offers = tx.store(OFFERS)?;
    for key in changes.remove_offers {
        offers.delete(&idb::bytes(key.as_bytes()))?;
    }
    for key in changes.put_offers {
        offers.put(&idb::bytes(key.as_bytes()), &JsValue::from(1))?;
    }
    let quarantine = tx.store(QUARANTINE)?;
    for key in changes.remove_quarantine {
        quarantine.delete(&idb::bytes(key.as_bytes()))?;
    }
    for q in &changes.put_quarantine {
        let row = idb::bytes(&pages::encode_quarantined(q));
        quarantine.put(&idb::bytes(q.record.key.as_bytes()), &row)?;
    }
    Ok(())
}

/// The pages of clean records, within one transaction. Remembers the page
/// that was used last, and writes it back when another one is needed: callers
/// go through keys in order.
struct CleanPages {
    store: idb::Store,
    open: Option<OpenPage>,
}

struct OpenPage {
    /// The page's key.
    key: Vec<u8>,
    /// The key of the next page; `None` for the last.
    next: Option<Vec<u8>>,
    page: pages::Page,
    edited: bool,
}

impl OpenPage {
    fn covers(&self, key: &[u8]) -> bool {
        *self.key <= *key && self.next.as_deref().is_none_or(|next| key < next)
    }
}

impl CleanPages {
    fn new(tx: &Transaction) -> Result<Self, IdbError> {
        Ok(CleanPages {
            store: tx.store(CLEAN)?,
            open: None,
        })
    }

    /// The page that the key belongs to, whether it holds it or not.
    async fn page_of(&mut self, key: &Key) -> Result<&mut pages::Page, IdbError> {
        Ok(&mut self.open_page(key).await?.page)
    }

    async fn edit(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut pages::Page),
    ) -> Result<(), IdbError> {
        let open = self.open_page(key).await?;
        change(&mut open.page);
        open.edited = true;
        Ok(())
    }

    async fn open_page(&mut self, key: &Key) -> Result<&mut OpenPage, IdbError> {
        self.open_at(key.as_bytes()).await
    }

    async fn open_at(&mut self, key: &[u8]) -> Result<&mut OpenPage, IdbError> {
        let open = match self.open.take() {
            Some(open) if open.covers(key) => open,
            other => {
                self.write_back(other)?;
                self.find(key).await?
            }
        };
        Ok(self.open.insert(open))
    }

    /// The records of a range, page by page: for many small ranges in order,
    /// of which neighbours share a page.
    async fn walk(&mut self, range: &KeyRange) -> Result<Vec<Stored>, IdbError> {
        let mut out = Vec::new();
        let mut at = range.start().max(LOWEST).to_vec();
        loop {
            let open = self.open_at(&at).await?;
            let within = open.page.records.range::<[u8], _>(range.bounds());
            out.extend(within.map(|(_, stored)| stored.clone()));
            match &open.next {
                Some(next) if range.end().is_none_or(|end| **next < *end) => at = next.clone(),
                _ => return Ok(out),
            }
        }
    }

    async fn find(&self, key: &[u8]) -> Result<OpenPage, IdbError> {
        let (at, page) = match self.store.last(&idb::up_to(&idb::bytes(key))?).await? {
            Some((at, row)) => (
                idb::to_vec(&at).unwrap_or_default(),
                pages::Page::decode(&idb::to_vec(&row).unwrap_or_default()),
            ),
            // Nothing is stored yet, or all of the first page was removed.
            None => (LOWEST.to_vec(), pages::Page::default()),
        };
        let next = self
            .store
            .first_key(&idb::from(&idb::bytes(&at), true)?)
            .await?;
        Ok(OpenPage {
            key: at,
            next: next.and_then(|k| idb::to_vec(&k)),
            page,
            edited: false,
        })
    }

    fn write_back(&self, open: Option<OpenPage>) -> Result<(), IdbError> {
        let Some(open) = open.filter(|o| o.edited) else {
            return Ok(());
        };
        let parts = open.page.encode();
        if parts.is_empty() {
            return self.store.delete(&idb::bytes(&open.key));
        }
        for (i, (first, bytes)) in parts.iter().enumerate() {
            // The first part stays where the page was, so that every key
            // that belonged to the page still finds it.
            let key = if i == 0 { &*open.key } else { first.as_bytes() };
            self.store.put(&idb::bytes(key), &idb::bytes(bytes))?;
        }
        Ok(())
    }

    /// Writes what was edited.
    fn flush(&mut self) -> Result<(), IdbError> {
        let open = self.open.take();
        self.write_back(open)
    }

    /// The first `limit` records of a range, in key order. Reads the store,
    /// not the page that is open for editing.
    async fn scan<T>(
        &self,
        range: &KeyRange,
        limit: usize,
        mut map: impl FnMut(Stored) -> Option<T>,
    ) -> Result<Vec<T>, IdbError> {
        let mut out = Vec::new();
        let start = lower(range);
        // The first page may begin below the range.
        let mut from = match self.store.last(&idb::up_to(&start)?).await? {
            Some((key, _)) => key,
            None => start,
        };
        let mut open = false;
        loop {
            let span = match range.end() {
                Some(end) => idb::span(&from, open, &idb::bytes(end))?,
                None => Some(idb::from(&from, open)?),
            };
            let Some(span) = span else { break };
            let rows = self.store.entries(&span, PAGES_AT_ONCE).await?;
            let Some((last, _)) = rows.last() else { break };
            let (last, ended) = (last.clone(), rows.len() < PAGES_AT_ONCE as usize);
            for (_, row) in rows {
                let page = pages::Page::decode(&idb::to_vec(&row).unwrap_or_default());
                for (key, stored) in page.records {
                    if range.contains(key.as_bytes()) {
                        out.extend(map(stored));
                        if out.len() == limit {
                            return Ok(out);
                        }
                    }
                }
            }
            if ended {
                break;
            }
            (from, open) = (last, true);
        }
        Ok(out)
    }
}

/// The part of a range above a key; `None` when that is empty.
fn above(range: &KeyRange, after: Option<&Key>) -> Option<KeyRange> {
    match after {
        Some(key) if key.as_bytes() >= range.start() => {
            KeyRange::new(&key.successor(), range.end()).ok()
        }
        _ => Some(range.clone()),
    }
}

/// The part of a range below a bound.
fn cut(range: &KeyRange, end: Option<&[u8]>) -> Option<KeyRange> {
    match end {
        Some(end) => KeyRange::new(range.start(), Some(end)).ok(),
        None => Some(range.clone()),
    }
}

/// A range's start as a key. Some implementations of IndexedDB take no empty
/// key, so the lowest key that a record can have stands for it.
fn lower(range: &KeyRange) -> JsValue {
    idb::bytes(range.start().max(LOWEST))
}

/// As IndexedDB takes it.
fn key_range(range: &KeyRange) -> Result<JsValue, IdbError> {
    let start = lower(range);
    match range.end() {
        Some(end) => idb::between(&start, &idb::bytes(end), true),
        None => idb::from(&start, false),
    }
}

/// Exact up to 2^53 writes of one store.
fn id_key(id: WriteId) -> JsValue {
    JsValue::from_f64(id.0 as f64)
}

/// Ids as key ranges, one for each run without gaps.
fn runs(ids: &BTreeSet<WriteId>) -> Vec<Result<JsValue, IdbError>> {
    let mut runs: Vec<(WriteId, WriteId)> = Vec::new();
    for id in ids {
        match runs.last_mut() {
            Some((_, last)) if last.0 + 1 == id.0 => *last = *id,
            _ => runs.push((*id, *id)),
        }
    }
    runs.into_iter()
        .map(|(first, last)| idb::between(&id_key(first), &id_key(last), false))
        .collect()
}

fn write_row(w: &Write) -> Result<JsValue, JsValue> {
    let row = js_sys::Object::new();
    let set = |name: &str, value: JsValue| js_sys::Reflect::set(&row, &name.into(), &value);
    set(BY_KEY, idb::bytes(w.record.key.as_bytes()))?;
    set("b", idb::bytes(&pages::encode_write(w)))?;
    if !w.is_waiting() {
        set(REJECTED, JsValue::from(1))?;
    }
    if w.in_doubt {
        set(IN_DOUBT, JsValue::from(1))?;
    }
    Ok(row.into())
}

fn write_of(row: &JsValue) -> Option<Write> {
    let bytes = js_sys::Reflect::get(row.dyn_ref::<js_sys::Object>()?, &"b".into()).ok()?;
    pages::decode_write(&idb::to_vec(&bytes)?)
}

fn quarantined_of(row: &JsValue) -> Option<Quarantined> {
    pages::decode_quarantined(&idb::to_vec(row)?)
}

fn key_of(key: &JsValue) -> Option<Key> {
    Key::new(idb::to_vec(key)?).ok()
}
