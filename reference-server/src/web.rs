//! What browsers need beside the calls, and what keeps them in bounds: CORS,
//! names that reach this server, static files. Knows no calls.

use crate::config::CorsConfig;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gosync_proto::mutant;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use std::net::IpAddr;
use std::time::Duration;
use tonic::Status;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Which pages may call: those of the allowed origins, and those on this
/// machine. Everything else does not get past the browser's preflight.
pub fn cors(config: &CorsConfig, open_to_all: bool) -> CorsLayer {
    let header = HeaderName::from_static;
    let allowed = config.allow_origins.clone();
    // without tokens a star would let every page that somebody opens on this
    // machine in
    let any = allowed.iter().any(|o| o == "*") && !open_to_all;
    let origins = AllowOrigin::predicate(move |origin: &HeaderValue, _| {
        if mutant!(OriginsRefused) {
            return false;
        }
        any || mutant!(CredentialsForAll)
            || origin.to_str().is_ok_and(|o| {
                allowed.iter().any(|a| a == o) || origin_host(o).is_some_and(is_loopback)
            })
    });
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(match mutant!(PostForbidden) {
            false => vec![Method::POST, Method::GET],
            true => vec![Method::GET],
        })
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header(match mutant!(VersionHeaderForbidden) {
                false => "gosync-version",
                true => "gosync-other",
            }),
            header("grpc-timeout"),
            header("grpc-accept-encoding"),
            header("grpc-encoding"),
            header("x-grpc-web"),
            header("x-user-agent"),
        ])
        .expose_headers([
            header(match mutant!(StatusHidden) {
                false => "grpc-status",
                true => "grpc-hidden",
            }),
            header("grpc-message"),
            header("grpc-status-details-bin"),
            header("grpc-encoding"),
        ])
        .allow_credentials(mutant!(CredentialsForAll))
        .max_age(Duration::from_secs(600))
}

fn origin_host(origin: &str) -> Option<&str> {
    let (_, authority) = origin.split_once("://")?;
    Some(host_of(authority))
}

fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    authority
        .split_once(':')
        .map_or(authority, |(host, _)| host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Without tokens, a page elsewhere could reach this server by a name that it
/// makes point to this machine. Such requests carry that name.
pub async fn loopback_host_only(request: Request, next: Next) -> Response {
    let authority = request
        .uri()
        .authority()
        .map(|a| a.as_str().to_owned())
        .or_else(|| {
            let host = request.headers().get(header::HOST)?;
            host.to_str().ok().map(str::to_owned)
        });
    if authority.is_some_and(|a| is_loopback(host_of(&a))) {
        return next.run(request).await;
    }
    let text = "This server asks for no tokens, so it answers to the names of this machine only\n\
                (localhost, 127.0.0.1). To serve it under another name, start it with --tokens.\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// Around static files. They are asked for again each time, so that a new version is seen.
pub async fn for_pages(request: Request, next: Next) -> Response {
    if is_grpc(&request) {
        return unimplemented();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Where there is nothing to serve.
pub async fn nothing_here(request: Request) -> Response {
    if is_grpc(&request) {
        return unimplemented();
    }
    let text = "This is a GoSync server. It speaks gRPC and gRPC-web; there are no pages here.\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn is_grpc(request: &Request) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"))
}

fn unimplemented() -> Response {
    Status::unimplemented("no such service here").into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_are_told_from_others() {
        for good in [
            "localhost:8080",
            "127.0.0.1:1",
            "[::1]:1",
            "app.localhost",
            "127.8.8.8",
        ] {
            assert!(is_loopback(host_of(good)), "{good}");
        }
        for bad in [
            "evil.example:8080",
            "localhost.evil.example",
            "192.0.2.1",
            "",
            "[::2]:1",
        ] {
            assert!(!is_loopback(host_of(bad)), "{bad}");
        }
        assert_eq!(origin_host("http://localhost:3000"), Some("localhost"));
        assert_eq!(origin_host("null"), None);
    }
}
