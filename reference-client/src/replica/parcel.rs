//! What to send next: a parcel of writes, or of records that the server lost.
//! Knows nothing of what the server answers.

use super::fenced;
use crate::store::{Changes, Meta, Reads, Store, StoreError, View, Write, WriteId};
use gosync_proto::limits::Limits;
use gosync_proto::{Digest, Key, Record, ReplicaId, Time, mutant};
use std::collections::{HashMap, HashSet};

/// Records for one Push.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parcel {
    /// In the order in which they are sent.
    pub items: Vec<Item>,
    /// They are one batch, or several: all or none.
    pub atomic: bool,
    /// They are several batches, of which one may have the others refused.
    pub joined: bool,
    /// Clean records that were to be offered and are damaged: to be removed.
    pub damaged: Vec<Key>,
    /// Other writes wait behind these, for want of room or because a batch is
    /// sent alone.
    pub more: bool,
    /// The newest write that there was when the parcel was taken.
    pub newest: Option<WriteId>,
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
    /// The record's digest.
    pub digest: Digest,
    /// Which write it is; `None` for a clean record that is offered again.
    pub write: Option<WriteId>,
}

impl Item {
    /// A clean record that is offered again.
    fn offer(record: Record) -> Item {
        Item {
            digest: record.digest(),
            record,
            write: None,
        }
    }

    fn size(&self) -> u64 {
        Limits::encoded_bound(&self.record.key, self.record.content.value().len()) as u64
    }
}

impl From<Write> for Item {
    fn from(write: Write) -> Item {
        Item {
            record: write.record,
            digest: write.digest,
            write: Some(write.id),
        }
    }
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
    /// Batches up to this write are sent one by one: together, they were
    /// refused.
    pub alone_to: Option<WriteId>,
}

impl Room {
    fn records(&self) -> usize {
        let limit = usize::try_from(self.limits.max_push_records).unwrap_or(usize::MAX);
        let limit = if mutant!(LimitsForgotten) {
            usize::MAX
        } else {
            limit
        };
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
    if run.items.is_empty() || mutant!(NothingPushed) {
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
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    items: Vec<Item>,
    /// The batch of the last item; a run of single writes has none.
    batch: Option<WriteId>,
    /// So many of the items are whole batches before that one.
    whole: usize,
    /// The keys of a run of batches.
    keys: HashSet<Key>,
    bytes: u64,
    behind: Option<WriteId>,
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
            items: Vec::new(),
            batch: None,
            whole: 0,
            keys: HashSet::new(),
            bytes: 0,
            behind,
            room,
            more: false,
        };
        let mut after = behind;
        loop {
            let work = move |page: Vec<Write>| {
                let after = page.last().map(|w| w.id).or(after);
                let last = page.len() < PAGE;
                run.more = !page.into_iter().all(|w| run.extend(w));
                (run, after, last)
            };
            let last;
            (run, after, last) = store.work_on_writes(after, PAGE, work).await?;
            if last || run.more {
                return Ok(run);
            }
        }
    }

    /// Whether writes behind this one may belong to the run.
    fn extend(&mut self, write: Write) -> bool {
        if !write.is_waiting() {
            return !mutant!(RejectedBlocks);
        }
        if (self.room.not_below).is_some_and(|least| write.record.version.time < least) {
            if self.batch.is_some() && self.batch == write.batch {
                // it goes as a whole, or not yet
                self.items.truncate(self.whole);
            }
            return false;
        }
        if self.items.is_empty() {
            self.batch = write.batch;
        }
        let belongs = write.batch == self.batch || self.begins_another(&write);
        if !belongs || !self.fits(&write) {
            return false;
        }
        if write.batch.is_some() {
            self.keys.insert(write.record.key.clone());
        }
        self.items.push(Item::from(write));
        true
    }

    /// Whether the write is the first of a batch that is sent with the one
    /// before it: an application that makes hundreds of small batches does not
    /// wait for an answer to each.
    fn begins_another(&mut self, write: &Write) -> bool {
        let alone = self.items.first().and_then(|i| i.write) <= self.room.alone_to;
        if self.batch.is_none() || write.batch.is_none() || alone {
            return false;
        }
        self.whole = self.items.len();
        self.batch = write.batch;
        true
    }

