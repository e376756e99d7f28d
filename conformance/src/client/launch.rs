//! Where drivers come from, and the channel to one: a process that is started
//! for each case, or somebody who dials in over a WebSocket. Knows no command.

use super::listen::{Listener, Socket};
use crate::process::{Child, Format};
use crate::schema;
use crate::suite::option;
use prost::Message;
use std::time::Duration;

/// Where drivers come from. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Launch {
    /// Each is a process.
    Exec {
        /// Its command.
        command: String,
        /// How it is spoken to.
        format: Format,
    },
    /// Each is a connection.
    Listen(Listener),
}

impl Launch {
    /// Processes of that command, spoken to in protobuf.
    pub fn exec(command: impl Into<String>) -> Launch {
        Launch::Exec {
            command: command.into(),
            format: Format::Protobuf,
        }
    }

    /// The options that name it on the command line.
    pub fn options(&self) -> String {
        match self {
            Launch::Exec { command, format } => option("--exec", command) + format.option(),
            Launch::Listen(listener) => format!("--listen {}", listener.address()),
        }
    }

    /// A driver that nobody has spoken to.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn start(&self) -> Result<Channel, String> {
        match self {
            Launch::Exec { command, format } => Child::spawn(command, *format).map(Channel::Child),
            Launch::Listen(listener) => listener.next(None).await.map(Channel::Socket),
        }
    }

    /// One in the place of another that was killed: it finds the stores of
    /// that one.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn start_after(&self, killed: Remains) -> Result<Channel, String> {
        match (self, killed) {
            (Launch::Listen(listener), Remains::Slot(slot)) => {
                listener.next(Some(&slot)).await.map(Channel::Socket)
            }
            _ => self.start().await,
        }
    }
}

/// What a killed driver leaves behind.
pub enum Remains {
    /// Files in the working directory.
    Files,
    /// The storage of the browser that dials in under that name.
    Slot(String),
}

/// The channel to a driver.
pub enum Channel {
    /// On stdin and stdout.
    Child(Child),
    /// In text frames.
    Socket(Socket),
}

impl Channel {
    /// The id of the next request.
    pub fn next_id(&mut self) -> u64 {
        match self {
            Channel::Child(child) => child.next_id(),
            Channel::Socket(socket) => socket.next_id(),
        }
    }

    /// Sends bytes that may be no message of the schema; `json` says the same.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn send_raw(&mut self, protobuf: &[u8], json: &str) -> Result<(), String> {
        match self {
            Channel::Child(child) => child.send_raw(protobuf, json).await,
            Channel::Socket(socket) => socket.send(json).await,
        }
    }

    /// Receives a message of that type.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn receive<A: Message + Default>(
        &mut self,
        kind: &str,
        patience: Duration,
    ) -> Result<A, String> {
        match self {
            Channel::Child(child) => child.receive(kind, patience).await,
            Channel::Socket(socket) => {
                let json = socket.receive(patience).await?;
                let bytes = schema::from_json(kind, &json)?;
                A::decode(bytes.as_slice()).map_err(|e| format!("no {kind}: {e}"))
            }
        }
    }

    /// Sends a request and receives its answer.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn exchange<Q: Message, A: Message + Default>(
        &mut self,
        request: &Q,
        request_kind: &str,
        answer_kind: &str,
        patience: Duration,
    ) -> Result<A, String> {
        match self {
            Channel::Child(child) => {
                child
                    .exchange(request, request_kind, answer_kind, patience)
                    .await
            }
            Channel::Socket(socket) => {
                let json = schema::to_json(request_kind, &request.encode_to_vec())?;
                socket.send(&json).await?;
                self.receive(answer_kind, patience).await
            }
        }
    }

    /// Kills the driver, as a crash does.
    pub async fn kill(self) -> Remains {
        match self {
            Channel::Child(child) => {
                child.kill().await;
                Remains::Files
            }
            Channel::Socket(socket) => Remains::Slot(socket.close().await),
        }
    }
}
