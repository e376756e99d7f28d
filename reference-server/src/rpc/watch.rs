//! Watch: waits on the space's feed and on timers, and sends what the request
//! logic has to say. Each stream reads on from its own cursor, so a slow
//! reader costs one message, not a queue.

use super::stream::{Inlet, Outlet, Unsent, channel};
use super::{Bounds, Shell, internal, slow_reader};
use crate::service::{Refusal, Watch};
use gosync_proto::wire::watch_response::Event;
use gosync_proto::wire::{StreamEnd, WatchRequest, WatchResponse};
use gosync_proto::{Reason, mutant};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tonic::Request;

/// A changed space gets a checkpoint after so many heartbeats.
const HEARTBEATS_PER_CHECKPOINT: u32 = 4;

pub(super) async fn run(
    shell: &Arc<Shell>,
    request: Request<WatchRequest>,
) -> Result<Inlet<WatchResponse>, Refusal> {
    let admitted = shell.admit(&request, &request.get_ref().space)?;
    let bounds = Bounds::new(shell, &request, &admitted);
    let request = request.into_inner();
    // refusals that are known before the first message are a status, not an end
    let watch = shell
        .blocking(move |service| service.watch(&admitted.access, request))
        .await?;
    let (outlet, inlet) = channel(shell.slow_reader_timeout, shell.metrics.stream("Watch"));
    let shell = shell.clone();
    tokio::spawn(async move {
        let end = {
            let mut reached = pin!(bounds.reached());
            tokio::select! {
                refusal = &mut reached => Some(refusal.to_stream_end()),
                end = follow(&shell, watch, &outlet) => end,
            }
        };
        if let Some(end) = end {
            bounds.finish(outlet, end).await;
        }
    });
    Ok(inlet)
}

/// Sends until the stream ends. `None` when the reader has left.
async fn follow(
    shell: &Arc<Shell>,
    mut watch: Watch,
    outlet: &Outlet<WatchResponse>,
) -> Option<StreamEnd> {
    let mut feed = watch.feed();
    // somewhat early, so that the promised interval holds on a busy machine
    let interval = Duration::from_millis(shell.limits.heartbeat_interval_ms).mul_f64(
        match mutant!(HeartbeatsLate) {
            false => 0.9,
            true => 20.0,
        },
    );
    let mut sent_at = Instant::now();
    let mut heartbeats = 0;
    let mut changed_since_checkpoint = false;
    loop {
        let now_ms = shell.clock.now_ms();
        let (returned, step) = shell
            .blocking(move |_| {
                let step = watch.step(now_ms);
                Ok((watch, step))
            })
            .await
            .map_or_else(|broken| (None, Err(broken)), |(w, s)| (Some(w), s));
        let message = match (returned, step) {
            (Some(w), Ok(message)) => {
                watch = w;
                message
            }
            (_, Err(mut refusal)) => {
                if mutant!(ChangeUnnamed) && refusal.reason == Reason::HistoryChanged {
                    refusal.reason = Reason::Unavailable;
                }
                return Some(refusal.to_stream_end());
            }
            (None, Ok(_)) => return Some(internal().to_stream_end()),
        };
        let message = match message {
            Some(message) => message,
            None => {
                tokio::select! {
                    () = outlet.gone() => {
                        if mutant!(CancelEndsAll) {
                            shell.drain.cancel();
                        }
                        return None;
                    }
                    changed = feed.changed(), if !mutant!(WatchWakesLate) => match changed {
                        Ok(()) => continue,
                        Err(_) => return Some(internal().to_stream_end()),
                    },
                    () = sleep_until(sent_at + interval) => {
                        heartbeats += 1;
                        let changed = changed_since_checkpoint && !mutant!(OneCheckpoint);
                        if changed && heartbeats >= HEARTBEATS_PER_CHECKPOINT {
                            watch.want_checkpoint();
                            continue;
                        }
                        watch.heartbeat(shell.clock.now_ms())
                    }
                }
            }
        };
        match &message.event {
            Some(Event::Changes(changes)) => {
                changed_since_checkpoint = true;
                shell.metrics.sent("Watch", changes.records.len() as u64);
            }
            Some(Event::Checkpoint(_)) => {
                changed_since_checkpoint = false;
                heartbeats = 0;
            }
            Some(Event::End(end)) => return Some(end.clone()),
            _ => {}
        }
        match outlet.send(message).await {
            Ok(()) => sent_at = Instant::now(),
            Err(Unsent::Gone) => return None,
            Err(Unsent::Slow) => return Some(slow_reader().to_stream_end()),
        }
    }
}
