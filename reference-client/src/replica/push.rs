//! What to send next, and what the server's verdicts mean.

use super::edit::{Author, restamp};
use super::merge::Merger;
use super::{Fate, Outcome, Settled, fenced};
use crate::store::{Changes, Meta, Reads, Store, StoreError, View, Write, WriteId, WriteState};
use gosync_proto::history::{Cursor, Point, Position};
use gosync_proto::limits::Limits;
use gosync_proto::reason::Action;
use gosync_proto::{Key, Reason, Record, ReplicaId, Time, mutant};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Records for one Push.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parcel {
    /// In the order in which they are sent.
    pub items: Vec<Item>,
    /// They are one batch: all or none.
    pub atomic: bool,
    /// Clean records that were to be offered and are damaged: to be removed.
    pub damaged: Vec<Key>,
    /// Other writes wait behind these, for want of room or because a batch is
    /// sent alone.
    pub more: bool,
}

impl Parcel {
    /// The newest write in it: what waits behind the parcel comes after.
    pub fn last_write(&self) -> Option<WriteId> {
        self.items.iter().filter_map(|i| i.write).max()
    }
}

/// One record of a parcel.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// What is sent.
    pub record: Record,
    /// Which write it is; `None` for a clean record that is offered again.
    pub write: Option<WriteId>,
}

/// The bytes of records that fit into one Push: the message limit less room
/// for ranges and cursors.
pub fn room(limits: &Limits) -> u64 {
    limits.max_message_bytes - limits.max_message_bytes / 8
}

/// How many offers are looked at for one parcel.
const OFFERS: usize = 5_000;

/// What a parcel may hold at most.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Room {
    /// The server's limits.
    pub limits: Limits,
    /// Bounds the number of records further than the limits do.
    pub at_most: usize,
    /// Only writes, up to the first below this time: that one needs a
    /// reconciliation first, and nothing overtakes it.
    pub not_below: Option<Time>,
}

impl Room {
    fn records(&self) -> usize {
        let limit = usize::try_from(self.limits.max_push_records).unwrap_or(usize::MAX);
        self.at_most.min(limit)
    }
}

/// Takes what is to be pushed next, and notes durably that it may have been
/// sent. An empty parcel means that there is nothing to push. With `behind`, a
/// write that is on its way, only writes that come after it are taken.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed.
pub async fn take<S: Store>(
    store: &S,
    me: ReplicaId,
    room: Room,
    behind: Option<WriteId>,
) -> Result<Parcel, StoreError> {
    if behind.is_none() && room.not_below.is_none() {
        let offers = take_offers(store, me, room).await?;
        if !offers.items.is_empty() || !offers.damaged.is_empty() {
            return Ok(offers);
        }
    }
    let run = Run::behind(behind, room, store).await?;
    if run.writes.is_empty() {
        return Ok(Parcel::default());
    }
    let take = move |view: &View| {
        let mut meta = view.meta.clone();
        let parcel = run.select(&mut meta);
        let mut changes = Changes {
            meta: (meta != view.meta).then_some(meta),
            ..Changes::default()
        };
        if mutant!(SentIsAccepted) {
            changes.remove_writes = parcel.items.iter().filter_map(|i| i.write).collect();
        }
        (changes, parcel)
    };
    let (parcel, _) = fenced(store, me, Reads::meta(), take).await?;
    Ok(parcel)
}

/// How many writes are looked at in one go.
const PAGE: usize = 1_024;

/// The writes that one parcel may hold at most: the first that waits, and
/// those behind it up to a limit or the edge of a batch. Of thousands that
/// wait, no more are read than are sent.
#[derive(Debug)]
struct Run {
    writes: Vec<Write>,
    batch: Option<WriteId>,
    bytes: u64,
    room: Room,
    /// Other writes wait behind these.
    more: bool,
}

impl Run {
    async fn behind<S: Store>(
        behind: Option<WriteId>,
        room: Room,
        store: &S,
    ) -> Result<Run, StoreError> {
        let mut run = Run {
            writes: Vec::new(),
            batch: None,
            bytes: 0,
            room,
            more: false,
        };
        let mut after = behind;
        loop {
            let page = store.writes(after, PAGE).await?;
            after = page.last().map(|w| w.id).or(after);
            let last = page.len() < PAGE;
            run.more = !page.into_iter().all(|w| run.extend(w));
            if last || run.more {
                return Ok(run);
            }
        }
    }

