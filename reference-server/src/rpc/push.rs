//! Push: a batch in, verdicts out.

use super::Shell;
use crate::service::Refusal;
use gosync_proto::mutant;
use gosync_proto::wire::{self, Outcome};
use std::sync::{Arc, OnceLock};
use tonic::Request;

pub(super) async fn run(
    shell: &Arc<Shell>,
    request: Request<wire::PushRequest>,
) -> Result<wire::PushResponse, Refusal> {
    let admitted = shell.admit(&request, &request.get_ref().space)?;
    let request = request.into_inner();
    let mut now_ms = shell.clock.now_ms();
    if mutant!(ClockOfTheStart) {
        static FIRST: OnceLock<u64> = OnceLock::new();
        now_ms = *FIRST.get_or_init(|| now_ms);
    }
    let answer = shell
        .blocking_beyond(move |service, tell| {
            // nobody may be waiting any more
            match service.push_only(&admitted.access, request, now_ms) {
                Err(refusal) => drop(tell.send(Err(refusal))),
                Ok((answer, commit)) => {
                    drop(tell.send(Ok(answer)));
                    service.follow(commit);
                }
            }
        })
        .await?;
    let mut counts = [0; 5];
    for verdict in &answer.verdicts {
        counts[verdict.outcome() as usize] += 1;
    }
    for outcome in [
        Outcome::Applied,
        Outcome::Unchanged,
        Outcome::Superseded,
        Outcome::Rejected,
    ] {
        shell.metrics.verdicts(outcome, counts[outcome as usize]);
    }
    Ok(answer)
}
