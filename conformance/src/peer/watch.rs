//! One Watch of the peer: catch-up, checkpoint, then live with heartbeats.

use super::quirk::Quirk;
use super::refusal::Detail;
use super::service::{Service, State, budget, chunks};
use crate::schema::v1;
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A stream that is being served.
pub(super) struct WatchTask {
    pub service: Service,
    pub request: v1::WatchRequest,
    pub cursor: u64,
    pub epoch: u64,
    /// Up to which nothing is unsent.
    pub delivered: Option<v1::Cursor>,
    pub live: bool,
    pub checkpointed: bool,
    pub commits: watch::Receiver<u64>,
    pub sender: mpsc::Sender<Vec<u8>>,
}

impl WatchTask {
    /// Serves it to its end.
    pub async fn run(mut self) {
        use v1::watch_response::Event;
        if self.service.quirk(Quirk::EarlyCheckpoint) {
            let checkpoint = self.checkpoint(&mut self.service.lock());
            if !self.send(Event::Checkpoint(checkpoint)).await {
                return;
            }
            self.checkpointed = true;
        }
        loop {
            self.commits.borrow_and_update();
            let events = match self.batch() {
                Ok(events) => events,
                Err(end) => {
                    self.send(Event::End(*end)).await;
                    return;
                }
            };
            for event in events {
                if !self.send(event).await {
                    return;
                }
            }
            if self.request.until_caught_up || !self.live {
                if !self.service.quirk(Quirk::NoStreamEnd) {
                    self.send(Event::End(v1::StreamEnd::default())).await;
                }
                return;
            }
            if !self.wait().await {
                return;
            }
        }
    }

    /// Until there is something new; heartbeats meanwhile.
    async fn wait(&mut self) -> bool {
        let interval = self
            .service
            .with_settings(|s| s.limits.heartbeat_interval_ms.max(20) / 2);
        let late = self.service.quirk(Quirk::LateChanges);
        loop {
            let pause = tokio::time::sleep(Duration::from_millis(interval));
            let closed = self.sender.clone();
            tokio::select! {
                changed = self.commits.changed(), if !late => return changed.is_ok(),
                () = closed.closed() => return false,
                () = pause => {}
            }
            if !self.service.quirk(Quirk::NoHeartbeat) {
                let time = self.service.lock().told(&self.request.space);
                let beat = v1::Heartbeat {
                    server_time_ms: time,
                    cursor: self.delivered,
                };
                if !self.send(v1::watch_response::Event::Heartbeat(beat)).await {
                    return false;
                }
            }
            if late {
                // long after the commit
                tokio::time::sleep(Duration::from_millis(interval * 40)).await;
                return true;
            }
        }
    }

    /// What there is to send, read from one state of the space.
    fn batch(&mut self) -> Result<Vec<v1::watch_response::Event>, Box<v1::StreamEnd>> {
        use v1::watch_response::Event;
        let service = self.service.clone();
        let mut state = service.lock();
        let budget = budget(self.request.max_response_bytes, &state.settings.limits);
        let inside = state.quirk(Quirk::CursorInsideCommit);
        let name = self.request.space.clone();
        let space = state.space(&name);
        if space.epoch != self.epoch || self.cursor < space.compacted_through {
            let statuses = space.statuses(&self.request.held, None);
            let refusal = space.history_changed(statuses);
            return Err(Box::new(v1::StreamEnd {
                reason: v1::Reason::HistoryChanged as i32,
                detail: refusal.text,
                retry_after_ms: 0,
                history: match refusal.detail.map(|d| *d) {
                    Some(Detail::History(h)) => Some(h),
                    _ => None,
                },
            }));
        }
        let mut out = Vec::new();
        let mut ends: BTreeMap<u64, (v1::Cursor, Vec<v1::Record>)> = BTreeMap::new();
        for stored in space.changes(&self.request.held, self.cursor) {
            let end = space.commit_end(stored.sequence);
            ends.entry(end.sequence)
                .or_insert_with(|| (end, Vec::new()))
                .1
                .push(stored.record.to_wire());
        }
        for (end, records) in ends.into_values() {
            let parts = chunks(records.into_iter(), budget, false);
            let last = parts.len().saturating_sub(1);
            for (i, records) in parts.into_iter().enumerate() {
                out.push(Event::Changes(v1::Changes {
                    records,
                    cursor: (i == last || inside).then_some(end),
                }));
            }
        }
        self.cursor = self.cursor.max(space.head().sequence);
        self.delivered = Some(space.head());
        if !std::mem::replace(&mut self.checkpointed, true) {
            out.push(Event::Checkpoint(self.checkpoint(&mut state)));
        }
        Ok(out)
    }

    fn checkpoint(&self, state: &mut State) -> v1::Checkpoint {
        let (now, reconciles) = (state.told(&self.request.space), state.reconciles());
        let space = state.space(&self.request.space);
        let ranges = self.request.held.iter().flat_map(|h| &h.ranges);
        v1::Checkpoint {
            position: Some(space.position()),
            ranges: ranges
                .filter(|_| reconciles)
                .map(|r| space.range_state(r))
                .collect(),
            server_time_ms: now,
        }
    }

    async fn send(&self, event: v1::watch_response::Event) -> bool {
        let message = v1::WatchResponse { event: Some(event) };
        self.sender.send(message.encode_to_vec()).await.is_ok()
    }
}