    /// Whether writes behind this one may belong to the run.
    fn extend(&mut self, write: Write) -> bool {
        if !write.is_waiting() {
            return true;
        }
        if (self.room.not_below).is_some_and(|least| write.record.version.time < least) {
            if self.batch.is_some() && self.batch == write.batch {
                // it goes as a whole, or not yet
                self.writes.clear();
            }
            return false;
        }
        let first = self.writes.is_empty();
        if first {
            self.batch = write.batch;
        }
        let value = write.record.content.value();
        self.bytes += Limits::encoded_bound(&write.record.key, value.len()) as u64;
        // a batch is sent whole: it was made within the limits
        let fits = self.batch.is_some()
            || (self.bytes <= room(&self.room.limits) && self.writes.len() <= self.room.records());
        if write.batch != self.batch || !(first || fits) {
            return false;
        }
        self.writes.push(write);
        true
    }

    /// The parcel that the writes make, noted as one that may have been sent.
    /// One that is discarded in this very moment is as one that is discarded
    /// on its way. Of several single writes to a key that were never sent, the
    /// last speaks for all.
    fn select(self, meta: &mut Meta) -> Parcel {
        let more = self.more;
        let attempted = meta.attempted;
        let mut parcel = match self.batch {
            Some(_) => Parcel {
                // what is left of a batch after its other writes were
                // superseded may be a single record
                atomic: self.writes.len() > 1 && !mutant!(BatchTornApart),
                items: self.writes.into_iter().map(item).collect(),
                more,
                ..Parcel::default()
            },
            None => Parcel {
                items: self.singles(attempted),
                more,
                ..Parcel::default()
            },
        };
        let sent = parcel.items.iter().filter_map(|i| i.write);
        meta.attempted = sent.map(|id| id.0).fold(attempted, u64::max);
        for item in &mut parcel.items {
            let sent_before = item.write.is_some_and(|id| id.0 <= attempted);
            item.record.version.time.0 += u64::from(sent_before && mutant!(RetryRestamped));
        }
        parcel
    }

    fn singles(self, attempted: u64) -> Vec<Item> {
        let mut items: Vec<Option<Item>> = Vec::new();
        let mut place: HashMap<Key, (usize, WriteId)> = HashMap::new();
        let mut bytes = 0;
        let mut count = 0;
        for w in self.writes {
            let size = Limits::encoded_bound(&w.record.key, w.record.content.value().len()) as u64;
            if bytes + size > room(&self.room.limits) && count > 0 {
                break;
            }
            match place.get(&w.record.key) {
                // the fate of a write that was sent has to be learnt first
                Some((_, earlier)) if earlier.0 <= attempted && !mutant!(VerdictNotAwaited) => {
                    break;
                }
                Some(_) if mutant!(TwoOfOneKey) => {}
                Some((i, _)) => items[*i] = None,
                None if count == self.room.records() => break,
                None => count += 1,
            }
            place.insert(w.record.key.clone(), (items.len(), w.id));
            items.push(Some(item(w)));
            bytes += size;
        }
        items.into_iter().flatten().collect()
    }
}

fn item(w: Write) -> Item {
    Item {
        record: w.record,
        write: Some(w.id),
    }
}

async fn take_offers<S: Store>(
    store: &S,
    me: ReplicaId,
    limit: Room,
) -> Result<Parcel, StoreError> {
    let reads = Reads {
        offers: limit.records().min(OFFERS),
        ..Reads::default()
    };
    let keys: Vec<Key> = store
        .transact(reads, |view| {
            (Changes::default(), view.offers.iter().cloned().collect())
        })
        .await?;
    if keys.is_empty() {
        return Ok(Parcel::default());
    }
    let take = move |view: &View| {
        let mut bytes = 0;
        let mut items = Vec::new();
        let mut gone = Vec::new();
        let mut damaged = Vec::new();
        for key in &view.offers {
            // what was removed since is nothing to offer, nor is damage
            let Some(s) = view.clean.get(key) else {
                gone.push(key.clone());
                continue;
            };
            if !s.intact() && !mutant!(DamageOffered) {
                damaged.push(key.clone());
                continue;
            }
            bytes += Limits::encoded_bound(key, s.record.content.value().len()) as u64;
            if bytes > room(&limit.limits) && !items.is_empty() {
                break;
            }
            let mut record = s.record.clone();
            if mutant!(OfferRestamped) {
                record.version.time.0 += 1;
            }
            items.push(Item {
                record,
                write: None,
            });
        }
        let changes = Changes {
            remove_offers: gone,
            ..Changes::default()
        };
        let parcel = Parcel {
            items,
            damaged,
            ..Parcel::default()
        };
        (changes, parcel)
    };
    let (parcel, _) = fenced(store, me, Reads::keys(keys), take).await?;
    Ok(parcel)
}

