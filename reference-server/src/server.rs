//! A whole server in one value: store, request logic, calls, listeners. The
//! one place that puts the parts together; the program and the tests start the
//! same thing.

use crate::auth::Auth;
use crate::auth::tokens::TokenFileError;
use crate::clock::WallClock;
use crate::config::{Config, ConfigError, CorsConfig, Database, HistoryConfig, TlsConfig};
use crate::listen;
use crate::maintenance::{self, CompactOptions};
use crate::ops::metrics::Metrics;
use crate::ops::{Readiness, operator_page, probes};
use crate::rpc::SyncApi;
use crate::rpc::guard::{Guard, guard};
use crate::service::{Service, ServiceConfig};
use crate::store::memory::MemoryStore;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Store, StoreError};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use gosync_proto::history::Epoch;
use gosync_proto::wire::FILE_DESCRIPTOR_SET;
use gosync_proto::wire::sync_service_server::SyncServiceServer;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::services::ServeDir;

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token file.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The port.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// A certificate or key.
    #[error("the TLS {what} {path} is not usable: {problem}")]
    Tls {
        /// Certificate or key.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The folder of static files.
    #[error("static: {0} is not a folder that can be read")]
    Static(PathBuf),
    /// The operating system gave no random bytes.
    #[error("the system gave no randomness: {0}")]
    Entropy(getrandom::Error),
    /// The schema for reflection.
    #[error("reflection cannot be switched on: {0}")]
    Reflection(String),
}

/// A server that listens, and begins to accept when it is run.
pub struct Server {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    operator: Option<TcpListener>,
    tls: Option<TlsAcceptor>,
    service: Service,
    auth: Arc<Auth>,
    clock: WallClock,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Opens the store and the listeners. From here on connections queue up.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn bind(config: Config) -> Result<Server, StartError> {
        let bound = bind(config.listen).await?;
        Server::on(bound, config, WallClock::system()).await
    }

