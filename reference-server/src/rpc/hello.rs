//! Hello: who the server is, what it allows, where the space stands.

use super::Shell;
use crate::listen::Connection;
use crate::service::Refusal;
use gosync_proto::wire;
use std::sync::Arc;
use tonic::Request;

pub(super) async fn run(
    shell: &Arc<Shell>,
    request: Request<wire::HelloRequest>,
) -> Result<wire::HelloResponse, Refusal> {
    let admitted = shell.admit(&request, &request.get_ref().space)?;
    let peer = request.extensions().get::<Connection>().map(|c| c.peer);
    let request = request.into_inner();
    tracing::debug!(
        client = %request.client.escape_debug(),
        caller = admitted.caller.name(),
        space = %admitted.space,
        peer = peer.map(tracing::field::display),
        "hello"
    );
    let now_ms = shell.clock.now_ms();
    shell
        .blocking(move |service| service.hello(&admitted.access, request, now_ms))
        .await
}
