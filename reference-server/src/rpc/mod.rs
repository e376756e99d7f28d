//! The five calls on the wire: who calls, which space, what to run, how it
//! ends. Thin on purpose: what a request means stands in [`crate::service`],
//! how an error is packed in [`status`].

pub mod guard;
mod hello;
mod push;
pub mod rate;
mod reconcile;
mod snapshot;
pub mod status;
mod stream;
mod watch;

use crate::auth::{Caller, TokenId};
use crate::clock::WallClock;
use crate::config::Config;
use crate::listen::Connection;
use crate::ops::metrics::Metrics;
use crate::service::{Access, Refusal, Service};
use crate::store::SpaceStatus;
use gosync_proto::limits::Limits;
use gosync_proto::wire::sync_service_server::SyncService;
use gosync_proto::{Reason, SpaceId, mutant, wire};
use rate::RateLimit;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The service as tonic serves it.
#[derive(Clone)]
pub struct SyncApi(Arc<Shell>);

/// What every call needs.
struct Shell {
    service: Service,
    clock: WallClock,
    limits: Limits,
    slow_reader_timeout: Duration,
    metrics: Arc<Metrics>,
    snapshots: Arc<Semaphore>,
    rate: RateLimit<(TokenId, SpaceId)>,
    drain: CancellationToken,
}

/// A call that was let in.
struct Admitted {
    caller: Caller,
    space: SpaceId,
    access: Access,
}

impl SyncApi {
    /// A service over request logic.
    pub fn new(
        service: Service,
        clock: WallClock,
        config: &Config,
        metrics: Arc<Metrics>,
        snapshots_at_once: usize,
        drain: CancellationToken,
    ) -> SyncApi {
        SyncApi(Arc::new(Shell {
            service,
            clock,
            limits: config.limits,
            slow_reader_timeout: config.watch.slow_reader_timeout,
            metrics,
            snapshots: Arc::new(Semaphore::new(snapshots_at_once)),
            rate: RateLimit::new(config.limits.max_calls_per_second, Duration::from_secs(1)),
            drain,
        }))
    }
}

impl Shell {
    /// Looks up what the caller may do in the space that it names.
    fn admit<T>(&self, request: &Request<T>, space: &str) -> Result<Admitted, Refusal> {
        // the guard has put it there
        let caller: Caller = request.extensions().get().cloned().ok_or_else(internal)?;
        let space = SpaceId::new(space)?;
        let access = caller.access(&space);
        if let Err(refusal) = access.check_any() {
            return Err(match self.known_as(&space) {
                Some(SpaceStatus::Retired) if mutant!(RetiredToldToAll) => {
                    Refusal::new(Reason::SpaceRetired, "the space was deleted for good")
                }
                Some(SpaceStatus::Active) if mutant!(ExistingTold) => {
                    Refusal::new(refusal.reason, "the token grants no such access here")
                }
                _ => refusal,
            });
        }
        let bucket = match mutant!(OneRateForAll) {
            false => (caller.id(), space.clone()),
            true => (TokenId::default(), SpaceId::new("all")?),
        };
        self.rate
            .take(bucket, Instant::now())
            .or_else(|wait| match mutant!(RateIgnored) {
                false => Err(wait),
                true => Ok(()),
            })
            .map_err(|wait| Refusal {
                retry_after_ms: (wait.as_millis() as u64).max(1),
                limit: Some(wire::LimitDetail {
                    limit: "max_calls_per_second".to_owned(),
                    allowed: self.limits.max_calls_per_second,
                    actual: None,
                }),
                ..Refusal::new(
                    Reason::RateLimited,
                    format!(
                        "more than {} calls per second; wait and retry",
                        self.limits.max_calls_per_second
                    ),
                )
            })?;
        Ok(Admitted {
            caller,
            space,
            access,
        })
    }

    /// What nobody has to know before it is known who asks: for mutants.
    fn known_as(&self, space: &SpaceId) -> Option<SpaceStatus> {
        if !(mutant!(RetiredToldToAll) || mutant!(ExistingTold)) {
            return None;
        }
        let state = self
            .service
            .store()
            .read(space)
            .and_then(|mut tx| tx.state());
        state.ok().map(|state| state.status)
    }

