//! Watch: what was committed after the replica's cursors, in order of commit,
//! then whatever comes. A watch keeps no queue: each step reads on from where
//! the last one ended, so a slow reader costs the server one message.
//!
//! The shell owns the stream: it waits on the feed, keeps the timers, and ends
//! the stream with the refusal that a step returns.

use super::{Access, Asked, Refusal, Service, Standing, range_states, told_position};
use crate::store::ReadTx;
use gosync_proto::history::{Cursor, Epoch};
use gosync_proto::limits::Limits;
use gosync_proto::wire::watch_response::Event;
use gosync_proto::wire::{self, Held};
use gosync_proto::{RangeSet, Record, SpaceId, mutant};
use std::ops::ControlFlow;
use tokio::sync::watch as feed;

/// One watch of one replica. Not shared: one step at a time.
pub struct Watch {
    service: Service,
    space: SpaceId,
    /// The replica's ranges; the cursors rise as commits are delivered.
    held: Vec<Held>,
    /// The sequences from which the ranges began, index by index.
    starts: Vec<u64>,
    newest_commit: Option<Cursor>,
    /// All of `held`, for the store to choose by.
    ranges: RangeSet,
    message_bytes: usize,
    until_caught_up: bool,
    /// The newest commit up to which everything was delivered; `None` before
    /// the first.
    delivered: Option<Cursor>,
    /// Beyond `delivered` when the last message ended inside a commit.
    read_until: u64,
    checkpoint_due: bool,
    /// As the space was when it was read last.
    clock_ms: u64,
    generation: u64,
    finished: bool,
}

impl Service {
    /// Opens a watch. The history is judged now, and again at every step.
    ///
    /// # Errors
    /// HISTORY_CHANGED when the replica must reconcile first; MALFORMED,
    /// LIMIT_EXCEEDED, NO_ACCESS, SPACE_RETIRED, LAGGING, and what the store
    /// says.
    pub fn watch(&self, access: &Access, request: wire::WatchRequest) -> Result<Watch, Refusal> {
        let Asked { space, held } =
            Asked::check_ranges(self, access, &request.space, &request.held)?;
        let starts: Vec<u64> = held
            .iter()
            .map(|h| h.cursor.map_or(0, |c| c.point.sequence))
            .map(|s| s.saturating_sub(u64::from(mutant!(WatchRepeatsLast))))
            .collect();
        let mut watch = Watch {
            service: self.clone(),
            read_until: starts.iter().copied().min().unwrap_or(0),
            ranges: match mutant!(WatchOfAll) {
                false => RangeSet::union(held.iter().flat_map(|h| &h.ranges).cloned().collect()),
                true => RangeSet::all(),
            },
            space,
            held,
            starts,
            newest_commit: request.newest_commit.map(Into::into),
            message_bytes: self.message_bytes(request.max_response_bytes),
            until_caught_up: request.until_caught_up,
            delivered: None,
            checkpoint_due: true,
            clock_ms: 0,
            generation: 0,
            finished: false,
        };
        let mut tx = self.store().read(&watch.space)?;
        let state = watch.judge(&mut *tx)?.state;
        drop(tx);
        watch.clock_ms = state.told_time(0);
        watch.generation = state.generation;
        Ok(watch)
    }
}

/// The part of what is new that goes into one message.
struct Page {
    records: Vec<Record>,
    /// The last sequence that was looked at.
    read_until: u64,
    /// The commit that ends there, if one does.
    cursor: Option<Cursor>,
}

impl Watch {
    /// Changes whenever this process commits something to the space.
    pub fn feed(&self) -> feed::Receiver<u64> {
        self.service.feed(&self.space)
    }

    /// The newest commit up to which everything was handed out.
    pub fn delivered(&self) -> Option<Cursor> {
        self.delivered
    }

    /// The next step ends with a checkpoint, once the replica is caught up.
    pub fn want_checkpoint(&mut self) {
        self.checkpoint_due = true;
    }

    /// Whether the last message was the stream's end.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// A sign of life. For a watch that is caught up.
    pub fn heartbeat(&self, now_ms: u64) -> wire::WatchResponse {
        event(Event::Heartbeat(wire::Heartbeat {
            server_time_ms: match mutant!(HeartbeatWithoutTime) {
                false => self.clock_ms.max(now_ms),
                true => 0,
            },
            cursor: self
                .delivered
                .filter(|_| !mutant!(HeartbeatWithoutCursor))
                .map(Cursor::to_wire),
        }))
    }

    /// The next message; `None` when the replica has everything: then wait on
    /// the feed, or for a timer. Reads the store.
    ///
    /// # Errors
    /// The reason for which the stream must end, HISTORY_CHANGED among them.
    pub fn step(&mut self, now_ms: u64) -> Result<Option<wire::WatchResponse>, Refusal> {
        loop {
            if self.finished {
                return Ok(None);
            }
            let early = mutant!(CheckpointTooEarly) && self.checkpoint_due;
            if !early && let Some(page) = self.read_page(now_ms)? {
                self.read_until = page.read_until;
                if let Some(cursor) = page.cursor {
                    self.advance(cursor);
                }
                if !page.records.is_empty() {
                    return Ok(Some(event(Event::Changes(wire::Changes {
                        records: page.records.into_iter().map(Into::into).collect(),
                        cursor: page.cursor.or(self.untimely()).map(told),
                    }))));
                }
            } else if self.checkpoint_due && !mutant!(NoCheckpoint) {
                // nothing when a commit came in between: then read that first
                if let Some(checkpoint) = self.checkpoint(now_ms)? {
                    self.checkpoint_due = false;
                    return Ok(Some(checkpoint));
                }
            } else if self.until_caught_up && !mutant!(CatchUpGoesOn) {
                self.finished = true;
                return Ok(Some(event(Event::End(wire::StreamEnd::default()))));
            } else {
                return Ok(None);
            }
        }
    }

