//! Drivers around no client at all. What passes against them says how much a
//! check is worth. Run as a process of its own, like any driver.

use crate::schema::driver::{
    self as wire, driver_request::Command, driver_response::Result as Answer,
};
use prost::Message;
use std::io::{Read, Write};

/// What a crude driver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crude {
    /// Ends after the first command.
    HangUp,
    /// Says `done` to everything, and shows an empty store.
    AlwaysOk,
    /// Refuses everything with an error of the client.
    AlwaysError,
    /// Never answers.
    Silent,
    /// Sends requests back.
    Echo,
    /// Sends noise, framed.
    Random,
}

impl Crude {
    /// Every one, with its name on the command line.
    pub const ALL: [(&'static str, Crude); 6] = [
        ("hang-up", Crude::HangUp),
        ("always-ok", Crude::AlwaysOk),
        ("always-error", Crude::AlwaysError),
        ("silent", Crude::Silent),
        ("echo", Crude::Echo),
        ("random", Crude::Random),
    ];

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Crude> {
        Crude::ALL.iter().find(|(n, _)| *n == name).map(|(_, c)| *c)
    }
}

/// Serves commands until the input ends.
pub fn serve(kind: Crude, mut input: impl Read, mut output: impl Write) -> std::io::Result<()> {
    let mut noise = 1u8;
    loop {
        let mut length = [0; 4];
        if input.read_exact(&mut length).is_err() {
            return Ok(());
        }
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        input.read_exact(&mut bytes)?;
        let request = wire::DriverRequest::decode(bytes.as_slice()).unwrap_or_default();
        let hello = matches!(request.command, Some(Command::Hello(_)));
        let answer = match kind {
            // an honest hello, so that the cases begin at all
            _ if hello => wire::DriverResponse {
                id: request.id,
                result: Some(Answer::Info(info())),
            }
            .encode_to_vec(),
            Crude::HangUp => return Ok(()),
            Crude::Silent => continue,
            Crude::Echo => bytes,
            Crude::Random => (0..40)
                .map(|_| {
                    noise = noise.wrapping_mul(73).wrapping_add(41);
                    noise
                })
                .collect(),
            Crude::AlwaysOk | Crude::AlwaysError => wire::DriverResponse {
                id: request.id,
                result: Some(simple(kind, request.command.as_ref())),
            }
            .encode_to_vec(),
        };
        output.write_all(&(answer.len() as u32).to_be_bytes())?;
        output.write_all(&answer)?;
        output.flush()?;
    }
}

fn simple(kind: Crude, command: Option<&Command>) -> Answer {
    match (kind, command) {
        (Crude::AlwaysOk, Some(Command::ReadAll(_))) => {
            Answer::Contents(wire::StoreContents::default())
        }
        (Crude::AlwaysOk, _) => Answer::Done(wire::Done {}),
        _ => Answer::SyncError(wire::SyncError {
            kind: wire::sync_error::Kind::Stopped as i32,
            reason: "MALFORMED".into(),
            detail: "no".into(),
        }),
    }
}

fn info() -> wire::DriverInfo {
    use wire::Capability as Can;
    wire::DriverInfo {
        name: "a crude driver".into(),
        version: "0".into(),
        capabilities: [
            Can::DurableStore,
            Can::Clock,
            Can::Online,
            Can::Live,
            Can::Reconcile,
            Can::Damage,
            Can::TokenRefresh,
            Can::TwoOpenings,
            Can::Ranges,
            Can::Discard,
            Can::Retry,
            Can::Batches,
            Can::Documents,
            Can::Verify,
        ]
        .iter()
        .map(|c| *c as i32)
        .collect(),
        transports: vec![wire::Transport::Grpc as i32],
        profiles: vec!["core".into()],
        mutants: vec![],
    }
}
