//! Connections beneath the calls, byte by byte: some that say too little, and
//! HTTP/2 as far as its pings. Knows no requests.

use super::client::Endpoint;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// What an HTTP/2 client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A SETTINGS frame that changes nothing.
pub const SETTINGS: [u8; 9] = [0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0];

/// Types of frames of RFC 9113.
pub mod kind {
    /// The beginning of a request.
    pub const HEADERS: u8 = 1;
    /// What a peer allows.
    pub const SETTINGS: u8 = 4;
    /// Whether the other one is there.
    pub const PING: u8 = 6;
    /// The end of a connection, announced.
    pub const GOAWAY: u8 = 7;
}

/// The flag of answers to SETTINGS and PING.
pub const ACK: u8 = 1;
/// Longer ones are no frames that a connection without calls sees.
const LONGEST: usize = 64 << 10;

/// Says this and nothing more. Returns after how long the server closed the
/// connection; `None`: it did not within `patience`.
///
/// # Errors
/// When there is no connection.
pub async fn closed_after(
    endpoint: &Endpoint,
    says: &[u8],
    patience: Duration,
) -> io::Result<Option<Duration>> {
    let mut tcp = TcpStream::connect(&endpoint.authority).await?;
    let began = Instant::now();
    tcp.write_all(says).await?;
    let mut heard = [0; 1024];
    let silence = async { while matches!(tcp.read(&mut heard).await, Ok(n) if n > 0) {} };
    let closed = timeout(patience, silence).await.is_ok();
    Ok(closed.then(|| began.elapsed()))
}

/// One frame of HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// See [`ACK`].
    pub flags: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// An HTTP/2 connection without calls.
pub struct Http2 {
    tcp: TcpStream,
    heard: Vec<u8>,
}

impl Http2 {
    /// Connects, and says what a client says first.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn open(endpoint: &Endpoint) -> io::Result<Http2> {
        let mut tcp = TcpStream::connect(&endpoint.authority).await?;
        tcp.set_nodelay(true)?;
        tcp.write_all(&[PREFACE, &SETTINGS].concat()).await?;
        Ok(Http2 {
            tcp,
            heard: Vec::new(),
        })
    }

    /// The next frame; `None`: the connection is closed. What is read of a
    /// frame stays when this is dropped before its end.
    ///
    /// # Errors
    /// For what is no frame.
    pub async fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(head) = self.heard.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let (kind, flags) = (head[3], head[4]);
                if length > LONGEST {
                    return Err(io::Error::other("a frame without end"));
                }
                if self.heard.len() >= 9 + length {
                    let payload = self.heard[9..9 + length].to_vec();
                    self.heard.drain(..9 + length);
                    return Ok(Some(Frame {
                        kind,
                        flags,
                        payload,
                    }));
                }
            }
            match self.tcp.read_buf(&mut self.heard).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends a frame of the whole connection.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&mut self, kind: u8, flags: u8, payload: &[u8]) -> io::Result<()> {
        let length = payload.len() as u32;
        let head = [&length.to_be_bytes()[1..], &[kind, flags, 0, 0, 0, 0]].concat();
        self.tcp.write_all(&[&head, payload].concat()).await
    }
}

/// What became of a connection on which nothing was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// A ping came.
    pub pinged: bool,
    /// The connection was closed after the ping that nobody answered.
    pub closed: bool,
}

/// Leaves a connection idle and its pings unanswered, until it is closed or
/// `patience` is over: once for the ping, once for the end.
///
/// # Errors
/// When there is no connection.
pub async fn idle(endpoint: &Endpoint, patience: Duration) -> io::Result<Idle> {
    let mut http2 = Http2::open(endpoint).await?;
    let mut seen = Idle::default();
    let mut until = Instant::now() + patience;
    loop {
        match tokio::time::timeout_at(until, http2.frame()).await {
            Err(_) => return Ok(seen),
            Ok(frame) => match frame? {
                None => {
                    seen.closed = seen.pinged;
                    return Ok(seen);
                }
                Some(f) if f.kind == kind::SETTINGS && f.flags & ACK == 0 => {
                    http2.send(kind::SETTINGS, ACK, &[]).await?;
                }
                Some(f) if f.kind == kind::PING && f.flags & ACK == 0 && !seen.pinged => {
                    seen.pinged = true;
                    until = Instant::now() + patience;
                }
                Some(_) => {}
            },
        }
    }
}