    /// Whether the write has room; if not, the batch that it belongs to waits
    /// as a whole.
    fn fits(&mut self, write: &Write) -> bool {
        let value = write.record.content.value();
        self.bytes += Limits::encoded_bound(&write.record.key, value.len()) as u64;
        let records = self.items.len();
        let small = self.bytes <= room(&self.room.limits);
        match (self.batch, self.whole) {
            // `singles` looks more closely
            (None, _) => records == 0 || small && records <= self.room.records(),
            // a batch is sent whole: it was made within the limits
            (Some(_), 0) => true,
            (Some(_), whole) => {
                let fits = small
                    && records < self.room.records()
                    && !self.keys.contains(&write.record.key);
                if !fits {
                    self.items.truncate(whole);
                }
                fits
            }
        }
    }

    /// What is wanted behind the last write of the run, if something waits.
    pub(super) fn following(&self) -> Option<Wanted> {
        let last = self.items.last().filter(|_| self.more)?;
        Some(Wanted {
            room: self.room,
            behind: last.write?,
            read: None,
        })
    }

    /// The parcel that the writes make, noted as one that may have been sent.
    /// One that is discarded in this very moment is as one that is discarded
    /// on its way. Of several single writes to a key that were never sent, the
    /// last speaks for all.
    pub(super) fn select(self, meta: &mut Meta) -> Parcel {
        let more = self.more;
        let newest = meta.newest_write();
        let attempted = meta.attempted;
        let mut parcel = match self.batch {
            Some(_) => Parcel {
                // what is left of a batch after its other writes were
                // superseded may be a single record
                atomic: self.items.len() > 1 && !mutant!(BatchTornApart),
                joined: self.whole > 0 && self.whole < self.items.len(),
                items: self.items,
                more,
                newest,
                ..Parcel::default()
            },
            None => Parcel {
                items: self.singles(attempted),
                more,
                newest,
                ..Parcel::default()
            },
        };
        parcel.atomic |= parcel.items.len() > 1 && mutant!(SinglesAreAtomic);
        if mutant!(BatchReversed) && parcel.atomic {
            parcel.items.reverse();
        }
        let sent = parcel.items.iter().filter_map(|i| i.write);
        if !mutant!(AttemptUnrecorded) {
            meta.attempted = sent.map(|id| id.0).fold(attempted, u64::max);
        }
        if mutant!(RetryRestamped) {
            for item in &mut parcel.items {
                let sent_before = item.write.is_some_and(|id| id.0 <= attempted);
                item.record.version.time.0 += u64::from(sent_before);
                item.digest = item.record.digest();
            }
        }
        parcel
    }

    fn singles(self, attempted: u64) -> Vec<Item> {
        let mut items: Vec<Option<Item>> = Vec::new();
        let mut place: HashMap<Key, (usize, Option<WriteId>)> = HashMap::new();
        let mut bytes = 0;
        let mut count = 0;
        let was_sent = |id: &Option<WriteId>| id.is_some_and(|id| id.0 <= attempted);
        for item in self.items {
            let size = item.size();
            if bytes + size > room(&self.room.limits) && count > 0 {
                break;
            }
            match place.get(&item.record.key) {
                // the fate of a write that was sent has to be learnt first
                Some((_, earlier)) if was_sent(earlier) && !mutant!(VerdictNotAwaited) => {
                    break;
                }
                Some(_) if mutant!(TwoOfOneKey) => {}
                Some((i, _)) => items[*i] = None,
                None if count == self.room.records() => break,
                None => count += 1,
            }
            place.insert(item.record.key.clone(), (items.len(), item.write));
            items.push(Some(item));
            bytes += size;
        }
        items.into_iter().flatten().collect()
    }
}

/// What is wanted behind a write that is on its way, while the one before it
/// is settled.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted {
    /// What the parcel may hold.
    pub room: Room,
    /// The write that is on its way.
    pub behind: WriteId,
    /// What was read ahead, if something was and nothing but pushes changed
    /// the writes since.
    pub read: Option<Box<Run>>,
}

