//! The driver of a client: it does what commands say.

use super::launch::{Channel, Launch, Remains};
use crate::schema::driver::{
    self as wire, driver_request::Command, driver_response::Result as Answer,
};
use crate::suite::{Need, Raw, Stop};
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;

const REQUEST: &str = "gosync.conformance.v1.DriverRequest";
const RESPONSE: &str = "gosync.conformance.v1.DriverResponse";

/// What a command came to.
pub type Outcome = Answer;

/// A running driver.
pub struct Driver {
    channel: Channel,
    info: wire::DriverInfo,
}

impl Driver {
    /// Starts the driver and asks who it is.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn start(launch: &Launch, mutant: &str) -> Result<Driver, String> {
        Driver::greet(launch.start().await?, mutant).await
    }

    /// Starts one in the place of another that was killed.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn start_after(
        killed: Remains,
        launch: &Launch,
        mutant: &str,
    ) -> Result<Driver, String> {
        Driver::greet(launch.start_after(killed).await?, mutant).await
    }

    async fn greet(channel: Channel, mutant: &str) -> Result<Driver, String> {
        let mut driver = Driver {
            channel,
            info: wire::DriverInfo::default(),
        };
        let hello = Command::Hello(wire::DriverHello {
            mutant: mutant.to_owned(),
        });
        match driver.ask(hello, Duration::from_secs(20)).await? {
            Answer::Info(info) => driver.info = info,
            other => return Err(format!("the driver answers DriverHello with {other:?}")),
        }
        Ok(driver)
    }

    /// Who it is and what it can do.
    pub fn info(&self) -> &wire::DriverInfo {
        &self.info
    }

    /// What it can do for cases.
    pub fn offers(&self) -> Vec<Need> {
        use wire::Capability as Can;
        self.info
            .capabilities()
            .filter_map(|c| match c {
                Can::DurableStore => Some(Need::DurableStore),
                Can::Clock => Some(Need::ClientClock),
                Can::Online => Some(Need::Online),
                Can::Live => Some(Need::Live),
                Can::Reconcile => Some(Need::Reconcile),
                Can::Damage => Some(Need::Damage),
                Can::TokenRefresh => Some(Need::TokenRefresh),
                Can::TwoOpenings => Some(Need::TwoOpenings),
                Can::Ranges => Some(Need::Ranges),
                Can::Discard => Some(Need::Discard),
                Can::Retry => Some(Need::Retry),
                Can::Batches => Some(Need::Batches),
                Can::Documents => Some(Need::Documents),
                Can::Verify => Some(Need::Verify),
                Can::Unspecified => None,
            })
            .chain(Need::claimed(&self.info.profiles))
            .collect()
    }

    async fn ask(&mut self, command: Command, patience: Duration) -> Result<Answer, String> {
        let id = self.channel.next_id();
        let request = wire::DriverRequest {
            id,
            command: Some(command),
        };
        let response: wire::DriverResponse = self
            .channel
            .exchange(&request, REQUEST, RESPONSE, patience)
            .await?;
        result(id, response)
    }

    /// Gives a command.
    ///
    /// # Errors
    /// [`Stop::Suite`] when the driver itself fails: that says nothing about
    /// the client.
    pub async fn command(&mut self, command: Command, patience: Duration) -> Result<Answer, Stop> {
        match self.ask(command, patience).await {
            Ok(Answer::Fault(fault)) => Err(Stop::Suite(format!("driver: {}", fault.detail))),
            Ok(answer) => Ok(answer),
            Err(problem) => Err(Stop::Suite(problem)),
        }
    }

    /// Gives a command that does not exist, numbered `number`.
    ///
    /// # Errors
    /// A sentence when there is no answer that can be read.
    pub async fn unknown_command(&mut self, number: u32) -> Result<Answer, String> {
        let id = self.channel.next_id();
        let mut bytes = Vec::new();
        prost::encoding::uint64::encode(1, &id, &mut bytes);
        prost::encoding::bytes::encode(number, &Vec::<u8>::new(), &mut bytes);
        let json = format!("{{\"id\":\"{id}\",\"command{number}\":{{}}}}");
        self.channel.send_raw(&bytes, &json).await?;
        let response = self
            .channel
            .receive::<wire::DriverResponse>(RESPONSE, Duration::from_secs(10))
            .await?;
        result(id, response)
    }

    /// Kills it, as a crash does.
    pub async fn kill(self) -> Remains {
        self.channel.kill().await
    }
}

/// How many entries of a store's contents a report shows.
const ENTRIES_SHOWN: usize = 20;

/// A command as reports show it.
pub fn shown(command: &Command) -> Bytes {
    let request = wire::DriverRequest {
        id: 0,
        command: Some(command.clone()),
    };
    request.encode_to_vec().into()
}

/// A command and what it came to, as reports show them.
pub fn exchange(at: Duration, command: Bytes, outcome: &Result<Outcome, Stop>) -> Raw {
    let (end, answer) = match outcome {
        Err(Stop::Peer(why) | Stop::Suite(why)) => (why.clone(), None),
        Ok(Answer::Done(_)) => ("done".into(), None),
        Ok(Answer::Contents(contents)) => {
            let mut some = contents.clone();
            some.entries.truncate(ENTRIES_SHOWN);
            let count = contents.entries.len();
            (format!("{count} entries"), Some(Answer::Contents(some)))
        }
        Ok(other) => ("answered".into(), Some(other.clone())),
    };
    let answer = answer.map(|result| wire::DriverResponse {
        id: 0,
        result: Some(result),
    });
    let answers = answer.iter().map(|a| a.encode_to_vec().into());
    Raw {
        at,
        wire: "driver",
        method: "command".into(),
        metadata: Vec::new(),
        kinds: (REQUEST.into(), RESPONSE.into()),
        request: command,
        answers: answers.collect(),
        end,
    }
}

fn result(id: u64, response: wire::DriverResponse) -> Result<Answer, String> {
    if response.id != id {
        return Err(format!(
            "the driver answers {} instead of {id}",
            response.id
        ));
    }
    response
        .result
        .ok_or_else(|| "the driver's answer has no result".to_owned())
}
