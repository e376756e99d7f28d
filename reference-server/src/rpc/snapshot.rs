//! Snapshot: one blocking thread reads one state of the store and sends it
//! chunk by chunk, at the reader's pace.

use super::stream::{Inlet, Outlet, Unsent, channel};
use super::{Bounds, Shell, internal, slow_reader};
use crate::service::{Access, Refusal, Service};
use gosync_proto::Reason;
use gosync_proto::wire::snapshot_response::Event;
use gosync_proto::wire::{SnapshotRequest, SnapshotResponse, StreamEnd};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Request;

/// So long a snapshot waits for one of those that are under way to end.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(
    shell: &Arc<Shell>,
    request: Request<SnapshotRequest>,
) -> Result<Inlet<SnapshotResponse>, Refusal> {
    let admitted = shell.admit(&request, &request.get_ref().space)?;
    let bounds = Bounds::new(shell, &request, &admitted);
    let turn = timeout(TURN_TIMEOUT, shell.snapshots.clone().acquire_owned());
    let Ok(Ok(turn)) = turn.await else {
        return Err(Refusal {
            retry_after_ms: 1_000,
            ..Refusal::new(Reason::Unavailable, "too many snapshots at once; retry")
        });
    };
    let (outlet, inlet) = channel(shell.slow_reader_timeout, shell.metrics.stream("Snapshot"));
    let (opened, open) = oneshot::channel();
    let stop = CancellationToken::new();
    let reader = Reader {
        outlet,
        opened: Some(opened),
        stop: stop.clone(),
        runtime: Handle::current(),
        end: None,
    };
    let (service, now_ms) = (shell.service.clone(), shell.clock.now_ms());
    let metrics = shell.metrics.clone();
    let mut reading = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let sent = |n| metrics.sent("Snapshot", n);
        reader.run(
            &service,
            &admitted.access,
            &request.into_inner(),
            now_ms,
            &sent,
        )
    });
    tokio::spawn(async move {
        let (read, stopped) = tokio::select! {
            read = &mut reading => (read, None),
            refusal = bounds.reached() => {
                stop.cancel();
                (reading.await, Some(refusal.to_stream_end()))
            }
        };
        match read {
            Ok(Some((outlet, end))) => {
                let end = stopped.filter(|_| end.reason != 0).unwrap_or(end);
                bounds.finish(outlet, end).await;
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a snapshot broke down"),
        }
    });
    match open.await {
        Ok(Ok(())) => Ok(inlet),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(internal()),
    }
}

/// What the blocking thread works with.
struct Reader {
    outlet: Outlet<SnapshotResponse>,
    /// Told once whether the stream begins; taken at the first message.
    opened: Option<oneshot::Sender<Result<(), Refusal>>>,
    stop: CancellationToken,
    runtime: Handle,
    end: Option<StreamEnd>,
}

impl Reader {
    /// `None` when nobody reads (any more).
    fn run(
        mut self,
        service: &Service,
        access: &Access,
        request: &SnapshotRequest,
        now_ms: u64,
        sent: &dyn Fn(u64),
    ) -> Option<(Outlet<SnapshotResponse>, StreamEnd)> {
        let result = service.snapshot(access, request, now_ms, &mut |message| {
            if let Some(Event::Chunk(chunk)) = &message.event {
                sent(chunk.records.len() as u64);
            }
            self.emit(message)
        });
        if let Err(refusal) = result {
            if let Some(opened) = self.opened {
                let _ = opened.send(Err(refusal));
                return None;
            }
            self.end.get_or_insert(refusal.to_stream_end());
        }
        self.end.map(|end| (self.outlet, end))
    }

    fn emit(&mut self, message: SnapshotResponse) -> ControlFlow<()> {
        if let Some(opened) = self.opened.take()
            && opened.send(Ok(())).is_err()
        {
            return ControlFlow::Break(());
        }
        if let Some(Event::End(end)) = message.event {
            self.end = Some(end);
            return ControlFlow::Break(());
        }
        let sent = self.runtime.block_on(async {
            tokio::select! {
                sent = self.outlet.send(message) => sent.map_err(Some),
                () = self.stop.cancelled() => Err(None),
            }
        });
        match sent {
            Ok(()) => return ControlFlow::Continue(()),
            Err(Some(Unsent::Gone)) => {}
            Err(Some(Unsent::Slow)) => self.end = Some(slow_reader().to_stream_end()),
            // why it was stopped is known to whoever stopped it
            Err(None) => self.end = Some(internal().to_stream_end()),
        }
        ControlFlow::Break(())
    }
}
