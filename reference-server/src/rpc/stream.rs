//! The sending half of Watch and Snapshot: one message in flight, readers that
//! do not read are sent away, and a StreamEnd comes last whatever happens.
//! Knows nothing of what is sent.

use crate::ops::metrics::StreamGuard;
use gosync_proto::mutant;
use gosync_proto::wire::{SnapshotResponse, StreamEnd, WatchResponse};
use gosync_proto::wire::{snapshot_response, watch_response};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

/// A message of a stream that knows how to say the end.
pub trait Ends: Send + 'static {
    /// The last message.
    fn end(end: StreamEnd) -> Self;
}

impl Ends for WatchResponse {
    fn end(end: StreamEnd) -> Self {
        WatchResponse {
            event: Some(watch_response::Event::End(end)),
        }
    }
}

impl Ends for SnapshotResponse {
    fn end(end: StreamEnd) -> Self {
        SnapshotResponse {
            event: Some(snapshot_response::Event::End(end)),
        }
    }
}

/// Why a message could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsent {
    /// The reader has left.
    Gone,
    /// The reader did not take the message before this one in time.
    Slow,
}

/// Where a stream's producer puts messages.
pub struct Outlet<T> {
    messages: mpsc::Sender<T>,
    last: Arc<Mutex<Option<StreamEnd>>>,
    gone: CancellationToken,
    patience: Duration,
}

/// What the transport reads.
pub struct Inlet<T> {
    messages: mpsc::Receiver<T>,
    last: Arc<Mutex<Option<StreamEnd>>>,
    _gone: DropGuard,
    _counted: StreamGuard,
}

/// A stream that sends away readers who do not take a message for `patience`.
pub fn channel<T: Ends>(patience: Duration, counted: StreamGuard) -> (Outlet<T>, Inlet<T>) {
    // one message waits here while the transport sends the one before it
    let (sender, receiver) = mpsc::channel(1);
    let last = Arc::new(Mutex::new(None));
    let gone = CancellationToken::new();
    let outlet = Outlet {
        messages: sender,
        last: last.clone(),
        gone: gone.clone(),
        patience,
    };
    let inlet = Inlet {
        messages: receiver,
        last,
        _gone: gone.drop_guard(),
        _counted: counted,
    };
    (outlet, inlet)
}

impl<T: Ends> Outlet<T> {
    /// Sends one message, when the reader has room for it.
    ///
    /// # Errors
    /// [`Unsent`].
    pub async fn send(&self, message: T) -> Result<(), Unsent> {
        if mutant!(SlowReadersSkipped) {
            let _ = self.messages.try_send(message);
            return Ok(());
        }
        match tokio::time::timeout(self.patience, self.messages.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Unsent::Gone),
            Err(_) => Err(Unsent::Slow),
        }
    }

    /// Resolves when the reader has left.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Ends the stream. The end needs no room: it is read after whatever is
    /// still in flight. Resolves to whether the reader took it in time.
    pub async fn finish(self, end: StreamEnd) -> bool {
        let end = Some(end).filter(|_| !mutant!(EndUnsaid));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = end;
        drop(self.messages);
        tokio::time::timeout(self.patience, self.gone.cancelled())
            .await
            .is_ok()
    }
}

impl<T: Ends> futures::Stream for Inlet<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(cx).map(|message| match message {
            Some(message) => Some(Ok(message)),
            None => self
                .last
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
                .map(|end| Ok(T::end(end)))
                .or_else(|| mutant!(EndsInError).then(|| Err(Status::aborted("the end")))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::Metrics;
    use gosync_proto::wire::Heartbeat;
    use tokio_stream::StreamExt;

    fn heartbeat() -> WatchResponse {
        WatchResponse {
            event: Some(watch_response::Event::Heartbeat(Heartbeat::default())),
        }
    }

    fn stream(patience_ms: u64) -> (Outlet<WatchResponse>, Inlet<WatchResponse>) {
        let counted = Metrics::default().stream("Watch");
        channel(Duration::from_millis(patience_ms), counted)
    }

    #[tokio::test]
    async fn the_end_comes_after_what_was_sent() {
        let (outlet, mut inlet) = stream(1_000);
        outlet.send(heartbeat()).await.unwrap();
        let finishing = tokio::spawn(outlet.finish(StreamEnd::default()));
        let message = |m: Option<Result<WatchResponse, Status>>| m.unwrap().unwrap().event.unwrap();
        assert!(matches!(
            message(inlet.next().await),
            watch_response::Event::Heartbeat(_)
        ));
        assert!(matches!(
            message(inlet.next().await),
            watch_response::Event::End(_)
        ));
        assert!(inlet.next().await.is_none());
        drop(inlet);
        assert!(finishing.await.unwrap(), "the reader took the end");
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_is_slow_and_still_gets_the_end() {
        let (outlet, mut inlet) = stream(20);
        outlet.send(heartbeat()).await.unwrap();
        assert_eq!(outlet.send(heartbeat()).await, Err(Unsent::Slow));
        assert!(!outlet.finish(StreamEnd::default()).await);
        inlet.next().await.unwrap().unwrap();
        let last = inlet.next().await.unwrap().unwrap();
        assert!(matches!(last.event, Some(watch_response::Event::End(_))));
    }

    #[tokio::test]
    async fn a_reader_that_left_is_noticed() {
        let (outlet, inlet) = stream(1_000);
        drop(inlet);
        outlet.gone().await;
        assert_eq!(outlet.send(heartbeat()).await, Err(Unsent::Gone));
    }
}
