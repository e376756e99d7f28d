//! What goes over the wire, counted where somebody wants to know. Knows messages
//! only by their size and by how many records they carry.

use gosync_proto::wire::{self, snapshot_response, watch_response};
use prost::Message;

/// What one device sent and got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests, streams included.
    pub requests: u64,
    /// Reconcile calls among them.
    pub reconciles: u64,
    /// Snapshot calls among them.
    pub snapshots: u64,
    /// Encoded bytes of all messages, without the frames around them.
    pub bytes: u64,
    /// Records in all messages.
    pub records: u64,
}

impl Traffic {
    /// A message passed.
    pub fn count<M: Cargo>(&mut self, message: &M) {
        let request = u64::from(M::REQUEST);
        self.requests += request;
        self.reconciles += request * u64::from(M::CALL == Call::Reconcile);
        self.snapshots += request * u64::from(M::CALL == Call::Snapshot);
        self.bytes += message.encoded_len() as u64;
        self.records += message.records() as u64;
    }
}

/// The calls that healing is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Call {
    Reconcile,
    Snapshot,
    Other,
}

/// A message that may carry records.
pub trait Cargo: Message {
    /// Whether it begins a call.
    const REQUEST: bool;
    /// Of which call it is.
    const CALL: Call;
    /// How many records it carries.
    fn records(&self) -> usize;
}

macro_rules! cargo {
    ($($message:ident $request:literal $call:ident $records:expr;)*) => {
        $(impl Cargo for wire::$message {
            const REQUEST: bool = $request;
            const CALL: Call = Call::$call;
            fn records(&self) -> usize {
                let count: fn(&Self) -> usize = $records;
                count(self)
            }
        })*
    };
}

cargo! {
    HelloRequest true Other |_| 0;
    HelloResponse false Other |_| 0;
    PushRequest true Other |m| m.records.len();
    PushResponse false Other |m| m.verdicts.iter().filter(|v| v.winner.is_some()).count();
    ReconcileRequest true Reconcile |_| 0;
    ReconcileResponse false Reconcile |m| m.records.len();
    WatchRequest true Other |_| 0;
    WatchResponse false Other |m| match &m.event {
        Some(watch_response::Event::Changes(changes)) => changes.records.len(),
        _ => 0,
    };
    SnapshotRequest true Snapshot |_| 0;
    SnapshotResponse false Snapshot |m| match &m.event {
        Some(snapshot_response::Event::Chunk(chunk)) => chunk.records.len(),
        _ => 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_bytes_are_counted_both_ways() {
        let push = wire::PushRequest {
            space: "s".into(),
            records: vec![wire::Record::default(), wire::Record::default()],
            ..Default::default()
        };
        let mut traffic = Traffic::default();
        traffic.count(&push);
        traffic.count(&wire::ReconcileRequest::default());
        traffic.count(&wire::ReconcileResponse {
            records: vec![wire::Record::default()],
            ..Default::default()
        });
        assert_eq!((traffic.requests, traffic.reconciles), (2, 1));
        assert_eq!(traffic.records, 3);
        assert_eq!(traffic.bytes, (push.encoded_len() + 2) as u64);
    }
}
