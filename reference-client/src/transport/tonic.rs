//! The transport over tonic's generated stubs, whatever carries them: HTTP/2
//! natively, gRPC-web over fetch in a browser.

use super::{AUTHORIZATION, Answers, CallError, CallMetadata, GOSYNC_VERSION, Transport};
use crate::platform::{MaybeSend, MaybeSync};
use ::tonic::body::Body;
use ::tonic::client::GrpcService;
use ::tonic::codegen::{Body as HttpBody, StdError};
use ::tonic::metadata::{Ascii, MetadataValue};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use gosync_proto::wire;
use gosync_proto::wire::sync_service_client::SyncServiceClient;

/// The greatest message that is accepted from a server: far above what a
/// request asks for, since one record travels whole.
const MAX_DECODED: usize = 64 << 20;

/// Calls a server through the stubs over `S`.
#[derive(Clone, Debug)]
pub struct TonicTransport<S> {
    client: SyncServiceClient<S>,
}

impl<S> TonicTransport<S>
where
    S: GrpcService<Body>,
    S::Error: Into<StdError>,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// Through a connection, or what makes them.
    pub(super) fn over(service: S) -> TonicTransport<S> {
        TonicTransport {
            client: SyncServiceClient::new(service)
                .max_decoding_message_size(MAX_DECODED)
                .max_encoding_message_size(MAX_DECODED),
        }
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

fn one<M>(answer: Result<tonic::Response<M>, tonic::Status>) -> Result<M, CallError> {
    answer.map(tonic::Response::into_inner).map_err(failed)
}

fn many<M, T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<Answers<M>, CallError>
where
    T: Stream<Item = Result<M, tonic::Status>> + MaybeSend + 'static,
{
    Ok(Box::pin(one(answer)?.map(|m| m.map_err(failed))))
}

impl<S> Transport for TonicTransport<S>
where
    S: GrpcService<Body> + Clone + MaybeSend + MaybeSync + 'static,
    S::Error: Into<StdError>,
    S::Future: MaybeSend,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    async fn hello(
        &self,
        metadata: &CallMetadata,
        message: wire::HelloRequest,
    ) -> Result<wire::HelloResponse, CallError> {
        one(self.client.clone().hello(request(metadata, message)?).await)
    }

    async fn push(
        &self,
        metadata: &CallMetadata,
        message: wire::PushRequest,
    ) -> Result<wire::PushResponse, CallError> {
        one(self.client.clone().push(request(metadata, message)?).await)
    }

    async fn reconcile(
        &self,
        metadata: &CallMetadata,
        message: wire::ReconcileRequest,
    ) -> Result<wire::ReconcileResponse, CallError> {
        let request = request(metadata, message)?;
        one(self.client.clone().reconcile(request).await)
    }

    async fn watch(
        &self,
        metadata: &CallMetadata,
        message: wire::WatchRequest,
    ) -> Result<Answers<wire::WatchResponse>, CallError> {
        many(self.client.clone().watch(request(metadata, message)?).await)
    }

    async fn snapshot(
        &self,
        metadata: &CallMetadata,
        message: wire::SnapshotRequest,
    ) -> Result<Answers<wire::SnapshotResponse>, CallError> {
        let request = request(metadata, message)?;
        many(self.client.clone().snapshot(request).await)
    }
}
