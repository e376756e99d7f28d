//! A whole server in one value: store, request logic, calls, listeners. The
//! one place that puts the parts together; the program and the tests start the
//! same thing.

use crate::auth::Auth;
use crate::auth::tokens::TokenFileError;
use crate::clock::WallClock;
use crate::config::{Config, ConfigError, Database};
use crate::listen;
use crate::ops::metrics::Metrics;
use crate::ops::{Readiness, operator_page, probes, upkeep};
use crate::rpc::SyncApi;
use crate::rpc::guard::{Guard, guard};
use crate::rpc::rate::RateLimit;
use crate::service::{Service, ServiceConfig};
use crate::store::memory::MemoryStore;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Store, StoreError};
use crate::tls::{self, TlsError};
use crate::web;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use gosync_proto::history::Epoch;
use gosync_proto::mutant;
use gosync_proto::wire::FILE_DESCRIPTOR_SET;
use gosync_proto::wire::sync_service_server::SyncServiceServer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
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
    #[error("cannot listen on {address}: {error}; choose another address with --listen")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
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
                .run_until_cancelled_owned(upkeep::compact_regularly(
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
        tokio::spawn(upkeep::report_health(health, readiness, stop.clone()));
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
            self.clock.clone(),
            &self.config,
            self.metrics.clone(),
            // each holds a reader for as long as its peer reads
            readers() / 2,
            stop.clone(),
        );
        let max_message = usize::try_from(limits.max_message_bytes).unwrap_or(usize::MAX);
        let mut calls = SyncServiceServer::new(api)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(match max_message {
                _ if mutant!(MessagesUnbounded) => usize::MAX,
                most if mutant!(MessagesHalf) => most / 2,
                most => most,
            });
        if !mutant!(NoGzip) {
            calls = calls.accept_compressed(CompressionEncoding::Gzip);
        }
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
            auth: self.auth.clone(),
            limits,
            clock: self.clock.clone(),
            wrong_tokens: (!self.config.behind_proxy).then(|| {
                let minute = Duration::from_secs(60);
                RateLimit::new(self.config.auth.wrong_tokens_per_minute, minute)
            }),
            request_timeout: self.config.request_timeout,
            metrics: self.metrics.clone(),
            drain: stop.clone(),
        });
        let mut app = routes
            .into_axum_router()
            .layer(from_fn_with_state(guarded, guard));
        if !mutant!(NoWeb) {
            app = app.layer(GrpcWebLayer::new());
        }
        app = app.merge(probes(readiness.clone()));
        app = match &self.config.static_files {
            Some(folder) => app.fallback_service(
                Router::new()
                    .fallback_service(ServeDir::new(folder))
                    .layer(from_fn(web::for_pages)),
            ),
            None => app.fallback(web::nothing_here),
        };
        app = app.layer(web::cors(&self.config.cors, self.config.open_to_all()));
        if self.config.open_to_all() {
            app = app.layer(from_fn(web::loopback_host_only));
        }
        Ok(app)
    }
}

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
    let epoch = match mutant!(OneEpoch) {
        false => u64::from_ne_bytes(epoch),
        true => 1,
    };
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
