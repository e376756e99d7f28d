//! The native reference client behind `driver.proto`: what each command asks
//! of the client. Knows no case.

mod documents;
mod opening;
mod runtime;

use crate::framing;
use anyhow::{Context, Result, ensure};
use gosync_conformance::schema::driver::{
    Capability, Done, DriverInfo, DriverRequest, DriverResponse, Fault, Open, Transport,
    Unsupported, WriteError, driver_request::Command, driver_response,
};
use gosync_proto::mutant::Side;
use opening::Opening;
use runtime::DriverRuntime;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::time::Duration;

const CAPABILITIES: [Capability; 14] = [
    Capability::DurableStore,
    Capability::Clock,
    Capability::Online,
    Capability::Live,
    Capability::Reconcile,
    Capability::Damage,
    Capability::TokenRefresh,
    Capability::TwoOpenings,
    Capability::Ranges,
    Capability::Discard,
    Capability::Retry,
    Capability::Batches,
    Capability::Documents,
    Capability::Verify,
];

/// Answers commands until the input ends.
///
/// # Errors
/// When the channel breaks. What goes wrong with the client is an answer.
pub fn run(input: &mut impl Read, output: &mut impl Write) -> Result<()> {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut driver = {
        let _inside = tokio.enter();
        Driver {
            runtime: DriverRuntime::new()?,
            openings: HashMap::new(),
        }
    };
    while let Some(request) = framing::read::<DriverRequest>(input)? {
        let result = tokio
            .block_on(driver.answer(request.command))
            .unwrap_or_else(|error| {
                driver_response::Result::Fault(Fault {
                    detail: format!("{error:#}"),
                })
            });
        framing::write(
            output,
            &DriverResponse {
                id: request.id,
                result: Some(result),
            },
        )?;
    }
    Ok(())
}

struct Driver {
    runtime: DriverRuntime,
    openings: HashMap<String, Opening>,
}

impl Driver {
    async fn answer(&mut self, command: Option<Command>) -> Result<driver_response::Result> {
        use driver_response::Result as Answer;
        let done = Ok(Answer::Done(Done {}));
        match command {
            None => Ok(Answer::Unsupported(Unsupported {})),
            Some(Command::Hello(hello)) => {
                crate::mutants::become_one(&hello.mutant, Side::Client)?;
                Ok(Answer::Info(info()))
            }
            Some(Command::Open(open)) => self.open(open).await,
            Some(Command::Put(put)) => {
                let written = self.find(&put.replica)?.put(put.key, put.value).await?;
                Ok(written.map_or_else(refused, |()| Answer::Done(Done {})))
            }
            Some(Command::PutBatch(batch)) => {
                let entries = batch.entries.into_iter().map(|e| (e.key, e.value));
                let written = self.find(&batch.replica)?.put_batch(entries).await?;
                Ok(written.map_or_else(refused, |()| Answer::Done(Done {})))
            }
            Some(Command::Delete(delete)) => {
                let written = self.find(&delete.replica)?.delete(delete.key).await?;
                Ok(written.map_or_else(refused, |()| Answer::Done(Done {})))
            }
            Some(Command::Sync(sync)) => {
                let opening = self.find(&sync.replica)?;
                let result = opening
                    .sync(Duration::from_millis(sync.timeout_ms.into()))
                    .await;
                Ok(result.map_or_else(Answer::SyncError, |()| Answer::Done(Done {})))
            }
            Some(Command::Verify(verify)) => {
                let opening = self.find(&verify.replica)?;
                let result = opening
                    .verify(Duration::from_millis(verify.timeout_ms.into()))
                    .await;
                Ok(result.map_or_else(Answer::SyncError, |()| Answer::Done(Done {})))
            }
            Some(Command::Watch(watch)) => {
                self.find(&watch.replica)?.watch();
                done
            }
            Some(Command::AwaitIdle(idle)) => {
                let opening = self.find(&idle.replica)?;
                let result = opening
                    .idle(Duration::from_millis(idle.timeout_ms.into()))
                    .await;
                Ok(result.map_or_else(Answer::SyncError, |()| Answer::Done(Done {})))
            }
            Some(Command::PutDocument(put)) => {
                let opening = self.find(&put.replica)?;
                opening.edit_document(documents::put(put)?).await
            }
            Some(Command::PatchDocument(patch)) => {
                let opening = self.find(&patch.replica)?;
                opening.edit_document(documents::patch(patch)?).await
            }
            Some(Command::DeleteDocument(delete)) => {
                let opening = self.find(&delete.replica)?;
                opening.edit_document(documents::delete(&delete)).await
            }
            Some(Command::GetDocument(get)) => {
                let opening = self.find(&get.replica)?;
                opening.document(&get.collection, &get.id).await
            }
            Some(Command::ListDocuments(list)) => {
                self.find(&list.replica)?.documents(&list.collection).await
            }
            Some(Command::ReadAll(read)) => Ok(Answer::Contents(
                self.find(&read.replica)?.contents().await?,
            )),
            Some(Command::SetClock(clock)) => {
                self.runtime.set_clock(clock.unix_ms);
                done
            }
            Some(Command::SetOnline(online)) => {
                let opening = self.find(&online.replica)?;
                opening.set_online(online.online).await;
                done
            }
            Some(Command::Close(close)) => {
                let opening = self
                    .openings
                    .remove(&close.replica)
                    .with_context(|| format!("{:?} is not open", close.replica))?;
                for sibling in self.openings.values() {
                    sibling.forget(&close.replica);
                }
                opening.close().await?;
                done
            }
            Some(Command::Damage(damage)) => {
                self.find(&damage.replica)?.damage(damage.key).await?;
                done
            }
            Some(Command::Discard(discard)) => {
                self.find(&discard.replica)?.discard(discard.key).await?;
                done
            }
            Some(Command::Retry(retry)) => {
                self.find(&retry.replica)?.retry(retry.key).await?;
                done
            }
        }
    }

    fn find(&mut self, replica: &str) -> Result<&mut Opening> {
        self.openings
            .get_mut(replica)
            .with_context(|| format!("{replica:?} is not open"))
    }

    async fn open(&mut self, open: Open) -> Result<driver_response::Result> {
        if open.transport() == Transport::GrpcWeb {
            return Ok(driver_response::Result::Unsupported(Unsupported {}));
        }
        let name = open.replica.clone();
        ensure!(
            !self.openings.contains_key(&name),
            "{name:?} is open already"
        );
        let opening = Opening::open(open, self.runtime.clone()).await?;
        for (other, sibling) in self
            .openings
            .iter()
            .filter(|(_, o)| o.shares_store_with(&opening))
        {
            sibling.tell(&name, &opening);
            opening.tell(other, sibling);
        }
        self.openings.insert(name, opening);
        Ok(driver_response::Result::Done(Done {}))
    }
}

fn refused(error: WriteError) -> driver_response::Result {
    driver_response::Result::WriteError(error)
}

fn info() -> DriverInfo {
    DriverInfo {
        name: "gosync-client".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        capabilities: CAPABILITIES.map(Into::into).to_vec(),
        transports: vec![Transport::Grpc.into()],
        profiles: ["core", "heal", "live", "documents", "hardened"]
            .map(Into::into)
            .to_vec(),
        mutants: crate::mutants::list(Side::Client),
    }
}