/// Pings the server so many times, and answers its own pings. Returns how
/// many it answered before it turned the connection away.
///
/// # Errors
/// When there is no connection.
pub async fn ping(
    endpoint: &Endpoint,
    times: u64,
    every: Duration,
    patience: Duration,
) -> io::Result<u64> {
    let mut http2 = Http2::open(endpoint).await?;
    let mut answered = 0;
    for n in 0..times {
        let began = Instant::now();
        if http2.send(kind::PING, 0, &n.to_be_bytes()).await.is_err() {
            return Ok(answered);
        }
        let mut until = began + patience;
        loop {
            match tokio::time::timeout_at(until, http2.frame()).await {
                // the pause is over, with or without an answer
                Err(_) if answered > n => break,
                Err(_) => return Ok(answered),
                Ok(frame) => match frame? {
                    None => return Ok(answered),
                    Some(f) if f.kind == kind::GOAWAY => return Ok(answered),
                    Some(f) if f.kind == kind::PING && f.flags & ACK != 0 => {
                        answered = n + 1;
                        if answered == times {
                            return Ok(answered);
                        }
                        until = began + every;
                    }
                    Some(f) if matches!(f.kind, kind::PING | kind::SETTINGS) && f.flags == 0 => {
                        if http2.send(f.kind, ACK, &answer(&f)).await.is_err() {
                            return Ok(answered);
                        }
                    }
                    Some(_) => {}
                },
            }
        }
    }
    Ok(answered)
}

/// What an acknowledgement carries: SETTINGS nothing, a ping what it brought.
fn answer(frame: &Frame) -> Vec<u8> {
    match frame.kind {
        kind::PING => frame.payload.clone(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that says this, waits until the client has said something, and
    /// hangs up.
    async fn server(says: Vec<u8>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(&says).await.unwrap();
            let mut heard = [0; PREFACE.len() + SETTINGS.len()];
            tcp.read_exact(&mut heard).await.unwrap();
        });
        Endpoint { authority }
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u8;
        [&[0, 0, length, kind, flags, 0, 0, 0, 0], payload].concat()
    }

    #[tokio::test]
    async fn an_end_after_a_ping_that_nobody_answered_is_seen() {
        let patience = Duration::from_secs(5);
        let pinging = server(frame(kind::PING, 0, &[7; 8])).await;
        let seen = idle(&pinging, patience).await.unwrap();
        let both = Idle {
            pinged: true,
            closed: true,
        };
        assert_eq!(seen, both);
        let mute = server(Vec::new()).await;
        assert_eq!(idle(&mute, patience).await.unwrap(), Idle::default());
    }

    #[tokio::test]
    async fn pings_are_counted_up_to_the_end_of_the_connection() {
        let says = [
            frame(kind::PING, ACK, &[0; 8]),
            frame(kind::GOAWAY, 0, &[0; 8]),
        ];
        let angry = server(says.concat()).await;
        let second = Duration::from_secs(1);
        let answered = ping(&angry, 3, second / 100, second * 5).await.unwrap();
        assert_eq!(answered, 1);
    }

    #[tokio::test]
    async fn a_connection_that_stays_open_is_not_taken_for_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let open = Endpoint { authority };
        let patience = Duration::from_millis(50);
        assert_eq!(closed_after(&open, b"GET", patience).await.unwrap(), None);
        let closing = server(Vec::new()).await;
        let says = [PREFACE, &SETTINGS].concat();
        let closed = closed_after(&closing, &says, Duration::from_secs(5)).await;
        assert!(closed.unwrap().is_some());
    }
}