/// What the server said about one record.
#[derive(Clone, PartialEq, Debug)]
pub enum Ruling {
    /// It holds the record, committed at this sequence.
    Held(u64),
    /// It holds another one, which wins, committed at this sequence.
    Beaten(Record, u64),
    /// It refused.
    Refused {
        /// Why; `None` for a reason that this version does not know.
        reason: Option<Reason>,
        /// Its sentence for people.
        detail: String,
    },
}

/// The answer to a parcel.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// One for each item, in order.
    pub rulings: Vec<Ruling>,
    /// Where the server stands after the push.
    pub position: Position,
    /// Cursors may follow it: the server places all of them in its history,
    /// and no Watch moves them meanwhile.
    pub moves_cursors: bool,
    /// The server answers Reconcile.
    pub reconciles: bool,
    /// Its clock.
    pub server_now_ms: u64,
}

/// What the answer leads to, beyond what was changed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Aftermath {
    /// What changed.
    pub outcome: Outcome,
    /// Some records need a reconciliation before they are accepted.
    pub reconcile: bool,
    /// Keys outside the held ranges with writes that are too old for the
    /// server to judge: they are reconciled one by one, then sent anew.
    pub strays: Vec<Key>,
    /// Some records have to be sent again, after a pause.
    pub again: bool,
    /// Writes that got a new version, because theirs was too far ahead.
    pub restamped: usize,
    /// Records that the server accepted.
    pub accepted: usize,
    /// What is to be pushed next but one, if that was asked for and the server
    /// accepted everything.
    pub next: Parcel,
}

/// Brings an answer into the store: in one transaction, what the server holds
/// becomes clean, and what it refused is marked. With `ahead`, writes behind
/// one that is on its way are taken in the same transaction.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn settle<S: Store>(
    store: &S,
    author: Author,
    parcel: Parcel,
    answer: Answer,
    ahead: Option<(Room, WriteId)>,
) -> Result<(Aftermath, Meta), StoreError> {
    let run = match ahead {
        Some((room, behind)) => Some(Run::behind(Some(behind), room, store).await?),
        None => None,
    };
    let reads = Reads::keys(parcel.items.iter().map(|i| i.record.key.clone()));
    let settle = move |view: &View| {
        let (mut changes, mut aftermath) = decide(view, author, &parcel, answer);
        if let Some(run) = run.filter(|_| aftermath.accepted == parcel.items.len()) {
            let meta = changes.meta.get_or_insert_with(|| view.meta.clone());
            aftermath.next = run.select(meta);
        }
        (changes, aftermath)
    };
    fenced(store, author.replica, reads, settle).await
}