    /// As [`Server::bind`], on a listener that is there and by another clock.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn on(
        listener: TcpListener,
        mut config: Config,
        clock: WallClock,
    ) -> Result<Server, StartError> {
        let address = listener.local_addr().map_err(|error| StartError::Bind {
            address: config.listen,
            error,
        })?;
        config.listen = address;
        config.check()?;
        if let Some(folder) = config.static_files.as_ref().filter(|f| !f.is_dir()) {
            return Err(StartError::Static(folder.clone()));
        }
        let auth = Arc::new(match &config.auth.tokens {
            Some(path) => Auth::from_file(path, clock.clone())?,
            None => Auth::open(),
        });
        let tls = config.tls.as_ref().map(tls_acceptor).transpose()?;
        let service = Service::new(
            open_store(&config.db, &clock)?,
            ServiceConfig {
                limits: config.limits,
                ..ServiceConfig::default()
            },
            Box::new(random_u64),
        );
        let operator = match config.metrics.listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Server {
            config,
            listener,
            address,
            operator,
            tls,
            service,
            auth,
            clock,
            metrics: Arc::default(),
        })
    }

    /// Where calls are taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where calls are taken, for clients.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where metrics are served, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.operator.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// The request logic, for whoever runs a server in its own process.
    pub fn service(&self) -> Service {
        self.service.clone()
    }

    /// Who may call, for whoever has to reload the tokens at once.
    pub fn auth(&self) -> Arc<Auth> {
        self.auth.clone()
    }

    /// Serves until `stop` is cancelled, then drains: health says
    /// NOT_SERVING, new calls are refused, streams end with UNAVAILABLE, and
    /// after the drain timeout what is left is closed.
    ///
    /// # Errors
    /// [`StartError::Reflection`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        let health = HealthReporter::new();
        let readiness: Readiness = {
            let (service, stop) = (self.service.clone(), stop.clone());
            Arc::new(move || {
                if stop.is_cancelled() {
                    Err("stopping")
                } else if service.store().poisoned().is_some() {
                    Err("nothing can be written: see the log")
                } else {
                    Ok(())
                }
            })
        };
        let app = self.router(&health, &readiness, &stop)?;
        let background = CancellationToken::new();
        let follow = background
            .clone()
            .run_until_cancelled_owned(self.auth.clone().follow());
        tokio::spawn(follow);
        tokio::spawn(
            background
                .clone()
                .run_until_cancelled_owned(compact_regularly(
                    self.service.clone(),
                    self.config.history.clone(),
                    self.clock.clone(),
                )),
        );
        if let Some(listener) = self.operator {
            let (metrics, service) = (self.metrics.clone(), self.service.clone());
            let metrics_page = Arc::new(move || metrics.encode(service.damage_found()));
            let page = operator_page(metrics_page, readiness.clone());
            let config = listen::ConnectionConfig {
                max: 64,
                ..self.config.connections.clone()
            };
            let serve = listen::serve(
                listen::Endpoint {
                    listener,
                    app: page,
                    tls: None,
                    max_streams: 8,
                    open: Arc::default(),
                },
                config,
                background.clone(),
                Duration::from_secs(1),
            );
            tokio::spawn(serve);
        }
        tokio::spawn(report_health(health, readiness, stop.clone()));
        listen::serve(
            listen::Endpoint {
                listener: self.listener,
                app,
                tls: self.tls,
                max_streams: u32::try_from(self.config.limits.max_streams_per_connection)
                    .unwrap_or(u32::MAX),
                open: self.metrics.open_connections(),
            },
            self.config.connections,
            stop,
            self.config.drain_timeout,
        )
        .await;
        background.cancel();
        Ok(())
    }

    fn router(
        &self,
        health: &HealthReporter,
        readiness: &Readiness,
        stop: &CancellationToken,
    ) -> Result<Router, StartError> {
        let limits = self.config.limits;
        let api = SyncApi::new(
            self.service.clone(),
            self.auth.clone(),
            self.clock.clone(),
            &self.config,
            self.metrics.clone(),
            // each holds a reader for as long as its peer reads
            readers() / 2,
            stop.clone(),
        );
        let max_message = usize::try_from(limits.max_message_bytes).unwrap_or(usize::MAX);
        let calls = SyncServiceServer::new(api)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(max_message);
        let health = tonic_health::server::HealthService::from_health_reporter(health.clone());
        let mut routes = Routes::new(calls)
            .add_service(tonic_health::pb::health_server::HealthServer::new(health));
        if self.config.reflection {
            let reflection = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .build_v1()
                .map_err(|e| StartError::Reflection(e.to_string()))?;
            routes = routes.add_service(reflection);
        }
        let guarded = Arc::new(Guard {
            limits,
            clock: self.clock.clone(),
            request_timeout: self.config.request_timeout,
            metrics: self.metrics.clone(),
            drain: stop.clone(),
        });
        let mut app = routes
            .into_axum_router()
            .layer(from_fn_with_state(guarded, guard))
            .layer(GrpcWebLayer::new())
            .merge(probes(readiness.clone()));
        app = match &self.config.static_files {
            Some(folder) => app.fallback_service(
                Router::new()
                    .fallback_service(ServeDir::new(folder))
                    .layer(from_fn(for_pages)),
            ),
            None => app.fallback(nothing_here),
        };
        app = app.layer(cors(&self.config.cors, self.config.open_to_all()));
        if self.config.open_to_all() {
            app = app.layer(from_fn(loopback_host_only));
        }
        Ok(app)
    }
}

