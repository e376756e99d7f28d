//! Reconcile: one turn of a descent.

use super::Shell;
use crate::service::Refusal;
use gosync_proto::wire;
use std::sync::Arc;
use tonic::Request;

pub(super) async fn run(
    shell: &Arc<Shell>,
    request: Request<wire::ReconcileRequest>,
) -> Result<wire::ReconcileResponse, Refusal> {
    let admitted = shell.admit(&request, &request.get_ref().space)?;
    let request = request.into_inner();
    let now_ms = shell.clock.now_ms();
    shell
        .blocking(move |service| service.reconcile(&admitted.access, &request, now_ms))
        .await
}
