//! The native transport: gRPC over HTTP/2 with tonic.

use super::{AUTHORIZATION, Answers, CallError, CallMetadata, GOSYNC_VERSION, Transport};
use futures::StreamExt;
use gosync_proto::wire;
use gosync_proto::wire::sync_service_client::SyncServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// Calls a server by its address, e.g. `http://127.0.0.1:4000`. Connects at
/// the first call, and again whenever the connection is gone.
#[derive(Clone, Debug)]
pub struct GrpcTransport {
    client: SyncServiceClient<Channel>,
}

/// The address of a server cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url:?} is no address of a server ({detail}); write it as http://host:port")]
pub struct ConnectError {
    url: String,
    detail: String,
}

/// The greatest message that is accepted from a server: far above what a
/// request asks for, since one record travels whole.
const MAX_DECODED: usize = 64 << 20;

impl GrpcTransport {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// The address is no URL.
    pub fn new(url: &str) -> Result<GrpcTransport, ConnectError> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| ConnectError {
            url: url.to_owned(),
            detail: e.to_string(),
        })?;
        let endpoint = endpoint
            .connect_timeout(std::time::Duration::from_secs(10))
            .http2_keep_alive_interval(std::time::Duration::from_secs(20))
            .keep_alive_timeout(std::time::Duration::from_secs(10))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .tcp_nodelay(true);
        Ok(GrpcTransport {
            client: SyncServiceClient::new(endpoint.connect_lazy())
                .max_decoding_message_size(MAX_DECODED)
                .max_encoding_message_size(MAX_DECODED),
        })
    }
}

fn request<M>(metadata: &CallMetadata, message: M) -> Result<tonic::Request<M>, CallError> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = &metadata.token {
        let value: MetadataValue<Ascii> = token.authorization().parse().map_err(|_| {
            // as a server would answer to it: the token is of no use
            CallError::from_grpc(16, "the token holds characters that no header may", &[])
        })?;
        request.metadata_mut().insert(AUTHORIZATION, value);
    }
    if let Some(version) = metadata.version {
        request
            .metadata_mut()
            .insert(GOSYNC_VERSION, MetadataValue::from(version));
    }
    Ok(request)
}

fn failed(status: tonic::Status) -> CallError {
    CallError::from_grpc(i32::from(status.code()), status.message(), status.details())
}

impl Transport for GrpcTransport {
    async fn hello(
        &self,
        metadata: &CallMetadata,
        message: wire::HelloRequest,
    ) -> Result<wire::HelloResponse, CallError> {
        let answer = self.client.clone().hello(request(metadata, message)?).await;
        answer.map(tonic::Response::into_inner).map_err(failed)
    }

    async fn push(
        &self,
        metadata: &CallMetadata,
        message: wire::PushRequest,
    ) -> Result<wire::PushResponse, CallError> {
        let answer = self.client.clone().push(request(metadata, message)?).await;
        answer.map(tonic::Response::into_inner).map_err(failed)
    }

    async fn reconcile(
        &self,
        metadata: &CallMetadata,
        message: wire::ReconcileRequest,
    ) -> Result<wire::ReconcileResponse, CallError> {
        let mut client = self.client.clone();
        let answer = client.reconcile(request(metadata, message)?).await;
        answer.map(tonic::Response::into_inner).map_err(failed)
    }

    async fn watch(
        &self,
        metadata: &CallMetadata,
        message: wire::WatchRequest,
    ) -> Result<Answers<wire::WatchResponse>, CallError> {
        let answer = self.client.clone().watch(request(metadata, message)?).await;
        let stream = answer.map_err(failed)?.into_inner();
        Ok(Box::pin(stream.map(|m| m.map_err(failed))))
    }

    async fn snapshot(
        &self,
        metadata: &CallMetadata,
        message: wire::SnapshotRequest,
    ) -> Result<Answers<wire::SnapshotResponse>, CallError> {
        let mut client = self.client.clone();
        let answer = client.snapshot(request(metadata, message)?).await;
        let stream = answer.map_err(failed)?.into_inner();
        Ok(Box::pin(stream.map(|m| m.map_err(failed))))
    }
}