/// Keeps gRPC health as the probes see it, until the server stops.
async fn report_health(health: HealthReporter, readiness: Readiness, stop: CancellationToken) {
    loop {
        let status = match readiness() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        for service in ["", SERVICE] {
            health.set_service_status(service, status).await;
        }
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Removes old tombstones of every space now and then.
async fn compact_regularly(service: Service, config: HistoryConfig, clock: WallClock) {
    if config.compact_every.is_zero() {
        return;
    }
    let options = CompactOptions {
        retention_ms: u64::try_from(config.retention.as_millis()).unwrap_or(u64::MAX),
        ..CompactOptions::default()
    };
    loop {
        tokio::time::sleep(config.compact_every).await;
        let (service, now_ms) = (service.clone(), clock.now_ms());
        let work = move || {
            for space in service.store().spaces()? {
                let done = maintenance::compact(service.store(), &space, now_ms, options)?;
                if done.removed > 0 {
                    tracing::info!(%space, removed = done.removed, "old tombstones removed");
                }
            }
            Ok::<_, StoreError>(())
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "old tombstones could not be removed"),
            Err(error) => tracing::error!(%error, "compaction broke down"),
        }
    }
}

/// The name under which health is reported.
const SERVICE: &str = "gosync.v1.SyncService";

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| StartError::Bind { address, error })
}

/// Connections that read at once.
fn readers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores * 4).clamp(8, 32)
}

/// Opens the store that a setting names.
///
/// # Errors
/// [`StartError::Store`], [`StartError::Entropy`].
pub fn open_store(db: &Database, clock: &WallClock) -> Result<Arc<dyn Store>, StartError> {
    let mut epoch = [0; 8];
    getrandom::fill(&mut epoch).map_err(StartError::Entropy)?;
    let epoch = u64::from_ne_bytes(epoch);
    Ok(match db {
        Database::Sqlite(path) => {
            let options = SqliteOptions {
                readers: readers(),
                new_epoch: epoch,
                now_ms: clock.now_ms(),
            };
            Arc::new(SqliteStore::open(path, options)?)
        }
        Database::Memory => Arc::new(MemoryStore::new(Epoch(epoch))),
    })
}

fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(error) => {
            // seen only where a sandbox forbids the system call; the tag then
            // still differs from commit to commit
            tracing::error!(%error, "the system gave no randomness");
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(std::time::Instant::now())
        }
    }
}

fn tls_acceptor(config: &TlsConfig) -> Result<TlsAcceptor, StartError> {
    let fail = |what, path: &Path, problem: String| StartError::Tls {
        what,
        path: path.to_owned(),
        problem,
    };
    let chain = CertificateDer::pem_file_iter(&config.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| fail("certificate", &config.cert, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|e| fail("key", &config.key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| fail("certificate", &config.cert, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| fail("certificate", &config.cert, e.to_string()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Which pages may call: those of the allowed origins, and those on this
/// machine. Everything else does not get past the browser's preflight.
fn cors(config: &CorsConfig, open_to_all: bool) -> CorsLayer {
    let header = HeaderName::from_static;
    let allowed = config.allow_origins.clone();
    // without tokens a star would let every page that somebody opens on this
    // machine in
    let any = allowed.iter().any(|o| o == "*") && !open_to_all;
    let origins = AllowOrigin::predicate(move |origin: &HeaderValue, _| {
        any || origin.to_str().is_ok_and(|o| {
            allowed.iter().any(|a| a == o) || origin_host(o).is_some_and(is_loopback)
        })
    });
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST, Method::GET])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header("gosync-version"),
            header("grpc-timeout"),
            header("grpc-accept-encoding"),
            header("grpc-encoding"),
            header("x-grpc-web"),
            header("x-user-agent"),
        ])
        .expose_headers([
            header("grpc-status"),
            header("grpc-message"),
            header("grpc-status-details-bin"),
            header("grpc-encoding"),
        ])
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
async fn loopback_host_only(request: Request, next: Next) -> Response {
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
    let text = "this server asks for no tokens and answers to loopback names only\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// Static files are asked for again each time, so that a new version is seen.
async fn for_pages(request: Request, next: Next) -> Response {
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

async fn nothing_here(request: Request) -> Response {
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
