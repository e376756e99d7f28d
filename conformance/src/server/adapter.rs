//! The control adapter of a server: a child process that starts and stops it.

use crate::process::{Child, Format};
use crate::schema::driver::{
    self as wire, control_request::Command, control_response::Result as Answer,
};
use crate::suite::{Need, Stop};
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running adapter.
pub struct Adapter {
    child: Mutex<Child>,
    info: wire::ControlInfo,
}

impl Adapter {
    /// Starts the adapter and asks who it is.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn start(command: &str, format: Format) -> Result<Adapter, String> {
        let mut child = Child::spawn(command, format)?;
        let hello = Command::Hello(wire::ControlHello {});
        let answer = ask(&mut child, hello).await?;
        let Answer::Info(info) = answer else {
            return Err(format!("the adapter answers ControlHello with {answer:?}"));
        };
        Ok(Adapter {
            child: Mutex::new(child),
            info,
        })
    }

    /// Name, version, mutants.
    pub fn info(&self) -> &wire::ControlInfo {
        &self.info
    }

    /// What it can do for cases, and what its server claims: a claim is judged,
    /// whatever the server says of itself.
    pub fn offers(&self) -> Vec<Need> {
        use wire::ControlCapability as Can;
        self.info
            .capabilities()
            .filter_map(|c| match c {
                Can::Stop => Some(Need::Stop),
                Can::Kill => Some(Need::Kill),
                Can::Clock => Some(Need::Clock),
                Can::Compact => Some(Need::Compact),
                Can::Backup => Some(Need::Backup),
                Can::Tokens => Some(Need::Tokens),
                Can::Revoke => Some(Need::Revoke),
                Can::Wipe => Some(Need::Wipe),
                Can::Damage => Some(Need::Damage),
                Can::Limits => Some(Need::Limits),
                Can::Retire => Some(Need::Retire),
                Can::Retention => Some(Need::Retention),
                Can::FailWrites => Some(Need::FailWrites),
                Can::Unspecified => None,
            })
            .chain(Need::claimed(&self.info.profiles))
            .collect()
    }

    /// Gives a command.
    ///
    /// # Errors
    /// [`Stop::Suite`]: an adapter that fails says nothing about the server.
    pub async fn command(&self, command: Command) -> Result<Answer, Stop> {
        let mut child = self.child.lock().await;
        match ask(&mut child, command).await {
            Ok(Answer::Fault(fault)) => Err(Stop::Suite(format!("adapter: {}", fault.detail))),
            Ok(Answer::Unsupported(_)) => Err(Stop::Suite(
                "the adapter does not support what it announced".into(),
            )),
            Ok(answer) => Ok(answer),
            Err(problem) => Err(Stop::Suite(problem)),
        }
    }

    /// Starts the server and says where it is.
    ///
    /// # Errors
    /// As [`Adapter::command`].
    pub async fn start_server(&self, request: wire::StartServer) -> Result<String, Stop> {
        match self.command(Command::Start(request)).await? {
            Answer::Started(started) => Ok(started.url),
            other => Err(Stop::Suite(format!("StartServer answered with {other:?}"))),
        }
    }

    /// Makes a token.
    ///
    /// # Errors
    /// As [`Adapter::command`].
    pub async fn mint(&self, token: wire::MintToken) -> Result<String, Stop> {
        match self.command(Command::MintToken(token)).await? {
            Answer::Token(token) => Ok(token.token),
            other => Err(Stop::Suite(format!("MintToken answered with {other:?}"))),
        }
    }
}

async fn ask(child: &mut Child, command: Command) -> Result<Answer, String> {
    let id = child.next_id();
    let request = wire::ControlRequest {
        id,
        command: Some(command),
    };
    let response: wire::ControlResponse = child
        .exchange(
            &request,
            "gosync.conformance.v1.ControlRequest",
            "gosync.conformance.v1.ControlResponse",
            PATIENCE,
        )
        .await?;
    if response.id != id {
        return Err(format!(
            "the adapter answers {} instead of {id}",
            response.id
        ));
    }
    response
        .result
        .ok_or_else(|| "the adapter's answer has no result".to_owned())
}