impl Wanted {
    /// The run: as it was read ahead, if it is the one that is wanted.
    pub(super) async fn run<S: Store>(self, store: &S) -> Result<Run, StoreError> {
        match self.read {
            Some(run) if run.behind == Some(self.behind) && run.room == self.room => Ok(*run),
            _ => Run::behind(Some(self.behind), self.room, store).await,
        }
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
            items.push(Item::offer(record));
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::replica::edit::{self, Author, Edit};
    use crate::store::MemoryStore;
    use futures::executor::block_on;

    pub(in super::super) const ME: ReplicaId = ReplicaId(7);

    /// Each list is one transaction of the application: a batch where it has
    /// several edits.
    pub(in super::super) fn written(lists: &[&[String]]) -> MemoryStore {
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

    pub(in super::super) fn keys(name: &str, n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{name}{i:05}")).collect()
    }

    fn taken(store: &MemoryStore, at_most: usize) -> (usize, bool, Vec<u8>) {
        let room = Room {
            limits: Limits::default(),
            at_most,
            not_below: None,
            alone_to: None,
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
        assert_eq!(taken(&store, batch.len() + 2), parcel);
    }

    /// Each waited for the answer to the one before it: an application whose
    /// documents are batches wrote them faster than they were pushed.
    #[test]
    fn batches_share_a_parcel_each_of_them_whole() {
        let store = written(&[&keys("a", 2), &keys("b", 3), &keys("c", 2), &keys("d", 1)]);
        let all = (7, true, b"a00000".to_vec());
        assert_eq!(taken(&store, usize::MAX), all);
        let two = (5, true, b"a00000".to_vec());
        assert_eq!(taken(&store, 6), two);
        let one = (2, true, b"a00000".to_vec());
        assert_eq!(taken(&store, 4), one);
    }

    #[test]
    fn batches_with_a_key_in_common_share_no_parcel() {
        let again = [keys("c", 1), keys("a", 2)].concat();
        let store = written(&[&keys("a", 2), &keys("b", 2), &again]);
        assert_eq!(taken(&store, usize::MAX).0, 4);
    }

    #[test]
    fn batches_that_were_refused_together_are_taken_one_by_one() {
        let store = written(&[&keys("a", 2), &keys("b", 2), &keys("c", 2), &keys("d", 2)]);
        let last_of_b = block_on(store.writes(None, 4)).unwrap()[3].id;
        let room = Room {
            limits: Limits::default(),
            at_most: usize::MAX,
            not_below: None,
            alone_to: Some(last_of_b),
        };
        let take = |behind| block_on(take(&store, ME, room, behind)).unwrap();
        let first = take(None);
        assert_eq!((first.items.len(), first.joined), (2, false));
        let second = take(first.last_write());
        assert_eq!((second.items.len(), second.joined), (2, false));
        let rest = take(second.last_write());
        assert_eq!((rest.items.len(), rest.joined, rest.more), (4, true, false));
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
            alone_to: Some(WriteId(u64::MAX)),
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
    fn a_run_that_was_read_ahead_is_used_only_where_it_belongs() {
        let store = written(&[&keys("a", 3), &keys("b", 2), &keys("c", 1)]);
        let room = Room {
            limits: Limits::default(),
            at_most: usize::MAX,
            not_below: None,
            alone_to: Some(WriteId(u64::MAX)),
        };
        let first = block_on(take(&store, ME, room, None)).unwrap();
        let second = Wanted {
            room,
            behind: first.last_write().unwrap(),
            read: None,
        };
        let run = block_on(second.clone().run(&store)).unwrap();
        let third = run.following().unwrap();
        let read = block_on(third.clone().run(&store)).unwrap();
        assert_eq!(read.following(), None);
        // nothing is read again: an empty store is not even looked at
        let ahead = Wanted {
            read: Some(Box::new(read.clone())),
            ..third
        };
        assert_eq!(block_on(ahead.run(&MemoryStore::new())), Ok(read.clone()));
        // behind another write, it is
        let wrong = Wanted {
            read: Some(Box::new(read)),
            ..second
        };
        assert_eq!(block_on(wrong.run(&store)), Ok(run));
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
                alone_to: None,
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
            alone_to: None,
        };
        assert!(
            block_on(take(&store, ME, room, None))
                .unwrap()
                .items
                .is_empty()
        );
    }

    #[test]
    fn nothing_that_waits_is_an_empty_parcel() {
        assert_eq!(taken(&written(&[]), usize::MAX), (0, false, vec![]));
    }
}
