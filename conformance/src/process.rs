//! A child process that is spoken to over stdin and stdout, in length-prefixed
//! protobuf or in JSON lines. Knows nothing of the messages.

use crate::schema;
use prost::Message;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Longer messages are taken for noise on stdout.
const MAX_MESSAGE: usize = 256 << 20;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// Four bytes of length, big-endian, and the message.
    #[default]
    Protobuf,
    /// One message in proto3 JSON on each line.
    Json,
}

impl Format {
    /// The command line's option for it, after others.
    pub fn option(self) -> &'static str {
        match self {
            Format::Protobuf => "",
            Format::Json => " --format json",
        }
    }
}

/// A child process. Killed when dropped.
pub struct Child {
    process: tokio::process::Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    format: Format,
    id: u64,
    command: String,
}

impl Child {
    /// Starts `command`, its words split at spaces, quotes respected.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn spawn(command: &str, format: Format) -> Result<Child, String> {
        let words = words(command)?;
        let (program, arguments) = words
            .split_first()
            .ok_or_else(|| "the command is empty".to_owned())?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start {program:?}: {e}"))?;
        let stdin = process.stdin.take().ok_or("no stdin")?;
        let stdout = process.stdout.take().ok_or("no stdout")?;
        Ok(Child {
            process,
            stdin,
            stdout: BufReader::new(stdout),
            format,
            id: 0,
            command: command.to_owned(),
        })
    }

    /// The id of the next request.
    pub fn next_id(&mut self) -> u64 {
        self.id += 1;
        self.id
    }

    /// Sends bytes that are no message of the schema, framed.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn send_raw(&mut self, protobuf: &[u8], json: &str) -> Result<(), String> {
        let bytes = match self.format {
            Format::Protobuf => {
                let mut bytes = (protobuf.len() as u32).to_be_bytes().to_vec();
                bytes.extend(protobuf);
                bytes
            }
            Format::Json => format!("{json}\n").into_bytes(),
        };
        let write = async {
            self.stdin.write_all(&bytes).await?;
            self.stdin.flush().await
        };
        write
            .await
            .map_err(|e| format!("{:?} does not take its input: {e}", self.command))
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
        let bytes = match timeout(patience, self.read(kind)).await {
            Ok(bytes) => bytes?,
            Err(_) => {
                return Err(format!(
                    "{:?} did not answer within {patience:?}",
                    self.command
                ));
            }
        };
        A::decode(bytes.as_slice()).map_err(|e| format!("{:?} sent no {kind}: {e}", self.command))
    }

    async fn read(&mut self, kind: &str) -> Result<Vec<u8>, String> {
        let ended =
            |e: std::io::Error| format!("{:?} ended or closed its output: {e}", self.command);
        match self.format {
            Format::Protobuf => {
                let length = self.stdout.read_u32().await.map_err(ended)? as usize;
                if length > MAX_MESSAGE {
                    return Err(format!(
                        "{:?} writes something else than framed messages to stdout",
                        self.command
                    ));
                }
                let mut bytes = vec![0; length];
                self.stdout.read_exact(&mut bytes).await.map_err(ended)?;
                Ok(bytes)
            }
            Format::Json => {
                let mut line = String::new();
                let read = self.stdout.read_line(&mut line).await.map_err(ended)?;
                if read == 0 {
                    return Err(format!("{:?} ended", self.command));
                }
                schema::from_json(kind, line.trim_end())
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
        let bytes = request.encode_to_vec();
        let json = match self.format {
            Format::Json => schema::to_json(request_kind, &bytes)?,
            Format::Protobuf => String::new(),
        };
        self.send_raw(&bytes, &json).await?;
        self.receive(answer_kind, patience).await
    }

    /// Kills the process and waits until it is gone.
    pub async fn kill(mut self) {
        // it may have ended by itself
        let _ = self.process.kill().await;
    }
}

/// Splits a command line at spaces; '...' and "..." hold words together.
fn words(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in command.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("the command {command:?} has an open quote"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_at_spaces_outside_quotes() {
        assert_eq!(
            words("node 'my driver.js'  --x \"a b\"").unwrap(),
            ["node", "my driver.js", "--x", "a b"]
        );
        assert!(words("node 'x").is_err());
    }
}
