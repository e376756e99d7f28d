//! Hello: who the server is, what it allows, where the space stands.

use super::Shell;
use crate::service::Refusal;
use gosync_proto::wire;
use std::sync::Arc;
use tonic::Request;

pub(super) async fn run(
    shell: &Arc<Shell>,
    request: Request<wire::HelloRequest>,
) -> Result<wire::HelloResponse, Refusal> {
    let admitted = shell.admit(request.metadata(), &request.get_ref().space)?;
    let request = request.into_inner();
    let now_ms = shell.clock.now_ms();
    shell
        .blocking(move |service| service.hello(&admitted.access, request, now_ms))
        .await
}
