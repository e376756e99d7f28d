//! Drivers that dial in over a WebSocket, as browsers must: each connection is
//! one driver, and its path names the slot that it runs in. Knows no message.

use futures::{FutureExt, SinkExt, StreamExt};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// How long somebody may take to dial in: the first after the start, the
/// others while those before them are still at work.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port at which drivers dial in. Clones share it.
#[derive(Clone, Debug)]
pub struct Listener {
    waiting: Arc<Waiting>,
    address: SocketAddr,
}

#[derive(Debug, Default)]
struct Waiting {
    sockets: Mutex<VecDeque<Socket>>,
    arrived: Notify,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Listener> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(accept(listener, waiting.clone()));
        Ok(Listener { waiting, address })
    }

    /// Where.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// "ws://127.0.0.1:PORT".
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The next driver; of that slot, if one is named.
    ///
    /// # Errors
    /// When nobody dials in.
    pub async fn next(&self, slot: Option<&str>) -> Result<Socket, String> {
        let arrival = async {
            loop {
                // asked for before looking, so that none is missed
                let arrived = self.waiting.arrived.notified();
                if let Some(socket) = self.waiting.take(slot) {
                    return socket;
                }
                arrived.await;
            }
        };
        timeout(PATIENCE, arrival).await.map_err(|_| match slot {
            None => format!("no driver dials in at {} within {PATIENCE:?}", self.url()),
            Some(slot) => format!("the driver of slot {slot:?} does not dial in again"),
        })
    }
}

impl Waiting {
    fn take(&self, slot: Option<&str>) -> Option<Socket> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        // a page that was reloaded meanwhile has hung up
        sockets.retain_mut(Socket::is_open);
        let fits = |s: &Socket| slot.is_none_or(|slot| s.slot == slot);
        let at = sockets.iter().position(fits)?;
        sockets.remove(at)
    }
}

async fn accept(listener: TcpListener, waiting: Arc<Waiting>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        let waiting = waiting.clone();
        tokio::spawn(async move {
            // what speaks no WebSocket is no driver
            if let Ok(socket) = Socket::accept(tcp).await {
                let mut sockets = waiting
                    .sockets
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                sockets.push_back(socket);
                drop(sockets);
                waiting.arrived.notify_waiters();
            }
        });
    }
}

/// The connection of one driver.
#[derive(Debug)]
pub struct Socket {
    slot: String,
    stream: WebSocketStream<TcpStream>,
    id: u64,
}

impl Socket {
    async fn accept(tcp: TcpStream) -> Result<Socket, tungstenite::Error> {
        let _ = tcp.set_nodelay(true);
        let mut slot = String::new();
        #[allow(clippy::result_large_err)] // the signature that the library asks for
        let read_slot = |request: &Request, response: Response| {
            request.uri().path().clone_into(&mut slot);
            Ok(response)
        };
        let stream = accept_hdr_async(tcp, read_slot).await?;
        Ok(Socket {
            slot,
            stream,
            id: 0,
        })
    }

    /// Whether it still waits for its first request. Whoever speaks unasked is
    /// no driver.
    fn is_open(&mut self) -> bool {
        self.stream.next().now_or_never().is_none()
    }

    /// The id of the next request.
    pub fn next_id(&mut self) -> u64 {
        self.id += 1;
        self.id
    }

    /// Sends a message.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn send(&mut self, json: &str) -> Result<(), String> {
        let sent = self.stream.send(Message::text(json)).await;
        sent.map_err(|e| format!("the driver of slot {:?} takes nothing: {e}", self.slot))
    }

    /// The next message.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn receive(&mut self, patience: Duration) -> Result<String, String> {
        let slot = &self.slot;
        let stream = &mut self.stream;
        let text = async {
            loop {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                    // the library answers these
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_))) | None => {
                        return Err(format!("the driver of slot {slot:?} hung up"));
                    }
                    Some(Ok(_)) => {
                        return Err(format!("the driver of slot {slot:?} sends no text"));
                    }
                    Some(Err(e)) => {
                        return Err(format!("the driver of slot {slot:?} broke off: {e}"));
                    }
                }
            }
        };
        match timeout(patience, text).await {
            Ok(text) => text,
            Err(_) => Err(format!(
                "the driver of slot {slot:?} did not answer within {patience:?}"
            )),
        }
    }

    /// Hangs up, and tells in which slot the next one will be.
    pub async fn close(mut self) -> String {
        // it may be gone already
        let _ = timeout(Duration::from_secs(1), self.stream.close(None)).await;
        self.slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::client_async;

    async fn dial(listener: &Listener, slot: &str) -> WebSocketStream<TcpStream> {
        let tcp = TcpStream::connect(listener.address).await.unwrap();
        let url = format!("{}{slot}", listener.url());
        client_async(url, tcp).await.unwrap().0
    }

    async fn listener() -> Listener {
        Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap()
    }

    #[tokio::test]
    async fn after_a_kill_the_next_driver_is_of_the_same_slot() {
        let listener = listener().await;
        let mut first = dial(&listener, "/a").await;
        let killed = listener.next(None).await.unwrap();
        let slot = killed.close().await;
        assert!(matches!(first.next().await, Some(Ok(Message::Close(_)))));
        let _other = dial(&listener, "/b").await;
        let (next, _again) = tokio::join!(listener.next(Some(&slot)), dial(&listener, "/a"));
        assert_eq!(next.unwrap().slot, "/a");
        assert_eq!(listener.next(None).await.unwrap().slot, "/b");
    }

    #[tokio::test]
    async fn who_hung_up_while_waiting_is_not_taken_for_a_driver() {
        let listener = listener().await;
        let mut gone = dial(&listener, "/a").await;
        gone.close(None).await.unwrap();
        let arrived = async {
            while listener
                .waiting
                .sockets
                .lock()
                .unwrap()
                .iter_mut()
                .all(Socket::is_open)
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), arrived).await.unwrap();
        let _here = dial(&listener, "/b").await;
        assert_eq!(listener.next(None).await.unwrap().slot, "/b");
    }

    #[tokio::test]
    async fn messages_go_both_ways_and_a_hang_up_is_told() {
        let listener = listener().await;
        let mut there = dial(&listener, "/a").await;
        let mut here = listener.next(None).await.unwrap();
        here.send("{}").await.unwrap();
        assert_eq!(there.next().await.unwrap().unwrap(), Message::text("{}"));
        there.send(Message::text("[]")).await.unwrap();
        let patience = Duration::from_secs(10);
        assert_eq!(here.receive(patience).await.unwrap(), "[]");
        there.close(None).await.unwrap();
        assert!(
            here.receive(patience)
                .await
                .unwrap_err()
                .contains("hung up")
        );
    }
}