    /// Runs request logic on a thread that may block.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Shell>,
        work: impl FnOnce(&Service) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let answer = move |service: &Service, tell: oneshot::Sender<_>| {
            // nobody may be waiting any more
            let _ = tell.send(work(service));
        };
        self.blocking_beyond(answer).await
    }

    /// Likewise, for work that goes on when it has told its result.
    async fn blocking_beyond<T: Send + 'static>(
        self: &Arc<Shell>,
        work: impl FnOnce(&Service, oneshot::Sender<Result<T, Refusal>>) + Send + 'static,
    ) -> Result<T, Refusal> {
        let service = self.service.clone();
        let (tell, told) = oneshot::channel();
        tokio::task::spawn_blocking(move || work(&service, tell));
        told.await.unwrap_or_else(|_| {
            // the panic itself was reported where it happened
            tracing::error!("a call broke down");
            Err(internal())
        })
    }

    fn refuse(&self, refusal: &Refusal) -> Status {
        self.metrics.refused(refusal.reason);
        status::to_status(refusal, &self.limits, self.clock.now_ms())
    }

    fn answer<T>(&self, result: Result<T, Refusal>) -> Result<Response<T>, Status> {
        result.map(Response::new).map_err(|r| self.refuse(&r))
    }
}

/// What ends a stream from outside of it.
struct Bounds {
    shell: Arc<Shell>,
    caller: Caller,
    space: SpaceId,
    connection: Option<Connection>,
    lifetime: Option<Duration>,
}

impl Bounds {
    fn new<T>(shell: &Arc<Shell>, request: &Request<T>, admitted: &Admitted) -> Bounds {
        let own = Some(shell.limits.max_stream_lifetime_ms)
            .filter(|ms| *ms > 0 && !mutant!(LifetimeIgnored))
            .map(Duration::from_millis);
        let asked = guard::stream_timeout(request.metadata());
        Bounds {
            shell: shell.clone(),
            caller: admitted.caller.clone(),
            space: admitted.space.clone(),
            connection: request.extensions().get().cloned(),
            lifetime: own.into_iter().chain(asked).min(),
        }
    }

    /// Resolves when the stream must end, to the reason.
    async fn reached(&self) -> Refusal {
        let lifetime = async {
            match self.lifetime {
                Some(lifetime) => tokio::time::sleep(lifetime).await,
                None => std::future::pending().await,
            }
        };
        let aging = async {
            match &self.connection {
                Some(connection) => connection.aging.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shell.drain.cancelled(), if !mutant!(ShutdownUnsaid) => Refusal {
                retry_after_ms: 500,
                ..Refusal::new(Reason::Unavailable, "the server is stopping; connect again")
            },
            refusal = self.caller.rights_end(&self.space) => refusal,
            () = aging => {
                Refusal::new(Reason::StreamExpired, "the connection has reached its age; connect again")
            }
            () = lifetime => {
                Refusal::new(Reason::StreamExpired, "the stream has reached its lifetime; open it again")
            }
        }
    }

    /// Ends the stream; a reader that does not even take the end loses its
    /// connection.
    async fn finish<T: stream::Ends>(self, outlet: stream::Outlet<T>, end: wire::StreamEnd) {
        if let Some(reason) = Reason::from_wire(end.reason) {
            self.shell.metrics.refused(reason);
            tracing::debug!(caller = self.caller.name(), space = %self.space, %reason, "stream ended");
        }
        if !outlet.finish(end).await
            && let Some(connection) = self.connection
        {
            tracing::info!(peer = %connection.peer, caller = self.caller.name(), "closing the connection of a reader that does not read");
            connection.close.cancel();
        }
    }
}

fn internal() -> Refusal {
    Refusal::new(
        Reason::Internal,
        "the server made an error; nothing was acknowledged",
    )
}

fn slow_reader() -> Refusal {
    Refusal::new(
        Reason::SlowReader,
        "a message was not accepted in time; open the stream again from the cursor",
    )
}

#[tonic::async_trait]
impl SyncService for SyncApi {
    type WatchStream = stream::Inlet<wire::WatchResponse>;
    type SnapshotStream = stream::Inlet<wire::SnapshotResponse>;

    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        self.0.answer(hello::run(&self.0, request).await)
    }

    async fn push(
        &self,
        request: Request<wire::PushRequest>,
    ) -> Result<Response<wire::PushResponse>, Status> {
        self.0.answer(push::run(&self.0, request).await)
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if mutant!(WatchUnserved) {
            return Err(Status::unimplemented("no Watch"));
        }
        self.0.answer(watch::run(&self.0, request).await)
    }

    async fn reconcile(
        &self,
        request: Request<wire::ReconcileRequest>,
    ) -> Result<Response<wire::ReconcileResponse>, Status> {
        if mutant!(ReconcileUnserved) {
            return Err(Status::unimplemented("no Reconcile"));
        }
        self.0.answer(reconcile::run(&self.0, request).await)
    }

    async fn snapshot(
        &self,
        request: Request<wire::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.0.answer(snapshot::run(&self.0, request).await)
    }
}
