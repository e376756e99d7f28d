//! A child process that is spoken to over stdin and stdout, in length-prefixed
//! protobuf or in JSON lines. Knows nothing of the messages.

use crate::schema;
use prost::Message;
use std::io::{self, ErrorKind, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer messages are taken for noise on stdout.
const MAX_MESSAGE: usize = 256 << 20;

/// How much of the end of stderr is kept, in bytes.
const MAX_COMPLAINT: usize = 1 << 10;
/// How long a child that has closed its pipes may take to end.
const PARTING: Duration = Duration::from_secs(1);

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
    complaints: Complaints,
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
        let (program, arguments) = words.split_first().ok_or("the command is empty")?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start {program:?}: {e}"))?;
        let stdin = process.stdin.take().ok_or("no stdin")?;
        let stdout = process.stdout.take().ok_or("no stdout")?;
        let stderr = process.stderr.take().ok_or("no stderr")?;
        Ok(Child {
            process,
            stdin,
            stdout: BufReader::new(stdout),
            complaints: Complaints::show(stderr),
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
        match write.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await),
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
        let bytes = match timeout(patience, self.read(kind)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(Unread::Ended)) => return Err(self.ended().await),
            Ok(Err(Unread::Noise(problem))) => return Err(problem),
            Err(_) => {
                return Err(format!(
                    "{:?} did not answer within {patience:?}{}",
                    self.command,
                    self.complaints.last()
                ));
            }
        };
        A::decode(bytes.as_slice()).map_err(|e| format!("{:?} sent no {kind}: {e}", self.command))
    }

    async fn read(&mut self, kind: &str) -> Result<Vec<u8>, Unread> {
        let noise = |what| {
            let command = &self.command;
            Unread::Noise(format!(
                "{command:?} writes something else than {what} to stdout"
            ))
        };
        match self.format {
            Format::Protobuf => {
                let length = self.stdout.read_u32().await? as usize;
                if length > MAX_MESSAGE {
                    return Err(noise("framed messages"));
                }
                let mut bytes = vec![0; length];
                self.stdout.read_exact(&mut bytes).await?;
                Ok(bytes)
            }
            Format::Json => {
                let mut line = String::new();
                match self.stdout.read_line(&mut line).await {
                    Ok(0) => Err(Unread::Ended),
                    Ok(_) => schema::from_json(kind, line.trim_end()).map_err(Unread::Noise),
                    Err(e) if e.kind() == ErrorKind::InvalidData => Err(noise("lines of JSON")),
                    Err(e) => Err(e.into()),
                }
            }
        }
    }

    /// That it ended, how, and what it said last.
    async fn ended(&mut self) -> String {
        let command = &self.command;
        let how = match timeout(PARTING, self.process.wait()).await {
            Ok(Ok(status)) => format!("ended ({status})"),
            _ => "closed its input or output".to_owned(),
        };
        self.complaints.all_heard().await;
        format!("{command:?} {how}{}", self.complaints.last())
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

/// Why there is no message.
enum Unread {
    Ended,
    Noise(String),
}

impl From<io::Error> for Unread {
    fn from(_: io::Error) -> Unread {
        // a pipe has no other
        Unread::Ended
    }
}

/// What a child says on stderr: shown as it comes, and the last of it kept.
struct Complaints {
    end: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Complaints {
    fn show(mut stderr: ChildStderr) -> Complaints {
        let end = Arc::new(Mutex::new(Vec::new()));
        let kept = end.clone();
        let reader = tokio::spawn(async move {
            let mut heard = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut heard).await {
                // nobody may be there to see it
                let _ = io::stderr().write_all(&heard[..n]);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&heard[..n]);
                let much = kept.len().saturating_sub(MAX_COMPLAINT);
                kept.drain(..much);
            }
        });
        Complaints { end, reader }
    }

    /// Waits for the rest of what an ended child said. Its own children may
    /// hold the pipe open.
    async fn all_heard(&mut self) {
        if !self.reader.is_finished() {
            let _ = timeout(PARTING, &mut self.reader).await;
        }
    }

    /// The last line, as the end of a sentence.
    fn last(&self) -> String {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&end);
        // Rust's hint at backtraces is not what went wrong
        let says = |line: &&str| !line.is_empty() && !line.starts_with("note: run with ");
        match text.lines().map(str::trim).rfind(says) {
            Some(line) => format!("; its last line on stderr: {line}"),
            None => String::new(),
        }
    }
}

/// Splits a command line at spaces; '...' and "..." hold words together.
///
/// # Errors
/// When there is no word, or a quote is open.
pub fn words(command: &str) -> Result<Vec<String>, String> {
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
        return Err("the command has an open quote".into());
    }
    words.extend(word);
    match words.is_empty() {
        true => Err("the command is empty".into()),
        false => Ok(words),
    }
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
        assert!(words(" ").is_err());
    }

    async fn unanswered(script: &str, patience: Duration) -> String {
        let mut child = Child::spawn(&format!("sh -c '{script}'"), Format::Protobuf).unwrap();
        child.receive::<()>("", patience).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_child_that_ends_is_told_with_its_status_and_last_line_on_stderr() {
        let long = Duration::from_secs(60);
        let told = unanswered("echo first >&2; echo why >&2; echo >&2; exit 7", long).await;
        assert!(told.contains("ended (exit status: 7)"), "{told}");
        assert!(told.ends_with("its last line on stderr: why"), "{told}");
        let told = unanswered("exit 0", long).await;
        assert!(told.ends_with("ended (exit status: 0)"), "{told}");
        let told = unanswered("echo panic >&2; echo note: run with X >&2", long).await;
        assert!(told.ends_with("stderr: panic"), "{told}");
    }

    #[tokio::test]
    async fn a_child_that_takes_no_input_is_told_with_its_last_line_on_stderr() {
        let script = "sh -c 'echo why >&2; exit 7'";
        let mut child = Child::spawn(script, Format::Protobuf).unwrap();
        child.process.wait().await.unwrap();
        let told = child.send_raw(b"", "").await.unwrap_err();
        assert!(told.ends_with("stderr: why"), "{told}");
    }

    #[tokio::test]
    async fn a_child_that_does_not_answer_is_told_with_its_last_line_on_stderr() {
        let script = "sh -c 'echo why >&2; exec 2>&-; read line'";
        let mut child = Child::spawn(script, Format::Protobuf).unwrap();
        child.complaints.all_heard().await;
        let told = child.receive::<()>("", Duration::from_millis(1)).await;
        let told = told.unwrap_err();
        assert!(told.contains("did not answer within 1ms"), "{told}");
        assert!(told.ends_with("stderr: why"), "{told}");
    }
}
