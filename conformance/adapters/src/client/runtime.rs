//! The environment of the driven client: tokio, and a wall clock that can be
//! set. Knows no command.

use anyhow::Result;
use gosync_client::platform::{BoxFuture, Moment, Runtime, TokioRuntime, wall_ms};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// tokio with a movable wall clock. Clones share the clock.
#[derive(Clone)]
pub struct DriverRuntime {
    tokio: TokioRuntime,
    offset_ms: Arc<AtomicI64>,
}

impl DriverRuntime {
    /// On the system's clock.
    pub fn new() -> Result<DriverRuntime> {
        Ok(DriverRuntime {
            tokio: TokioRuntime::current()?,
            offset_ms: Arc::default(),
        })
    }

    /// From now on the clock reads `unix_ms` and goes on; 0: the system's.
    pub fn set_clock(&self, unix_ms: u64) {
        let offset = match unix_ms {
            0 => 0,
            ms => ms.wrapping_sub(wall_ms()) as i64,
        };
        self.offset_ms.store(offset, Ordering::SeqCst);
    }
}

impl Runtime for DriverRuntime {
    fn moment(&self) -> Moment {
        let moment = self.tokio.moment();
        let wall_ms = moment
            .wall_ms
            .wrapping_add_signed(self.offset_ms.load(Ordering::SeqCst));
        Moment { wall_ms, ..moment }
    }

    fn sleep(&self, ms: u64) -> BoxFuture<'static, ()> {
        self.tokio.sleep(ms)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tokio.spawn(task);
    }
}
