//! The part of a request that nobody read. Over HTTP/1.1 an answer that comes
//! while the request is still being sent is lost on most clients, browsers
//! among them: they see a broken connection. So the rest is read and thrown
//! away first, within bounds.

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// More than this is not waited for.
const MOST_BYTES: usize = 64 << 20;
/// Nor a peer that pauses for so long …
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// … or takes so long in all.
const LONGEST: Duration = Duration::from_secs(10);

/// A request's body that comes back when its reader drops it.
pub struct Lent {
    body: Option<Incoming>,
    home: Remainder,
}

/// Where it comes back to.
#[derive(Clone, Default)]
pub struct Remainder(Arc<Mutex<Option<Incoming>>>);

/// Lends a body to a reader.
pub fn lend(body: Incoming) -> (Lent, Remainder) {
    let home = Remainder::default();
    let lent = Lent {
        body: Some(body),
        home: home.clone(),
    };
    (lent, home)
}

impl Remainder {
    /// Reads what is left, if the reader has gone.
    pub async fn discard(self) {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = left.filter(|b| !b.is_end_stream()) else {
            return;
        };
        let all = async {
            let mut bytes = 0;
            while bytes < MOST_BYTES {
                let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
                match timeout(LONGEST_PAUSE, frame).await {
                    Ok(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
                    _ => return,
                }
            }
        };
        // whoever is slower than this gets the answer as it comes
        let _ = timeout(LONGEST, all).await;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