    /// That the replica's cursors, as far as they have come, still continue
    /// the history.
    fn judge(&self, tx: &mut dyn ReadTx) -> Result<Standing, Refusal> {
        let authoritative = self.service.store().authoritative();
        let standing = Standing::judge(tx, &self.held, self.newest_commit, authoritative)?;
        let judged = self.clock_ms > 0;
        if !(mutant!(WatchJudgesOnce) && judged) {
            standing.check_in_order()?;
        }
        Ok(standing)
    }

    /// What comes next, cut to the size of a message, at the end of a commit
    /// if the message holds one. `None` when there is nothing new.
    fn read_page(&mut self, now_ms: u64) -> Result<Option<Page>, Refusal> {
        let mut tx = self.service.store().read(&self.space)?;
        let state = self.judge(&mut *tx)?.state;
        let head = state.position.head;
        self.clock_ms = state.told_time(0);
        if self.generation != state.generation {
            // records were set aside without a commit: whoever holds them
            // learns from a checkpoint that they are missed
            self.generation = state.generation;
            self.checkpoint_due = true;
        }
        let deaf = mutant!(WatchHearsNothing) && self.delivered.is_some() && !self.checkpoint_due;
        if self.delivered == Some(head) || deaf {
            return Ok(None);
        }
        let mut found: Vec<(u64, Record)> = Vec::new();
        let mut bytes = 0;
        let mut full = false;
        tx.changes(self.read_until, &self.ranges, &mut |stored| {
            if stored.sequence <= self.start_of(&stored.record) {
                return ControlFlow::Continue(());
            }
            let record = stored.record;
            if mutant!(WatchWithoutTombstones) && record.is_tombstone() {
                return ControlFlow::Continue(());
            }
            bytes += Limits::encoded_bound(&record.key, record.content.value().len());
            if bytes > self.message_bytes && !found.is_empty() && !mutant!(WatchTooLarge) {
                full = true;
                return ControlFlow::Break(());
            }
            found.push((stored.sequence, record));
            ControlFlow::Continue(())
        })?;
        let last = found
            .last()
            .map_or(self.read_until, |(sequence, _)| *sequence);
        let (read_until, cursor) = if !full || mutant!(CursorBeforeRecords) {
            (head.point.sequence, Some(head))
        } else {
            match tx.commit_until(last)? {
                Some(end) if end.point.sequence > self.read_until => {
                    (end.point.sequence, Some(end))
                }
                // one commit fills the message: it goes on in the next
                _ => (last, None),
            }
        };
        let damage = tx.take_damage();
        drop(tx);
        if self.service.quarantine(&self.space, damage, now_ms)? {
            self.checkpoint_due = true;
        }
        found.retain(|(sequence, _)| *sequence <= read_until);
        if mutant!(WatchOmits) {
            found.pop();
        }
        let newest = cursor.is_some_and(|c| c == head && c.point.sequence.is_multiple_of(2));
        if mutant!(NewestInvisible) && newest && last == read_until {
            found.pop();
        }
        if mutant!(ChangesBackwards) {
            found.reverse();
        }
        Ok(Some(Page {
            records: found.into_iter().map(|(_, record)| record).collect(),
            read_until,
            cursor,
        }))
    }

    /// The sequence up to which the replica had this record's range when it
    /// opened the watch.
    fn start_of(&self, record: &Record) -> u64 {
        let key = record.key.as_bytes();
        let of = |h: &Held| h.ranges.contains(key);
        self.held
            .iter()
            .position(of)
            .and_then(|i| self.starts.get(i))
            .copied()
            .unwrap_or(0)
    }

    /// A cursor where none belongs: nobody gets one but from a mutant.
    fn untimely(&self) -> Option<Cursor> {
        mutant!(WatchCursorInCommit).then(|| Cursor::origin(Epoch(1)))
    }

    fn advance(&mut self, to: Cursor) {
        let older = |c: Option<Cursor>| c.is_none_or(|c| c.point.sequence <= to.point.sequence);
        for held in &mut self.held {
            if older(held.cursor) {
                held.cursor = Some(to);
            }
        }
        if older(self.newest_commit) {
            self.newest_commit = None;
        }
        self.delivered = Some(to);
    }

    /// What the replica should hold now; `None` when it was not told all of it
    /// yet.
    fn checkpoint(&self, now_ms: u64) -> Result<Option<wire::WatchResponse>, Refusal> {
        let (answer, _) = self.service.with_tree(&self.space, |tree, tx| {
            let state = self.judge(tx)?.state;
            let position = state.position;
            if self.delivered != Some(position.head) && !mutant!(CheckpointTooEarly) {
                return Ok(None);
            }
            let ranges = self.held.iter().flat_map(|h| &h.ranges);
            Ok::<_, Refusal>(Some(event(Event::Checkpoint(wire::Checkpoint {
                position: Some(told_position(&state)),
                ranges: match mutant!(CheckpointOfEmpty) {
                    false => range_states(tree, ranges),
                    true => range_states(&Default::default(), ranges),
                },
                server_time_ms: state.told_time(now_ms),
            }))))
        })?;
        answer
    }
}

/// The end of a commit as the stream tells it.
fn told(end: Cursor) -> wire::Cursor {
    let mut told = end.to_wire();
    if mutant!(WatchTellsOtherTags) {
        told.tag ^= 1;
    }
    told
}

fn event(event: Event) -> wire::WatchResponse {
    wire::WatchResponse { event: Some(event) }
}
