//! What differs between a native process and a browser: whether futures must
//! be `Send`, and where time, timers, tasks and randomness come from. Knows
//! nothing of sync.

use std::future::Future;
use std::pin::Pin;

/// `Send` natively; nothing in a browser, where values of JavaScript cannot
/// leave their thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + ?Sized> MaybeSend for T {}

/// `Send` natively; nothing in a browser, where values of JavaScript cannot
/// leave their thread.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSend {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSend for T {}

/// `Sync` natively; nothing in a browser.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSync: Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Sync + ?Sized> MaybeSync for T {}

/// `Sync` natively; nothing in a browser.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSync {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSync for T {}

/// A boxed future that is `Send` where the platform asks for it.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed future that is `Send` where the platform asks for it.
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A boxed stream that is `Send` where the platform asks for it.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxStream<'a, T> = Pin<Box<dyn futures::Stream<Item = T> + Send + 'a>>;
/// A boxed stream that is `Send` where the platform asks for it.
#[cfg(target_arch = "wasm32")]
pub type BoxStream<'a, T> = Pin<Box<dyn futures::Stream<Item = T> + 'a>>;

/// One reading of everything that a decision may depend on besides its
/// arguments. The engine gets it with each event, so that a simulation can
/// supply it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Milliseconds of a clock that never goes back; only differences count.
    pub mono_ms: u64,
    /// Wall clock, Unix milliseconds; may jump.
    pub wall_ms: u64,
    /// 64 fresh random bits, for jitter and salts.
    pub entropy: u64,
}

/// Timers, tasks and readings of the environment that a client runs in.
pub trait Runtime: Clone + MaybeSend + MaybeSync + 'static {
    /// Reads clocks and randomness.
    fn moment(&self) -> Moment;
    /// Resolves after `ms` milliseconds.
    fn sleep(&self, ms: u64) -> BoxFuture<'static, ()>;
    /// Runs a task in the background until it ends.
    fn spawn(&self, task: BoxFuture<'static, ()>);
    /// 64 bits for a replica id, which must never repeat. Only a simulation,
    /// which has to repeat itself, answers with anything but [`random_u64`].
    ///
    /// # Errors
    /// There is no source of randomness.
    fn replica_id(&self) -> Result<u64, NoRandomness> {
        random_u64()
    }
}

/// 64 random bits from the operating system or the browser.
///
/// # Errors
/// The environment has no source of randomness; nothing can be written
/// without one, since replica ids must not repeat.
pub fn random_u64() -> Result<u64, NoRandomness> {
    getrandom::u64().map_err(|e| NoRandomness(e.to_string()))
}

/// The environment gives no random bits.
#[derive(Clone, Debug, thiserror::Error)]
#[error("this environment has no source of randomness ({0}); a replica cannot draw its id")]
pub struct NoRandomness(String);

/// The runtime of a native process: tokio's timers and tasks. Must be made
/// and used inside a tokio runtime.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    origin: web_time::Instant,
    handle: tokio::runtime::Handle,
}

#[cfg(not(target_arch = "wasm32"))]
impl TokioRuntime {
    /// Of the tokio runtime that the caller runs in.
    ///
    /// # Errors
    /// No tokio runtime is running here.
    pub fn current() -> Result<TokioRuntime, tokio::runtime::TryCurrentError> {
        Ok(TokioRuntime {
            origin: web_time::Instant::now(),
            handle: tokio::runtime::Handle::try_current()?,
        })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Runtime for TokioRuntime {
    fn moment(&self) -> Moment {
        Moment {
            mono_ms: self.origin.elapsed().as_millis() as u64,
            wall_ms: wall_ms(),
            // jitter and salts only need to differ: a failing source is no
            // reason to stop
            entropy: random_u64().unwrap_or_default(),
        }
    }

    fn sleep(&self, ms: u64) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(std::time::Duration::from_millis(ms)))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }
}

/// The wall clock, Unix milliseconds; 0 before 1970.
pub fn wall_ms() -> u64 {
    web_time::SystemTime::now()
        .duration_since(web_time::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}
