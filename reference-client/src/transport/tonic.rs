//! The transport over tonic's generated stubs, whatever carries them: HTTP/2
//! natively, gRPC-web over fetch in a browser.

use super::{AUTHORIZATION, Answers, CallError, CallMetadata, GOSYNC_VERSION, Transport};
use crate::platform::{MaybeSend, MaybeSync};
use ::tonic::body::Body;
use ::tonic::client::GrpcService;
use ::tonic::codegen::{Body as HttpBody, StdError, http};
use ::tonic::metadata::{Ascii, MetadataValue};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use gosync_proto::wire::sync_service_client::SyncServiceClient;
use gosync_proto::{mutant, wire};

/// The greatest message that is accepted from a server: far above what a
/// request asks for, since one record travels whole.
pub(super) const MAX_DECODED: usize = 64 << 20;

/// Calls a server through the stubs over `S`.
#[derive(Clone, Debug)]
pub struct TonicTransport<S> {
    client: SyncServiceClient<S>,
    /// Whether a token may be sent (TRANS-007).
    tokens: bool,
}

impl<S> TonicTransport<S>
where
    S: GrpcService<Body>,
    S::Error: Into<StdError>,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// Through a connection to `url`, or what makes them.
    pub(super) fn over(service: S, url: &str) -> TonicTransport<S> {
        TonicTransport {
            client: SyncServiceClient::new(service)
                .max_decoding_message_size(match mutant!(SmallMessagesOnly) {
                    true => 100_000,
                    false => MAX_DECODED,
                })
                .max_encoding_message_size(MAX_DECODED),
            tokens: confidential(url),
        }
    }
}

impl<S> TonicTransport<S> {
    /// Sends tokens although others can read them on the way. Without this, a
    /// call with a token over a connection without TLS to anything but this
    /// machine fails before anything is sent (TRANS-007).
    pub fn allow_plaintext_tokens(self) -> TonicTransport<S> {
        TonicTransport {
            tokens: true,
            ..self
        }
    }

    fn request<M>(
        &self,
        metadata: &CallMetadata,
        message: M,
    ) -> Result<tonic::Request<M>, CallError> {
        if metadata.token.is_some() && !self.tokens {
            // as a server would answer: no token that can be used
            return Err(CallError::from_grpc(
                16,
                "the token was not sent, since others could read it on the way: use https://, or allow plaintext tokens explicitly",
                &[],
            ));
        }
        request(metadata, message)
    }
}

/// Whether nobody else can read what is sent to that address: by TLS, or
/// because it does not leave the machine.
fn confidential(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else {
        return false;
    };
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    url.scheme() == Some(&http::uri::Scheme::HTTPS)
        || host == "localhost"
        || host.ends_with(".localhost")
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|a| a.is_loopback())
}

fn request<M>(metadata: &CallMetadata, message: M) -> Result<tonic::Request<M>, CallError> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = &metadata.token {
        let value: MetadataValue<Ascii> = token.authorization().parse().map_err(|_| {
            // as a server would answer to it: the token is of no use
            CallError::from_grpc(16, "the token holds characters that no header may", &[])
        })?;
        if mutant!(TokenToldTwice) {
            request.metadata_mut().insert("x-token", value.clone());
        }
        if !mutant!(TokenNotShown) {
            request.metadata_mut().insert(AUTHORIZATION, value);
        }
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
    if let Ok(answer) = &answer
        && mutant!(OddTrailersRefused)
        && answer.metadata().contains_key("x-proxy")
    {
        return Err(CallError::misbehaved("trailers that nobody knows"));
    }
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
        one(self
            .client
            .clone()
            .hello(self.request(metadata, message)?)
            .await)
    }

    async fn push(
        &self,
        metadata: &CallMetadata,
        message: wire::PushRequest,
    ) -> Result<wire::PushResponse, CallError> {
        one(self
            .client
            .clone()
            .push(self.request(metadata, message)?)
            .await)
    }

    async fn reconcile(
        &self,
        metadata: &CallMetadata,
        message: wire::ReconcileRequest,
    ) -> Result<wire::ReconcileResponse, CallError> {
        let request = self.request(metadata, message)?;
        one(self.client.clone().reconcile(request).await)
    }

    async fn watch(
        &self,
        metadata: &CallMetadata,
        message: wire::WatchRequest,
    ) -> Result<Answers<wire::WatchResponse>, CallError> {
        let mut request = self.request(metadata, message)?;
        if mutant!(DeadlineOnStreams) {
            request.set_timeout(std::time::Duration::from_secs(3_600));
        }
        many(self.client.clone().watch(request).await)
    }

    async fn snapshot(
        &self,
        metadata: &CallMetadata,
        message: wire::SnapshotRequest,
    ) -> Result<Answers<wire::SnapshotResponse>, CallError> {
        let request = self.request(metadata, message)?;
        many(self.client.clone().snapshot(request).await)
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::transport::{GrpcTransport, Token};

    #[test]
    fn only_tls_and_loopback_keep_a_token_from_others() {
        for url in [
            "https://sync.example.com",
            "https://192.0.2.7:4000/",
            "http://127.0.0.1:4000",
            "http://127.8.9.10",
            "http://[::1]:4000",
            "http://localhost:4000",
            "http://app.localhost",
        ] {
            assert!(confidential(url), "{url}");
        }
        for url in [
            "http://sync.example.com",
            "http://192.0.2.7:4000",
            "http://[2001:db8::1]:4000",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "/sync",
            "",
        ] {
            assert!(!confidential(url), "{url}");
        }
    }

    #[tokio::test]
    async fn a_token_is_sent_in_the_clear_only_when_the_application_asked_for_it() {
        let with_token = CallMetadata {
            token: Some(Token::new("t")),
            version: None,
        };
        let transport = GrpcTransport::new("http://sync.example.com").unwrap();
        let refused = transport.request(&with_token, ()).unwrap_err();
        assert!(refused.message.contains("https://"), "{refused}");
        assert!(transport.request(&CallMetadata::default(), ()).is_ok());
        let transport = transport.allow_plaintext_tokens();
        let sent = transport.request(&with_token, ()).unwrap();
        assert_eq!(sent.metadata().get(AUTHORIZATION).unwrap(), "Bearer t");
    }
}