fn decide(view: &View, author: Author, parcel: &Parcel, answer: Answer) -> (Changes, Aftermath) {
    let mut merger = Merger::new(view);
    let mut aftermath = Aftermath::default();
    let mut known = BTreeSet::new();
    let mut refused: Vec<(&Item, Option<Reason>, String)> = Vec::new();
    let at = |sequence| Point {
        epoch: answer.position.head.point.epoch,
        sequence,
    };
    for (item, ruling) in parcel.items.iter().zip(answer.rulings) {
        match ruling {
            Ruling::Held(sequence) => {
                aftermath.accepted += 1;
                known.insert(sequence);
                merger.take(item.record.clone(), at(sequence));
                if item.write.is_none() {
                    confirm_offer(view, &mut merger.changes, item, at(sequence));
                }
            }
            Ruling::Beaten(winner, sequence) => {
                aftermath.accepted += 1;
                known.insert(sequence);
                merger.take(winner, at(sequence));
            }
            Ruling::Refused { reason, detail } => refused.push((item, reason, detail)),
        }
    }
    let mut changes = merger.changes;
    aftermath.outcome = merger.merged.outcome;
    let removed: HashSet<WriteId> = changes.remove_writes.iter().copied().collect();
    let mut skewed = Vec::new();
    // a batch that may pass later is kept as it is, whatever its other writes
    // were told
    let held = view.meta.range_set();
    let is_held = |item: &Item| held.contains(item.record.key.as_bytes());
    // a key that is not held is reconciled alone; a write that is not below the
    // horizon would be refused for ever
    let is_stray = |item: &Item| {
        answer.reconciles
            && item.write.is_some()
            && item.record.version.time < answer.position.horizon
    };
    let temporary = |item: &Item, reason: Reason| match reason.action() {
        Action::Retry | Action::Restamp | Action::Authenticate => true,
        Action::Resync => is_held(item) || is_stray(item),
        _ => false,
    };
    let waits = |(item, reason, _): &(&Item, Option<Reason>, String)| {
        reason.is_some_and(|reason| temporary(item, reason))
    };
    let batch_waits = parcel.atomic && refused.iter().any(waits);
    for (item, reason, detail) in refused {
        match reason.map(Reason::action) {
            Some(Action::Restamp) if item.write.is_some() => skewed.extend(item.write),
            Some(Action::Resync) if is_held(item) => aftermath.reconcile = true,
            Some(Action::Resync) if is_stray(item) => {
                aftermath.strays.push(item.record.key.clone());
            }
            Some(Action::Retry | Action::Authenticate | Action::Restamp) => aftermath.again = true,
            _ if batch_waits => {}
            _ => refuse(
                view,
                &mut changes,
                &mut aftermath.outcome,
                &removed,
                item,
                reason,
                detail,
            ),
        }
    }
    if mutant!(AllRestamped) && !skewed.is_empty() {
        skewed = parcel.items.iter().filter_map(|i| i.write).collect();
    }
    let mut meta = view.meta.clone();
    if !skewed.is_empty() {
        let stamped = restamp(view, author, &skewed, answer.server_now_ms);
        aftermath.restamped = stamped.put_writes.len();
        changes.put_writes.extend(stamped.put_writes);
        meta = stamped.meta.unwrap_or(meta);
    }
    meta.newest_commit = newer(meta.newest_commit, answer.position.head);
    for held in &mut meta.ranges {
        let joins = held
            .cursor
            .is_some_and(|c| leads_to(c, answer.position.head, &known));
        if (answer.moves_cursors && joins) || mutant!(PushMovesCursor) {
            held.cursor = Some(answer.position.head);
        }
    }
    if meta != view.meta {
        changes.meta = Some(meta);
    }
    (changes, aftermath)
}

/// Whether the replica, which holds everything up to `cursor`, holds everything
/// up to `head` as well: every sequence between them is one that the answer
/// named. Sequences have no gaps, so nothing of others lies there (PUSH-037).
fn leads_to(cursor: Cursor, head: Cursor, known: &BTreeSet<u64>) -> bool {
    let (from, to) = (cursor.point.sequence, head.point.sequence);
    cursor.point.epoch == head.point.epoch
        && from < to
        && known.range(from + 1..=to).count() as u64 == to - from
}

/// A clean record that the server took again was acknowledged there and then.
fn confirm_offer(view: &View, changes: &mut Changes, item: &Item, point: Point) {
    let key = &item.record.key;
    if let Some(s) = view.clean.get(key).filter(|s| s.record == item.record) {
        changes.put.push(crate::store::Stored {
            point,
            era: view.meta.era,
            ..s.clone()
        });
    }
}

/// Marks a write as refused, and puts a refused offer into quarantine.
fn refuse(
    view: &View,
    changes: &mut Changes,
    outcome: &mut Outcome,
    removed: &HashSet<WriteId>,
    item: &Item,
    reason: Option<Reason>,
    detail: String,
) {
    let key = &item.record.key;
    match item.write {
        Some(id) => {
            let Some(w) = view.writes.get(&id).filter(|_| !removed.contains(&id)) else {
                return;
            };
            outcome.settled.push(Settled {
                id,
                key: key.clone(),
                fate: Fate::Rejected {
                    reason,
                    detail: detail.clone(),
                },
            });
            if mutant!(RejectedForgotten) {
                changes.remove_writes.push(id);
                return;
            }
            changes.put_writes.push(Write {
                state: WriteState::Rejected { reason, detail },
                ..w.clone()
            });
        }
        None => {
            changes.remove_offers.push(key.clone());
            let same = view.clean.get(key).is_some_and(|s| s.record == item.record)
                && !mutant!(RefusedOfferKept);
            if same {
                changes.remove.push(key.clone());
                changes.put_quarantine.push(item.record.clone());
                outcome.leaves.push((key.clone(), None));
            }
        }
    }
    outcome.changed.push(key.clone());
}

