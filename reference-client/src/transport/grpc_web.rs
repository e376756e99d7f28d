//! The browser's transport: gRPC-web over fetch. Works on Node as well.
//!
//! What to know of it: every network failure comes as status 2 (UNKNOWN)
//! without details, and a stream's status can get lost; so the engine retries
//! status 2, takes no success from a trailer, and keeps time itself.

use super::tonic::{MAX_DECODED, TonicTransport};
use ::tonic::body::Body;
use ::tonic::codegen::{Service, http};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic_web_wasm_client::{Client, Error, ResponseBody};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

/// Calls a server by its address, e.g. `https://sync.example.com`.
pub type GrpcWebTransport = TonicTransport<Bounded>;

impl GrpcWebTransport {
    /// Nothing is sent yet.
    pub fn new(url: &str) -> GrpcWebTransport {
        let url = url.trim_end_matches('/');
        GrpcWebTransport::over(Bounded(Client::new(url.to_owned())), url)
    }
}

#[wasm_bindgen(module = "/src/transport/limit.js")]
extern "C" {
    #[wasm_bindgen(js_name = fetchWithin, catch)]
    fn fetch_within(limit: f64, begin: &mut dyn FnMut()) -> Result<(), JsValue>;
}

/// The client of the calls, whose answers break off at a message that is too
/// large: it would collect all of it before tonic sees how large it is.
#[derive(Clone, Debug)]
pub struct Bounded(Client);

impl Service<http::Request<Body>> for Bounded {
    type Response = http::Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut call = self.0.call(request);
        Box::pin(poll_fn(move |cx| {
            let mut polled = Poll::Pending;
            let mut begin = || polled = call.as_mut().poll(cx);
            match fetch_within(MAX_DECODED as f64, &mut begin) {
                Ok(()) => polled,
                Err(error) => Poll::Ready(Err(Error::JsError(format!("{error:?}")))),
            }
        }))
    }
}