/// Marks every write of a parcel as refused: the call itself was.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn refuse_all<S: Store>(
    store: &S,
    me: ReplicaId,
    parcel: Parcel,
    reason: Option<Reason>,
    detail: String,
) -> Result<(Outcome, Meta), StoreError> {
    let reads = Reads::keys(parcel.items.iter().map(|i| i.record.key.clone()));
    let refuse_each = move |view: &View| {
        let mut changes = Changes::default();
        let mut outcome = Outcome::default();
        let none = HashSet::new();
        for item in &parcel.items {
            let detail = detail.clone();
            refuse(
                view,
                &mut changes,
                &mut outcome,
                &none,
                item,
                reason,
                detail,
            );
        }
        (changes, outcome)
    };
    fenced(store, me, reads, refuse_each).await
}

/// The newer of two commits: sequences compare within one epoch only, and what
/// was heard last counts otherwise.
fn newer(known: Option<Cursor>, heard: Cursor) -> Option<Cursor> {
    match known {
        Some(k)
            if k.point.epoch == heard.point.epoch && k.point.sequence > heard.point.sequence =>
        {
            Some(k)
        }
        _ => Some(heard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::edit::{self, Edit};
    use crate::store::MemoryStore;
    use futures::executor::block_on;

    const ME: ReplicaId = ReplicaId(7);

    /// Each list is one transaction of the application: a batch where it has
    /// several edits.
    fn written(lists: &[&[String]]) -> MemoryStore {
        let store = MemoryStore::new();
        block_on(store.transact(Reads::meta(), |view| {
            let meta = Meta {
                active: ME.0,
                ..view.meta.clone()
            };
            let changes = Changes {
                meta: Some(meta),
                ..Changes::default()
            };
            (changes, ())
        }))
        .unwrap();
        for keys in lists {
            let edits: Vec<Edit> = keys
                .iter()
                .map(|k| Edit::Put(Key::new(k.as_bytes()).unwrap(), "v".into()))
                .collect();
            let author = Author {
                replica: ME,
                now_ms: 1_000,
            };
            let reads = Reads::keys(edits.iter().map(|e| e.key().clone()));
            block_on(store.transact(reads, move |view| edit::decide(view, author, edits)))
                .unwrap()
                .unwrap();
        }
        store
    }

    fn keys(name: &str, n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{name}{i:05}")).collect()
    }

    fn taken(store: &MemoryStore, at_most: usize) -> (usize, bool, Vec<u8>) {
        let room = Room {
            limits: Limits::default(),
            at_most,
            not_below: None,
        };
        let parcel = block_on(take(store, ME, room, None)).unwrap();
        let first = parcel.items.first();
        let key = first.map_or(vec![], |i| i.record.key.as_bytes().to_vec());
        (parcel.items.len(), parcel.atomic, key)
    }

    #[test]
    fn a_batch_that_is_longer_than_a_page_is_one_parcel() {
        let batch = keys("b", PAGE * 2 + 5);
        let store = written(&[&batch, &keys("c", 3)]);
        let parcel = (batch.len(), true, b"b00000".to_vec());
        assert_eq!(taken(&store, usize::MAX), parcel);
    }

    /// It was sent again and again, without a pause: its keys are not held, so
    /// that no reconciliation could let it pass.
    #[test]
    fn a_batch_outside_of_what_is_held_ends_refused_when_it_is_behind_the_compaction() {
        let store = written(&[&keys("b", 2)]);
        let room = Room {
            limits: Limits::default(),
            at_most: usize::MAX,
            not_below: None,
        };
        let parcel = block_on(take(&store, ME, room, None)).unwrap();
        assert!(parcel.atomic);
        let refused = Ruling::Refused {
            reason: Some(Reason::BehindCompaction),
            detail: String::new(),
        };
        let answer = Answer {
            rulings: vec![refused; 2],
            position: Position {
                head: Cursor::origin(gosync_proto::history::Epoch(1)),
                horizon: Time(1 << 40),
            },
            moves_cursors: false,
            reconciles: false,
            server_now_ms: 1_000,
        };
        let author = Author {
            replica: ME,
            now_ms: 1_000,
        };
        let (aftermath, _) = block_on(settle(&store, author, parcel, answer, None)).unwrap();
        assert!(!aftermath.reconcile && !aftermath.again);
        let writes = block_on(store.writes(None, 10)).unwrap();
        assert!(writes.iter().all(|w| !w.is_waiting()));
    }

    #[test]
    fn what_is_below_a_time_is_not_taken_nor_what_comes_after() {
        let store = written(&[&keys("a", 1), &keys("b", 1), &keys("c", 2), &keys("d", 1)]);
        let writes = block_on(store.writes(None, 10)).unwrap();
        let count = |not_below| {
            let room = Room {
                limits: Limits::default(),
                at_most: usize::MAX,
                not_below: Some(not_below),
            };
            let parcel = block_on(take(&store, ME, room, None)).unwrap();
            parcel.items.len()
        };
        assert_eq!(count(writes[0].record.version.time), 2);
        assert_eq!(count(writes[1].record.version.time), 0);
    }

    /// The time of an application's write can lie above that of the next one of
    /// its batch only where somebody moved it; the batch stays whole all the
    /// same.
    #[test]
    fn a_batch_is_taken_as_a_whole_or_not_yet() {
        let store = written(&[&keys("b", 3)]);
        let mut last = block_on(store.writes(None, 10)).unwrap().remove(2);
        last.record.version.time = Time(1);
        block_on(store.transact(Reads::meta(), move |_| {
            let changes = Changes {
                put_writes: vec![last],
                ..Changes::default()
            };
            (changes, ())
        }))
        .unwrap();
        let room = Room {
            limits: Limits::default(),
            at_most: usize::MAX,
            not_below: Some(Time(2)),
        };
        assert!(
            block_on(take(&store, ME, room, None))
                .unwrap()
                .items
                .is_empty()
        );
    }

    #[test]
    fn single_writes_end_where_a_batch_begins() {
        let store = written(&[&keys("a", 1), &keys("b", 1), &keys("c", 2)]);
        assert_eq!(taken(&store, usize::MAX), (2, false, b"a00000".to_vec()));
    }

    #[test]
    fn single_writes_beyond_a_page_fill_a_parcel_up_to_its_limit() {
        let singles = keys("a", PAGE + 50);
        let lists: Vec<&[String]> = singles.chunks(1).collect();
        let store = written(&lists);
        assert_eq!(taken(&store, PAGE + 20).0, PAGE + 20);
        assert_eq!(taken(&store, usize::MAX).0, PAGE + 50);
    }

    #[test]
    fn what_waits_behind_a_parcel_is_taken_without_it() {
        let store = written(&[&keys("a", 3), &keys("b", 2), &keys("c", 1)]);
        let room = Room {
            limits: Limits::default(),
            at_most: usize::MAX,
            not_below: None,
        };
        let take = |behind| block_on(take(&store, ME, room, behind));
        let first = take(None).unwrap();
        assert!(first.more && first.atomic);
        let second = take(first.last_write()).unwrap();
        assert_eq!(second.items[0].record.key.as_bytes(), b"b00000");
        let third = take(second.last_write()).unwrap();
        assert!(!third.more && !third.atomic);
        assert_eq!(third.items[0].record.key.as_bytes(), b"c00000");
        assert_eq!(take(third.last_write()).unwrap(), Parcel::default());
        assert_eq!(take(None).unwrap(), first);
    }

    #[test]
    fn a_cursor_follows_a_push_only_over_sequences_that_the_answer_named() {
        let at = |epoch, sequence| Cursor {
            point: Point {
                epoch: gosync_proto::history::Epoch(epoch),
                sequence,
            },
            tag: 0,
        };
        let known = |s: &[u64]| s.iter().copied().collect();
        assert!(leads_to(at(1, 4), at(1, 6), &known(&[5, 6])));
        // an earlier push of its own, of which the answer was lost
        assert!(leads_to(at(1, 4), at(1, 6), &known(&[2, 5, 6])));
        // somebody else's commit lies between, or behind
        assert!(!leads_to(at(1, 4), at(1, 7), &known(&[5, 7])));
        assert!(!leads_to(at(1, 4), at(1, 7), &known(&[5, 6])));
        // nothing was applied; another history; behind the cursor
        assert!(!leads_to(at(1, 4), at(1, 5), &known(&[])));
        assert!(!leads_to(at(1, 4), at(2, 5), &known(&[5])));
        assert!(!leads_to(at(1, 6), at(1, 5), &known(&[5])));
    }

    #[test]
    fn nothing_that_waits_is_an_empty_parcel() {
        assert_eq!(taken(&written(&[]), usize::MAX), (0, false, vec![]));
    }
}
